package dnspersist

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

// handBackTimeout bounds one hand-back until the CA is asked to finalize: CertMagic would go on
// for thirty days.
const handBackTimeout = 15 * time.Minute

// waiting returns the WaitingError in err, if there is one.
func waiting(err error) *acmepersist.WaitingError {
	var w *acmepersist.WaitingError
	if errors.As(err, &w) {
		return w
	}
	return nil
}

// handBack gives a parked name back to CertMagic, through the newest live
// configuration that wants it. A reload may fail and leave an older one running.
func (s *shared) handBack(p *parked, why string) {
	s.mu.Lock()
	o, owned := p.newest()
	now := time.Now()
	if s.parked[p.key] != p || now.Before(p.freeAt(now)) || !owned {
		s.mu.Unlock()
		return
	}
	p.busyUntil = now.Add(handBackTimeout)
	notAfter := p.hold.NotAfter
	slots := s.slotsOf(o.iss.CA)
	s.mu.Unlock()

	started := o.iss.rt.app.spawn(func(alive context.Context) {
		rest := time.Duration(0)
		defer func() { s.handed(p, rest) }()
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		case <-alive.Done():
			return
		}
		ctx, end := attemptContext(alive)
		defer end()
		level := zapcore.InfoLevel
		if o.cfg.OnDemand != nil {
			level = zapcore.DebugLevel
		}
		o.iss.rt.logger.Log(level, "handing the name back to obtain its certificate",
			zap.String("identifier", p.identifier), zap.String("reason", why))
		var err error
		if rest, err = s.obtain(ctx, o, p, notAfter); err != nil && alive.Err() == nil && waiting(err) == nil {
			o.iss.rt.logger.Error("handed-back name got no certificate",
				zap.String("identifier", p.identifier), zap.Error(err))
		}
	})
	if started {
		return
	}
	// it ends at this very moment; the one before it may live
	s.mu.Lock()
	p.owners = slices.DeleteFunc(p.owners, func(other owner) bool { return other.iss == o.iss })
	p.busyUntil = time.Time{}
	s.mu.Unlock()
	s.handBack(p, why)
}

// attemptContext is that of an attempt at our bidding. It ends after handBackTimeout, unless the attempt
// has a certificate to lose by then.
func attemptContext(alive context.Context) (ctx context.Context, end func()) {
	ctx, cancel := context.WithCancel(acmepersist.InBackground(alive))
	timeout := time.AfterFunc(handBackTimeout, cancel)
	ctx = acmepersist.OnFinish(ctx, func() { timeout.Stop() })
	return ctx, func() {
		timeout.Stop()
		cancel()
	}
}

// tryAt has a name tried again at a time of day, such as the end of a certificate asks for. The
// timer goes on over a change of the clock, and that it has run out counts as well: a clock that
// is put back keeps nothing waiting. s.mu is held.
func (s *shared) tryAt(p *parked, at time.Time, why string) {
	p.retry, p.due = at, time.Now().Add(walltime.Until(at))
	s.arm(p, why)
}

// handed ends a hand-back; for as long as rest CertMagic may still be at work in
// the background. A name that is still parked gets its next turn.
func (s *shared) handed(p *parked, rest time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch now := time.Now(); {
	case now.Before(p.failedUntil):
		p.busyUntil = time.Time{} // it has failed already
	case !p.busyUntil.IsZero():
		p.busyUntil = now.Add(rest)
	}
	if s.parked[p.key] == p && !walltime.Now().Before(p.retry) {
		// p.retry stays past until the name is parked anew, or a job that is still
		// on its way would be answered from memory
		wait := rest
		if wait == 0 {
			wait = acmepersist.RetryAgain
		}
		p.due = time.Now().Add(wait)
		s.arm(p, "it is time to try again")
	}
}

// backgroundJob is how long a job that CertMagic runs in the background is left
// alone before the name may be handed back again.
const backgroundJob = time.Minute

// obtain asks CertMagic for the certificate in the way that fits where the name
// stands; notAfter is the end of the one that is to be renewed, zero for a first one.
// rest is how long CertMagic goes on after it. A name that another node of the cluster
// has served meanwhile is not parked any longer.
func (s *shared) obtain(ctx context.Context, o owner, p *parked, notAfter time.Time) (rest time.Duration, err error) {
	cfg, name := o.cfg, p.identifier
	stored := cfg.Storage.Exists(ctx, certmagic.StorageKeys.SiteCert(o.iss.IssuerKey(), name))
	switch {
	case cfg.OnDemand != nil:
		// CertMagic asks for permission at the handshake only
		if decide := cfg.OnDemand.DecisionFunc; decide != nil {
			switch err := decide(ctx, name); {
			case isRefusal(err):
				s.forget(p)
				return 0, nil
			case err != nil:
				o.iss.rt.logger.Debug("whether the name is permitted is not known; it is tried again",
					zap.String("identifier", name), zap.Error(err))
				return 0, nil
			}
		}
		if stored && !notAfter.IsZero() {
			err = renew(ctx, cfg, name, notAfter)
		} else {
			err = cfg.ObtainCertAsync(ctx, name)
		}
	case notAfter.IsZero():
		// with the configuration's own life, for the job outlives this call; it loads a
		// certificate that another node has obtained
		err = cfg.ManageAsync(o.iss.rt.app.alive, []string{name})
		if !stored {
			return backgroundJob, err
		}
	default:
		if err = renew(ctx, cfg, name, notAfter); err != nil {
			return 0, err
		}
		// maintenance takes the new one from storage at one of its next ticks, but not while
		// it waits after a failure: the old one may run out meanwhile
		var cert certmagic.Certificate
		if cert, err = cfg.CacheManagedCertificate(ctx, name); err == nil {
			s.renewInTime(o, name, cert)
		}
	}
	if err == nil {
		s.forget(p)
	}
	return 0, err
}

// replacing is the context key of the end of the certificate that a hand-back renews.
type replacing struct{}

// errRenewedMeanwhile ends a hand-back that came second in a cluster.
var errRenewedMeanwhile = errors.New("another node has renewed the certificate meanwhile")

// renew renews a certificate that ends at notAfter. It is forced, for CertMagic has
// found it due before the name was parked, and what storage knows of the CA's renewal
// window may be older; Issue then sees to it that a cluster does not renew twice.
func renew(ctx context.Context, cfg *certmagic.Config, name string, notAfter time.Time) error {
	err := cfg.RenewCertAsync(context.WithValue(ctx, replacing{}, notAfter), name, true)
	if errors.Is(err, errRenewedMeanwhile) {
		return nil
	}
	return err
}

// renewedMeanwhile reports, under CertMagic's lock, whether the certificate that a
// hand-back is to renew is no longer the one in storage.
func (iss *Issuer) renewedMeanwhile(ctx context.Context, cfg *certmagic.Config, csr *x509.CertificateRequest) bool {
	notAfter, ok := ctx.Value(replacing{}).(time.Time)
	if !ok {
		return false
	}
	name, err := acmepersist.NameFromCSR(csr)
	if err != nil {
		return false
	}
	cert := acmepersist.StoredCertificate(ctx, cfg.Storage, iss.IssuerKey(), name)
	return cert != nil && !cert.NotAfter.Equal(notAfter)
}

// forget drops a parked name.
func (s *shared) forget(p *parked) {
	s.mu.Lock()
	s.unlist(p)
	end := p.end()
	s.mu.Unlock()
	end(s)
}
