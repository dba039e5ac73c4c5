package publish

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// A wildcard beside a plain name leads to a wider value first, its use, and then the end of
// the plain one.
func TestPolicyIsWidened(t *testing.T) {
	e, a := newEnv(t, options(12*time.Second))
	name := e.Name("wide")
	a.set(vname(name), foreign)
	e.Load(e.Global("renew_interval 1s") + e.Site(name, e.Block(a.block())))
	e.WaitTrusted(name, harness.Soon)
	plain := a.ours(name)
	if len(plain) != 1 || strings.Contains(plain[0], "policy") {
		t.Fatalf("there is %q", plain)
	}
	e.Load(e.Global("renew_interval 1s") + e.Site(name+", *."+name, e.Block(a.block())))
	e.WaitTrusted("x."+name, harness.Soon)
	e.Eventually(time.Minute, "the plain value to be removed", func() error {
		if got := a.ours(name); !slices.Equal(got, []string{plain[0] + "; policy=wildcard"}) {
			return fmt.Errorf("there is %q", got)
		}
		return nil
	})
	if got := a.at(vname(name)); got[0] != foreign {
		t.Errorf("there are %q", got)
	}
	// narrowing it again changes nothing
	writes := a.count("append", vname(name)) + a.count("delete", vname(name))
	e.Load(e.Global("renew_interval 1s") + e.Site(name, e.Block(a.block())))
	renewed(e, name, e.WaitTrusted(name, harness.Soon))
	if n := a.count("append", vname(name)) + a.count("delete", vname(name)); n != writes {
		t.Errorf("%d writes, there were %d", n, writes)
	}
}

// received are the events that a webhook has got.
type received struct {
	mu  sync.Mutex
	got []receivedEvent
}

type receivedEvent struct {
	Event string
	Data  struct {
		Account, Name, Value, Zone string
		Changes                    []string
	}
}

// ServeHTTP takes one.
func (r *received) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	var event receivedEvent
	if err := json.NewDecoder(request.Body).Decode(&event); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, event)
}

// A change of the dialect is followed: the new value first, its use, then the old one goes. The change and each
// record that is written are events.
func TestDialectIsFollowed(t *testing.T) {
	events := new(received)
	hook := httptest.NewServer(events)
	t.Cleanup(hook.Close)
	e, a := newEnv(t, options(12*time.Second))
	name := e.Name("dialect")
	a.set(vname(name), foreign)
	on := func(event string) string { return "on " + event + " dns_persist_webhook " + hook.URL + "\n" }
	e.Load(e.Global("renew_interval 1s", "events {\n"+on("dns_persist_record_published")+on("dns_persist_ca_changed")+"}") + e.Site(name, e.Block(a.block())))
	e.WaitTrusted(name, harness.Soon)
	account := e.CA.Orders()[0].Account
	e.CA.SetDialect(lab.Dialect{Draft: "02", AcceptAccountURL: true})
	e.Eventually(time.Minute, "the hashed value alone", func() error {
		got := a.ours(name)
		if len(got) != 1 || !strings.Contains(got[0], e.CA.HashedURI(account, name)) {
			return fmt.Errorf("there is %q", got)
		}
		return nil
	})
	if got := a.at(vname(name)); got[0] != foreign {
		t.Errorf("there are %q", got)
	}
	if n := len(e.CA.FailedValidations()); n != 0 {
		t.Errorf("%d failed validations", n)
	}
	e.Eventually(harness.Soon, "three events", func() error {
		events.mu.Lock()
		defer events.mu.Unlock()
		return harness.Want(len(events.got), 3)
	})
	events.mu.Lock()
	defer events.mu.Unlock()
	first, changed, second := events.got[0], events.got[1], events.got[2]
	for value, written := range map[string]receivedEvent{account: first, e.CA.HashedURI(account, name): second} {
		if d := written.Data; written.Event != "dns_persist_record_published" || d.Name != vname(name) || !strings.Contains(d.Value, value) || d.Zone == "" {
			t.Errorf("the event of the record with %s is %+v", value, written)
		}
	}
	if changed.Event != "dns_persist_ca_changed" || changed.Data.Account != account || len(changed.Data.Changes) == 0 {
		t.Errorf("the event of the change is %+v", changed)
	}
}

// A record with an end is followed by its successor well before, and then removed.
func TestExpiryIsRenewed(t *testing.T) {
	e, a := newEnv(t, options(12*time.Second))
	name := e.Name("ends")
	// a record is not asked with in its last minute
	e.Load(e.Global("renew_interval 1s") + e.Site(name, e.Block(a.block(), "persist_for 90s")))
	e.WaitTrusted(name, harness.Soon)
	first := a.ours(name)
	if len(first) != 1 || !strings.Contains(first[0], "persistUntil=") {
		t.Fatalf("there is %q", first)
	}
	e.Eventually(2*time.Minute, "the successor alone", func() error {
		got := a.ours(name)
		if len(got) != 1 || got[0] == first[0] {
			return fmt.Errorf("there is %q", got)
		}
		return nil
	})
	if n := len(e.CA.FailedValidations()); n != 0 {
		t.Errorf("%d failed validations", n)
	}
}

// A certificate that has run out while its record vanished gets the record first: the CA is
// not asked in vain.
func TestOverdueIsPublishedFirst(t *testing.T) {
	e, a := newEnv(t, options(5*time.Second))
	name := e.Name("late")
	e.Load(e.Global() + e.Site(name, e.Block(a.block())))
	cert := e.WaitTrusted(name, harness.Soon)
	e.Stop()
	a.set(vname(name), foreign)
	e.Eventually(harness.Soon, "the certificate to run out", func() error {
		if left := time.Until(cert.NotAfter); left > 0 {
			return fmt.Errorf("%s are left", left)
		}
		return nil
	})
	e.Load(e.Global("renew_interval 1s") + e.Site(name, e.Block(a.block())))
	renewed(e, name, cert)
	if n := len(e.CA.FailedValidations()); n != 0 {
		t.Errorf("the CA was asked %d times in vain", n)
	}
	if n := a.count("append", vname(name)); n != 2 {
		t.Errorf("%d writes, want 2", n)
	}
}

// Sites of one account have providers of their own, or none: each record is kept by its
// site's, and by no other.
func TestKeptByItsOwnProvider(t *testing.T) {
	b := newAPI(t)
	e, a := newEnv(t, options(0))
	b.dns = e.DNS
	one, two, none := e.Name("one"), e.Name("two"), e.Name("none")
	e.Publish(none, e.Value(e.Bind(), false))
	e.Load(e.Global() + e.Site(one, e.Block(a.block())) + e.Site(none, e.Block()) + e.Site(two, e.Block(b.block())))
	for _, n := range []string{one, two, none} {
		e.WaitTrusted(n, harness.Soon)
	}
	a.set(vname(one))
	b.set(vname(two))
	e.DNS.SetTXT(0, vname(none))
	for n, by := range map[string]*api{one: a, two: b} {
		e.Eventually(harness.Soon, "the record of "+n+" to be written again", func() error {
			return harness.Want(by.count("append", vname(n)), 2)
		})
	}
	e.Eventually(harness.Soon, "the record of "+none+" to be missed", func() error {
		for _, l := range e.Logs("a record that a certificate is renewed by is gone or was changed; publish it again") {
			if l["name"] == vname(none) {
				return nil
			}
		}
		return fmt.Errorf("no entry")
	})
	for n, other := range map[string]*api{one: b, two: a, none: a} {
		if c := other.count("append", vname(n)); c != 0 {
			t.Errorf("%s was written %d times by the provider of another site", n, c)
		}
	}
	if c := b.count("append", vname(none)); c != 0 {
		t.Errorf("%s was written %d times, and has no provider", none, c)
	}
}

// Many records are kept at once: that one takes long holds up no other.
func TestManyAreKeptAtOnce(t *testing.T) {
	e, a := newEnv(t, options(0))
	a.lag = 3 * time.Second
	var names []string
	for i := range 12 {
		names = append(names, e.Name(fmt.Sprintf("many%d", i)))
	}
	e.Load(e.Global() + e.Site(strings.Join(names, ", "), e.Block(a.block())))
	for _, n := range names {
		e.WaitTrusted(n, harness.Soon)
	}
	for _, n := range names {
		a.set(vname(n))
	}
	began := time.Now()
	for _, n := range names {
		e.Eventually(harness.Soon, "the record of "+n+" to be written again", func() error {
			return harness.Want(a.count("append", vname(n)), 2)
		})
	}
	// eight are written at a time: after one another it would take 36 s
	t.Logf("all were written within %s", time.Since(began))
}
