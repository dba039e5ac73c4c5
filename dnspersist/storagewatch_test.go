package dnspersist

import (
	"testing"
	"time"
)

// A storage that did not work for the moment in which CertMagic began, and does when we first try
// it, costs no certificate: a name that has come to no issuer after a while is asked for once more.
func TestStorageFailedForAMomentAtStart(t *testing.T) {
	a, _ := provisionedApp(t, `{
		"tls":{"automation":{"policies":[{"subjects":["a.example"],"issuers":[{"module":"dns_persist","ca":"https://127.0.0.1:1/dir"}]}]}},
		"http":{"servers":{"a":{"listen":[":8443"],"routes":[{"match":[{"host":["a.example"]}]}]}}}}`)
	// nothing was started, which is what is left of a job that CertMagic has given up
	w := storageWatch{app: a, began: time.Now(), failed: make(map[*Issuer]bool)}
	takenUp := func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.takenUp["a.example"]
	}
	if over := w.try(a.alive); over || w.asked {
		t.Fatalf("at the start: over is %v, asked for again is %v", over, w.asked)
	}
	w.began = w.began.Add(-storagePatience)
	if over := w.try(a.alive); over || !w.asked {
		t.Fatalf("after a while: over is %v, asked for again is %v", over, w.asked)
	}
	deadline := time.Now().Add(20 * time.Second)
	for !takenUp() {
		if time.Now().After(deadline) {
			t.Fatal("nobody has taken up the name")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if !w.try(a.alive) {
		t.Error("the watch goes on although the name was taken up")
	}
}
