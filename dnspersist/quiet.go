package dnspersist

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/parking"
)

// What waits has not failed, but CertMagic knows only attempts that succeed or fail: it logs two errors and
// fires cert_failed for each of them. For a new fleet these are tens of thousands of errors on its first
// day, and an alert on errors would be useless for good.

// pending is what an attempt is answered with for a domain that waits for DNS or time: there is no failure,
// and CertMagic's report of one is held back. It shows no error of the CA, of which CertMagic would log
// nothing but the text.
type pending struct{ error }

// pendingText begins the text of a pending. CertMagic's maintenance passes on texts only.
const pendingText = "nothing has failed: "

func (p pending) Error() string { return pendingText + p.error.Error() }

// As gives what is waited for.
func (p pending) As(target any) bool {
	hold, ok := target.(**acmepersist.Hold)
	return ok && errors.As(p.error, hold)
}

// Is lets CertMagic see that an attempt was cut short.
func (p pending) Is(target error) bool { return errors.Is(p.error, target) }

// answer is the error that CertMagic gets for a domain that the registry sees to.
func (o owner) answer(err error, fromMemory bool) error {
	var hold *acmepersist.Hold
	switch {
	case o.IsOnDemand() && fromMemory: // a visitor cannot fill the log
		return pending{err}
	case errors.As(err, &hold) && parking.SeverityOf(hold, time.Now()) < parking.SeverityError:
		return pending{err}
	}
	return explained{err}
}

// isPending reports whether an error of CertMagic's is about a domain that waits.
func isPending(err error) bool {
	var p pending
	return errors.As(err, &p) || err != nil && renewalPending.MatchString(err.Error())
}

// renewalPending is the error of a renewal by maintenance.
var renewalPending = regexp.MustCompile(`^\[[^\]]*\] \[[^\]]*\] (?:Renew|Obtain): ` + pendingText)

// failures are the messages of CertMagic about an attempt that was answered with an error.
var failures = map[string]bool{
	"could not get certificate from issuer": true, "job failed": true,
	"renewing and reloading certificate": true, "renewing certificate based on updated ARI": true,
}

// quietCore is CertMagic's log without failures of what waits, and without its steps for a domain that is
// known to wait; both are at level DEBUG.
type quietCore struct {
	zapcore.Core
	waits  func(domain string) bool
	ended  func() bool // whether the configuration has
	domain string      // of a logger for one
}

func (c quietCore) With(fields []zapcore.Field) zapcore.Core {
	c.Core = c.Core.With(fields)
	if domain := domainIn(fields); domain != "" {
		c.domain = domain
	}
	return c
}

// Check has what may be held back written by c, for only there the fields are known.
func (c quietCore) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if e.Level == zapcore.InfoLevel || failures[e.Message] {
		if !c.Enabled(e.Level) {
			return checked
		}
		return checked.AddCore(e, c)
	}
	return c.Core.Check(e, checked)
}

func (c quietCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	if c.isQuiet(e, fields) {
		e.Level = zapcore.DebugLevel
	}
	if checked := c.Core.Check(e, nil); checked != nil {
		checked.Write(fields...)
	}
	return nil
}

func (c quietCore) isQuiet(e zapcore.Entry, fields []zapcore.Field) bool {
	if e.Level == zapcore.InfoLevel {
		domain := domainIn(fields)
		if domain == "" {
			domain = c.domain
		}
		return domain != "" && c.waits(domain)
	}
	for _, f := range fields {
		if err, ok := f.Interface.(error); ok && f.Type == zapcore.ErrorType {
			// a job that waited for its lock was cut short by a reload
			return isPending(err) || strings.HasSuffix(err.Error(), context.Canceled.Error()) && c.ended()
		}
	}
	return false
}

// domainIn is the domain that fields of CertMagic's are about; empty if there is none.
func domainIn(fields []zapcore.Field) string {
	for _, f := range fields {
		switch {
		case f.Type == zapcore.StringType && (f.Key == "identifier" || f.Key == "server_name"):
			return f.String
		case f.Key == "subjects": // of its certificate, which is for one domain
			return strings.Trim(fmt.Sprint(f.Interface), "[]")
		}
	}
	return ""
}

// hearCertMagic has the registry learn from CertMagic's events which domains are served and which have failed, whichever
// issuer they are of, and holds back what is not true of a domain that waits.
func (iss *Issuer) hearCertMagic(cfg *certmagic.Config) {
	if cfg.Logger == nil { // an issuer that no server runs
		return
	}
	if _, done := cfg.Logger.Core().(quietCore); done {
		return
	}
	o, app := owner{iss}, iss.rt.app
	waits := func(domain string) bool { return o.IsAlone() && app.shared.registry.Waits(o, domain) }
	ended := func() bool { return o.IsAlone() && app.ctx.Err() != nil }
	cfg.Logger = cfg.Logger.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		return quietCore{Core: core, waits: waits, ended: ended}
	}))
	app.shared.starts.pace(cfg)
	emit := cfg.OnEvent
	cfg.OnEvent = func(ctx context.Context, event string, data map[string]any) error {
		if err, ok := data["error"].(error); ok && event == "cert_failed" && isPending(err) {
			return nil
		}
		certificateEvents{app}.hear(certificateEvent{event, data})
		if emit == nil || app.ctx.Err() != nil {
			return nil // Caddy hands it to nobody any more, and would log an error for that
		}
		return emit(ctx, event, data)
	}
}
