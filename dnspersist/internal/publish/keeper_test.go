package publish

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// A write that was begun is repeated with the same end, or values that differ in nothing
// else would pile up.
func TestBegunValueIsRepeated(t *testing.T) {
	now := time.Unix(1_000_000_000, 0)
	c := Keeper{Options: &Options{PersistFor: 30 * time.Hour}}.For(Identity{}).change(propagation.Target{})
	value := func(account string, end time.Time, wide bool) string {
		return record.Value{IssuerDomainName: "ca.example", AccountURI: account, PersistUntil: end, Wildcard: wide}.String()
	}
	const account = "https://ca.example/1"
	wanted := value(account, now.Add(30*time.Hour), false)
	fresh := value(account, now.Add(29*time.Hour), false)
	for name, k := range map[string]struct {
		entry Entry
		want  string
	}{
		"begun":           {Entry{Value: fresh}, fresh},
		"seen":            {Entry{Value: fresh, WrittenAt: now}, wanted},
		"ends soon":       {Entry{Value: value(account, now.Add(20*time.Hour), false)}, wanted},
		"another account": {Entry{Value: value("https://ca.example/2", now.Add(29*time.Hour), false)}, wanted},
		"another policy":  {Entry{Value: value(account, now.Add(29*time.Hour), true)}, wanted},
	} {
		if got := c.begun(wanted, []Entry{k.entry}, now); got != k.want {
			t.Errorf("%s: %s", name, got)
		}
	}
	endless := value(account, time.Time{}, false)
	if got := c.begun(endless, []Entry{{Value: fresh}}, now); got != endless {
		t.Errorf("without an end: %s", got)
	}
}

// What is written is noted with whom it is for. A record that was written once is not written again where
// that is wanted.
func TestPut(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "theirs")
	id := Identity{CA: "https://ca.test/directory", Account: "https://ca.test/1", Thumbprint: "thumb"}
	p.keeper = p.keeper.For(id)
	ends := time.Now().Add(time.Hour).Truncate(time.Second).UTC()
	ours := record.Value{IssuerDomainName: "ca.test", AccountURI: id.Account, PersistUntil: ends}.String()
	write := p.write(ours)
	write.Once, write.OnDemand = true, true
	done, err := p.keeper.Put(t.Context(), write)
	if err != nil || done.Value != ours || done.Zone != "example.test" || done.Again || !slices.Equal(done.Restored, []string{"theirs"}) {
		t.Errorf("%+v, %v", done, err)
	}
	e := p.is(ours, "theirs")
	if e == nil || !p.keeper.Owns(*e) || p.keeper.For(Identity{Account: id.Account, Thumbprint: "next"}).Owns(*e) ||
		!p.keeper.For(Identity{Account: id.Account, Thumbprint: "next", Earlier: []string{"thumb"}}).Owns(*e) {
		t.Errorf("it is not known whose it is: %+v", e)
	}
	if e.CA != id.CA || e.Zone != "example.test" || !e.OnDemand || !e.EndsAt.Equal(ends) || e.unfinished() {
		t.Errorf("noted is %+v", e)
	}
	if done, err := p.keeper.Put(t.Context(), write); err != nil || done.Value != "" {
		t.Errorf("once more: %+v, %v", done, err)
	}
	p.set("theirs")
	var before *WrittenBeforeError
	if _, err := p.keeper.Put(t.Context(), write); !errors.As(err, &before) || before.Name != placeName || !before.At.Equal(e.WrittenAt) {
		t.Errorf("a second time: %v", err)
	}
	write.Once, write.OnDemand = false, false
	if done, err := p.keeper.Put(t.Context(), write); err != nil || !done.Again {
		t.Errorf("where it is kept: %+v, %v", done, err)
	}
	if e := p.is(ours, "theirs"); e == nil || e.OnDemand {
		t.Errorf("noted is %+v, which is wanted by a configuration", e)
	}
}

// What cannot be judged is not written, and no error shows a secret.
func TestPutRefuses(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	failed := errors.New("the account is not confirmed")
	if _, err := p.keeper.Put(t.Context(), Write{At: p.at, Value: func([]string) (string, error) { return "ours", failed }}); !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
	p.keeper.Options.AllowShadowing = false
	p.dns.SetRR(0, "*.example.test. 300 IN A 203.0.113.1")
	if err := p.put(); !errors.As(err, new(*ShadowingError)) {
		t.Errorf("below a wildcard that answers for the host: %v", err)
	}
	p.dns.SetMode(1, "refused")
	p.dns.SetMode(2, "refused")
	p.keeper.Options.Secrets = []string{"example.test"}
	if err := p.put(); err == nil || !strings.Contains(err.Error(), "nothing was written") || strings.Contains(err.Error(), "example.test") {
		t.Errorf("while no server answers: %v", err)
	}
	if p.calls != 0 {
		t.Errorf("the provider was called %d times", p.calls)
	}
}

// A place is taken where others have anything but records like ours, until something of ours was written.
func TestTaken(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.at.Host = "example.test"
	taken := func(want string) {
		t.Helper()
		if why, err := p.keeper.Taken(t.Context(), p.at); err != nil || why != want {
			t.Errorf("taken: %q, %v, want %q", why, err, want)
		}
	}
	taken("")
	p.set("ca.test; accounturi=https://ca.test/1")
	taken("")
	p.set("v=spf1 -all")
	taken("others have TXT there, which is not a validation record")
	p.set()
	p.dns.SetRR(0, placeName+". 300 IN MX 10 mx.example.test.")
	taken("others have MX there")
	p.note(Entry{At: time.Now()})
	taken("")
}

// A dry run finds what would be written, and leaves the zone, the storage and the provider alone.
func TestPutInADryRun(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "theirs")
	p.keeper.Options.DryRun, p.keeper.Options.Provider = true, nil
	done, err := p.keeper.Put(t.Context(), p.write("ours"))
	if err != nil || done.Value != "ours" || done.Name != placeName || done.TTL <= 0 {
		t.Errorf("%+v, %v", done, err)
	}
	if e := p.is("theirs"); e != nil || p.calls != 0 {
		t.Errorf("noted is %+v, and the provider was called %d times", e, p.calls)
	}
	p.set("theirs", "ours")
	if done, err := p.keeper.Put(t.Context(), p.write("ours")); err != nil || done.Value != "" {
		t.Errorf("where it is published: %+v, %v", done, err)
	}
	p.keeper.Options.AllowShadowing = false
	p.set()
	p.dns.SetRR(0, "*.example.test. 300 IN A 203.0.113.1")
	if _, err := p.keeper.Put(t.Context(), p.write("ours")); !errors.As(err, new(*ShadowingError)) {
		t.Errorf("below a wildcard that answers for the host: %v", err)
	}
}
