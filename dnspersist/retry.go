package dnspersist

import (
	"context"
	"crypto/x509"
	"time"

	"github.com/caddyserver/certmagic"
)

// failureWaits are the times after which a waiting name is tried again whose attempt has failed
// for another reason than DNS: the first ones are CertMagic's. The last one repeats.
var failureWaits = []time.Duration{
	time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 20 * time.Minute, 30 * time.Minute, time.Hour,
}

// afterFailures is how long a name waits after so many failures in a row; notAfter is the end of
// the certificate that is to be renewed, zero for a first one.
func afterFailures(failures int, notAfter, now time.Time) time.Duration {
	wait := failureWaits[min(failures, len(failureWaits))-1]
	if left := notAfter.Sub(now); left > 0 {
		wait = min(wait, max(left/8, 10*time.Second))
	}
	return wait
}

// retries reports whether the app tries a waiting name again after err, and sees to it. While
// CertMagic waits to do so itself, it holds its job and the lock, and the app would start a
// second job beside it.
func (k *parker) retries(ctx context.Context, name string, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	s := k.iss.rt.app.shared
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.parked[k.key(name)]
	if p == nil {
		return false
	}
	now := time.Now()
	p.failures++
	p.failedUntil = now.Add(afterFailures(p.failures, p.hold.NotAfter, now))
	failed := *p.hold
	failed.Err = err
	p.hold, p.readyAt = &failed, time.Time{}
	s.tryAt(p, p.failedUntil, "it is time to try again after a failure")
	return true
}

// certMagicBackoff is the longest time for which CertMagic's maintenance leaves a name alone after
// a renewal that failed. It does not learn that the app has renewed the certificate since.
const certMagicBackoff = 6 * time.Hour

// renewInTime sees to a certificate that the app has renewed, and that comes due while CertMagic
// may still wait after the failure before: such are those of some hours.
func (s *shared) renewInTime(o owner, name string, cert certmagic.Certificate) {
	r := renewer{
		ratio: o.cfg.RenewalWindowRatio,
		renew: func(ctx context.Context) (*x509.Certificate, error) {
			if err := o.cfg.RenewCertAsync(ctx, name, false); err != nil {
				return nil, err
			}
			next, err := o.cfg.CacheManagedCertificate(ctx, name)
			return next.Leaf, err
		},
		waits: func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.parked[(&parker{iss: o.iss, cfg: o.cfg}).key(name)] != nil
		},
	}
	if r.ratio == 0 {
		r.ratio = certmagic.DefaultRenewalWindowRatio
	}
	if cert.Leaf != nil && r.wait(cert.Leaf) <= certMagicBackoff {
		o.iss.rt.app.spawn(func(alive context.Context) { r.run(alive, cert.Leaf) })
	}
}

// renewer renews the certificates of one name in time.
type renewer struct {
	ratio float64
	renew func(context.Context) (*x509.Certificate, error)
	// waits reports whether the name waits: then it is retried, and what it gets then is seen
	// to anew.
	waits func() bool
}

// wait is the time until a certificate is due. CertMagic rounds, and would find it not due at once.
func (r renewer) wait(leaf *x509.Certificate) time.Duration {
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	window := time.Duration(float64(life) * r.ratio)
	return max(time.Until(leaf.NotAfter.Add(-window)), 0) + life/100 + time.Second
}

// run goes on until nothing comes due any more before CertMagic is ready, or the name is another's.
func (r renewer) run(alive context.Context, leaf *x509.Certificate) {
	failures, wait := 0, r.wait(leaf)
	for wait <= certMagicBackoff {
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-alive.Done():
			timer.Stop()
			return
		}
		ctx, end := attemptContext(alive)
		next, err := r.renew(ctx)
		end()
		switch {
		case err != nil && r.waits():
			return
		case err != nil: // CertMagic has logged it
			failures++
			wait = afterFailures(failures, leaf.NotAfter, time.Now())
		case next == nil || !next.NotAfter.After(leaf.NotAfter):
			return
		default:
			leaf, failures, wait = next, 0, r.wait(next)
		}
	}
}
