package dnspersist

import (
	"sync"
	"testing"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/parking"
)

// CertMagic's jobs go on after the last configuration has ended, and with it Caddy's cache of certificates.
func TestNoCertificateIsLookedUpAfterTheEnd(t *testing.T) {
	a := &App{mu: new(sync.Mutex), work: new(sync.WaitGroup), stopped: true}
	a.planned = func() planned {
		t.Error("the cache is asked for a certificate")
		return planned{}
	}
	if c := a.certificate("example.com"); c != (parking.Certificate{}) {
		t.Errorf("the certificate is %v", c)
	}
}
