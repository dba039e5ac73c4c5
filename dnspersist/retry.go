package dnspersist

import (
	"context"
	"crypto/x509"
	"errors"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
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
func (k *parker) retries(ctx context.Context, csr *x509.CertificateRequest, err error) bool {
	names, namesErr := acmepersist.NamesFromCSR(csr)
	if namesErr != nil || ctx.Err() != nil {
		return false
	}
	s := k.iss.rt.app.shared
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.parked[k.key(names[0])]
	if p == nil {
		return false
	}
	if errors.Is(err, p.parking.Err) {
		return true // it was parked for that
	}
	now := time.Now()
	p.failures++
	p.failedUntil = now.Add(afterFailures(p.failures, p.parking.NotAfter, now))
	p.parking.Err, p.readyAt = err, time.Time{}
	s.tryAt(p, p.failedUntil, "it is time to try again after a failure")
	return true
}
