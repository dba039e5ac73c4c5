package dnspersist

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/parking"
)

// certMagic is a configuration of CertMagic's that an issuer was given, with its log and the events that it fires.
type certMagic struct {
	*certmagic.Config
	logs   *observer.ObservedLogs
	events []string
}

func newCertMagic(o owner) *certMagic {
	core, logs := observer.New(zap.DebugLevel)
	m := &certMagic{logs: logs}
	cfg := *o.iss.rt.config()
	cfg.Logger = zap.New(core)
	cfg.OnEvent = func(_ context.Context, name string, _ map[string]any) error {
		m.events = append(m.events, name)
		return nil
	}
	m.Config = &cfg
	o.iss.SetConfig(m.Config)
	o.iss.SetConfig(m.Config) // as Caddy does
	return m
}

// level is the level of the last entry.
func (m *certMagic) level() zapcore.Level {
	all := m.logs.TakeAll()
	return all[len(all)-1].Level
}

// fail is what CertMagic does with an attempt for a domain that was answered with an error.
func (m *certMagic) fail(domain string, answer error) (levels []zapcore.Level, fired bool) {
	before := len(m.events)
	err := error(certmagic.ErrNoRetry{Err: answer})
	toLog := err
	var problem acme.Problem
	if errors.As(err, &problem) {
		toLog = problem
	}
	m.Logger.Named("obtain").Error("could not get certificate from issuer", zap.String("identifier", domain), zap.String("issuer", "ca.test-dir"), zap.Error(toLog))
	levels = append(levels, m.level())
	_ = m.OnEvent(context.Background(), "cert_failed", map[string]any{"identifier": domain, "error": err})
	obtain := fmt.Errorf("%s: obtaining certificate: %w", domain, fmt.Errorf("[%s] Obtain: %w", domain, err))
	m.Logger.Error("job failed", zap.Error(obtain))
	levels = append(levels, m.level())
	// a renewal by maintenance
	m.Logger.Error("job failed", zap.Error(errors.New("["+domain+"] "+fmt.Errorf("[%s] Renew: %w", domain, err).Error())))
	levels = append(levels, m.level())
	m.Logger.Named("on_demand").Error("renewing and reloading certificate", zap.String("server_name", domain), zap.Error(obtain))
	return append(levels, m.level()), len(m.events) > before
}

// CertMagic reports no failure of a domain that waits for DNS or time, and each of one that is broken; a
// certificate that runs out is broken.
func TestWaitIsNoFailure(t *testing.T) {
	_, o := newOwner(t, aloneApps)
	m := newCertMagic(o)
	limited := fmt.Errorf("the CA takes no order: %w", acme.Problem{Type: "urn:ietf:params:acme:error:rateLimited", Status: 429})
	for reason, isError := range map[acmepersist.Reason]bool{
		acmepersist.ReasonAbsent: false, acmepersist.ReasonWrong: false, acmepersist.ReasonRateLimited: false, acmepersist.ReasonCADown: false,
		acmepersist.ReasonAccount: true, acmepersist.ReasonCAA: true, acmepersist.ReasonBudget: true, acmepersist.ReasonRejected: true,
	} {
		hold := &acmepersist.Hold{Reason: reason, Domain: "a.example", Err: limited}
		for _, urgent := range []bool{false, true} {
			if urgent {
				hold.NotAfter, hold.Urgent = time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
			}
			want := zap.DebugLevel
			if isError || urgent {
				want = zap.ErrorLevel
			}
			answer := o.answer(hold, false)
			levels, fired := m.fail("a.example", answer)
			for i, level := range levels {
				if level != want {
					t.Errorf("%s, urgent %v: entry %d is at %s, want %s", reason, urgent, i, level, want)
				}
			}
			if fired != (want == zap.ErrorLevel) {
				t.Errorf("%s, urgent %v: cert_failed was fired: %v", reason, urgent, fired)
			}
			var found *acmepersist.Hold
			if !errors.As(answer, &found) {
				t.Errorf("%s: the answer is no Hold", reason)
			}
		}
	}
	// what CertMagic does about a certificate that was revoked is no attempt
	m.Logger.Error("unable to obtain new to certificate after OCSP status of REVOKED; removing from cache", zap.Error(pending{limited}))
	if level := m.level(); level != zap.ErrorLevel {
		t.Errorf("a revoked certificate is at %s", level)
	}
	m.Logger.Error("job failed", zap.Error(errors.New("[a.example] [a.example] Renew: no. nothing has failed: ")))
	if level := m.level(); level != zap.ErrorLevel {
		t.Errorf("a text that only has ours in it is at %s", level)
	}
}

// Beside other issuers all of CertMagic's entries and events stay what they are.
func TestChainIsLeftAlone(t *testing.T) {
	_, o := newOwner(t, chainApps)
	m := newCertMagic(o)
	hold(t, o, "a.example")
	levels, fired := m.fail("a.example", explained{&acmepersist.Hold{Reason: acmepersist.ReasonAbsent, Domain: "a.example", Err: errors.New("wait")}})
	m.Logger.Info("acquiring lock", zap.String("identifier", "a.example"))
	for _, level := range append(levels, m.level()) {
		if level < zap.InfoLevel {
			t.Errorf("an entry is at %s", level)
		}
	}
	if !fired {
		t.Error("cert_failed was held back")
	}
}

// CertMagic's steps for a domain that is known to wait are at level DEBUG, and a visit to a tenant is answered
// without an error whatever it waits for.
func TestStepsOfADomainThatWaits(t *testing.T) {
	_, o := newOwner(t, aloneApps)
	m := newCertMagic(o)
	hold(t, o, "waits.example")
	for domain, want := range map[string]zapcore.Level{"waits.example": zap.DebugLevel, "other.example": zap.InfoLevel} {
		m.Logger.Named("obtain").Info("acquiring lock", zap.String("identifier", domain))
		if level := m.level(); level != want {
			t.Errorf("%s: a step is at %s, want %s", domain, level, want)
		}
		m.Logger.Info("certificate is in configured renewal window based on expiration date", zap.Strings("subjects", []string{domain}))
		if level := m.level(); level != want {
			t.Errorf("%s: that a certificate is due is at %s, want %s", domain, level, want)
		}
		m.Logger.Named("on_demand").With(zap.String("server_name", domain)).Info("attempting certificate renewal")
		if level := m.level(); level != want {
			t.Errorf("%s: a step of a logger of its own is at %s, want %s", domain, level, want)
		}
	}
	onDemand(o, func(context.Context, string) error { return nil })
	if err := o.answer(errors.New("anything"), true); !isPending(err) {
		t.Errorf("a visit is answered with %v", err)
	}
	if err := o.answer(errors.New("anything"), false); isPending(err) {
		t.Errorf("an attempt that has failed is answered with %v", err)
	}
}

// What a reload cuts short has not failed, and Caddy logs an error for an event of a configuration that has ended.
func TestAttemptThatAReloadCutsShort(t *testing.T) {
	a, o := newOwner(t, aloneApps)
	m := newCertMagic(o)
	job := func() zapcore.Level {
		m.Logger.Error("job failed", zap.Error(errors.New("a.example: obtaining certificate: unable to acquire lock 'issue_cert_a.example': "+context.Canceled.Error())))
		return m.level()
	}
	if level := job(); level != zap.ErrorLevel {
		t.Errorf("while the configuration runs it is at %s", level)
	}
	ctx, cancel := context.WithCancel(context.Background())
	a.ctx.Context = ctx
	cancel()
	if level := job(); level != zap.DebugLevel {
		t.Errorf("after its end it is at %s", level)
	}
	if err := m.OnEvent(t.Context(), "cert_failed", map[string]any{"identifier": "a.example", "error": errors.New("no")}); err != nil || len(m.events) != 0 {
		t.Errorf("after its end it has fired %v, %v", m.events, err)
	}
}

// An attempt that a reload or a visitor ends has not failed; one that has hung until its time was up has.
func TestAttemptThatHangsHasFailed(t *testing.T) {
	_, o := newOwner(t, aloneApps)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"a.example"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	for _, isReload := range []bool{true, false} {
		var cause error
		if !isReload {
			cause = parking.ErrTookLong
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		_, err := o.iss.Issue(ctx, csr)
		if err == nil || isPending(err) != isReload || cause != nil && !errors.Is(err, cause) {
			t.Errorf("a reload: %v; the attempt is answered with %v", isReload, err)
		}
	}
}
