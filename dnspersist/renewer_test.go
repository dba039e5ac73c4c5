package dnspersist

import (
	"context"
	"crypto/x509"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A certificate of some hours is tried again after a failure of whatever kind: CertMagic may leave the
// name alone for longer than it lasts. A name that waits with us is retried by us, and that is enough.
func TestShortCertificateIsTriedAgainAfterAFailure(t *testing.T) {
	const life = 4 * time.Hour
	for what, tc := range map[string]struct {
		waits bool
		tries int
	}{"left to nobody": {false, 4}, "waits with us": {true, 1}} {
		synctest.Test(t, func(t *testing.T) {
			leaf := &x509.Certificate{NotBefore: time.Now(), NotAfter: time.Now().Add(life)}
			tries := 0
			r := renewer{
				ratio: 1.0 / 3,
				renew: func(ctx context.Context) (*x509.Certificate, error) {
					if tries++; tries <= 3 {
						<-ctx.Done() // CertMagic goes on for as long as it may
						return nil, errors.New("HTTP 500")
					}
					if !time.Now().Before(leaf.NotAfter) {
						t.Errorf("%s: the certificate has run out", what)
					}
					return &x509.Certificate{NotBefore: time.Now(), NotAfter: time.Now().Add(90 * 24 * time.Hour)}, nil
				},
				waits: func() bool { return tc.waits },
			}
			if r.run(t.Context(), leaf); tries != tc.tries {
				t.Errorf("%s: it is tried %d times, want %d", what, tries, tc.tries)
			}
		})
	}
}

// It ends with its configuration, and nothing is left of it.
func TestRenewerEndsWithItsConfiguration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alive, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			renewer{ratio: 1.0 / 3}.run(alive, &x509.Certificate{NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)})
		}()
		synctest.Wait()
		cancel()
		<-done
	})
}
