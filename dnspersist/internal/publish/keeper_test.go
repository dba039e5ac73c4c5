package publish

import (
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
