package dnspersist

import (
	"errors"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
)

const (
	aloneApps = `{"tls":{"automation":{"policies":[{"issuers":[{"module":"dns_persist","ca":"https://ca.test/dir"}]}]}}}`
	chainApps = `{"tls":{"automation":{"policies":[{"issuers":[{"module":"dns_persist","ca":"https://ca.test/dir"},{"module":"internal"}]}]}}}`
)

// newParker is the parker of a configuration's first issuer.
func newParker(t *testing.T, apps string) (*App, *parker) {
	t.Helper()
	a, _ := provisionedApp(t, apps)
	iss := a.livePlan().Issuers()[0]
	_, cfg := iss.active()
	return a, &parker{iss: iss, cfg: cfg}
}

// park parks a name and returns it; nil if nothing is parked.
func park(t *testing.T, k *parker, name string) *parked {
	t.Helper()
	errWait := errors.New("wait")
	k.Park(t.Context(), &acmepersist.Hold{Domain: name, Err: errWait})
	s := k.iss.rt.app.shared
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.parked[k.key(name)]
}

// owns tells whether the parked name is handed back through the app.
func owns(a *App, p *parked) bool {
	o, ok := a.shared.newest(p)
	return ok && o.iss.rt.app == a
}

// A configuration that has ended does not get hold of a name any more: jobs of CertMagic
// outlive it.
func TestEndedConfigurationOwnsNothing(t *testing.T) {
	old, before := newParker(t, aloneApps)
	p := park(t, before, "a.example")
	next, now := newParker(t, aloneApps)
	if _, err := now.Parked(t.Context(), "a.example"); err != nil {
		t.Logf("as expected: %v", err)
	}
	old.end()
	if _, err := before.Parked(t.Context(), "a.example"); err == nil {
		t.Error("a job of an ended configuration goes on with a name that waits")
	}
	if !owns(next, p) {
		t.Error("an ended configuration owns the name after a look at it")
	}
	if park(t, before, "a.example"); !owns(next, p) {
		t.Error("an ended configuration owns the name that it has parked")
	}
	if park(t, before, "b.example") != nil {
		t.Error("an ended configuration has parked another name")
	}
	next.end()
	p.retry = time.Now()
	next.shared.dropOrphans()
	if len(next.shared.parked) != 0 {
		t.Error("a name that nobody owns stays parked")
	}
}

// A configuration that ends just while a name is handed back does not keep it from the one
// that lives.
func TestHandBackPassesByWhatEnds(t *testing.T) {
	live, first := newParker(t, aloneApps)
	ending, second := newParker(t, aloneApps)
	p := park(t, first, "a.example")
	park(t, second, "a.example")
	ending.mu.Lock()
	ending.stopped = true
	ending.mu.Unlock()
	slots := live.shared.slotsOf("https://ca.test/dir")
	for range cap(slots) {
		slots <- struct{}{} // it begins and waits for its turn
	}
	live.shared.handBack(p, "the test wants it")
	if !owns(live, p) || !time.Now().Before(p.busyUntil) {
		t.Error("the name is not handed back through the configuration that lives")
	}
	live.end()
	live.work.Wait()
	ending.shared.disown(ending)
	if live.shared.orphan == nil {
		t.Error("nothing ends the watch of a name that nobody owns")
	}
}

// A name that waits is not handed back through a configuration that has put another issuer
// beside ours: that one serves it, and the name would never be done.
func TestParkedNameOfAChain(t *testing.T) {
	old, before := newParker(t, aloneApps)
	p := park(t, before, "a.example")
	chain, now := newParker(t, chainApps)
	if before.key("a.example") != now.key("a.example") {
		t.Fatal("the issuers differ")
	}
	if report, err := now.Parked(t.Context(), "a.example"); report != nil || err != nil {
		t.Errorf("the chain's issuer was told %v, %v", report, err)
	}
	park(t, now, "a.example")
	if owns(chain, p) {
		t.Error("the chain owns the name")
	}
	old.end()
	if _, owned := chain.shared.newest(p); owned {
		t.Error("the name is still owned")
	}
	chain.shared.dropOrphans()
	if len(chain.shared.parked) != 0 {
		t.Error("the name stays parked")
	}
}
