package dnspersist

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// siteApps are apps with sites for names.
func siteApps(apps string, names ...string) string {
	return strings.TrimSuffix(apps, "}") + `,"http":{"servers":{"a":{"listen":[":8443"],"routes":[{"match":[{"host":["` +
		strings.Join(names, `","`) + `"]}]}]}}}}`
}

// missing is the Hold of a name whose record is missing.
func missing(name, value string) *acmepersist.Hold {
	return &acmepersist.Hold{
		Reason: acmepersist.ReasonAbsent, Domain: name, CA: "https://ca.test/dir", Account: "https://ca.test/1",
		Record: acmepersist.Record{Name: "_validation-persist." + name, Value: value},
		Err:    errors.New("missing"),
	}
}

// watched is missing for a name that is looked for.
func watched(name, value string) *acmepersist.Hold {
	h := missing(name, value)
	h.Watch = &acmepersist.Watch{Report: propagation.Report{Status: propagation.StatusAbsent}}
	return h
}

// announced lists what is announced.
func announced(s *shared) []string {
	s.announcer.mu.Lock()
	defer s.announcer.mu.Unlock()
	var all []string
	for r, w := range s.announcer.wanted {
		all = append(all, r.Value+" for "+strings.Join(w.identifiers, " "))
	}
	slices.Sort(all)
	if len(s.announcer.claims) > len(all) {
		all = append(all, "and claims that are over")
	}
	return all
}

// A record that was announced while another issuer serves the name is no longer once no
// configuration has the name; as long as one has, it is.
func TestAnnouncementsEndWithTheirNames(t *testing.T) {
	var old *App
	for _, test := range []struct{ names, want []string }{
		{[]string{"a.example", "b.example"}, []string{"v for a.example", "w for b.example"}},
		{[]string{"a.example"}, []string{"v for a.example"}},
		{[]string{"a.example", "b.example"}, []string{"v for a.example"}},
		{[]string{"c.example"}, nil},
	} {
		a, k := newParker(t, siteApps(chainApps, test.names...))
		a.shared.started(a)
		if old == nil {
			for name, value := range map[string]string{"a.example": "v", "b.example": "w"} {
				hold := missing(name, value)
				hold.Watch = &acmepersist.Watch{Checker: propagation.NewChecker(propagation.Config{}), Report: propagation.Report{Status: propagation.StatusAbsent}}
				k.Park(t.Context(), hold)
			}
		} else {
			old.end()
			if a.shared.orphan == nil {
				t.Fatal("nothing ends announcements whose configuration has ended")
			}
		}
		old = a
		a.shared.dropOrphans()
		if got := announced(a.shared); !slices.Equal(got, test.want) {
			t.Errorf("with %q: announced are %q, want %q", test.names, got, test.want)
		}
	}
}

// A parked name that a reload has put behind another issuer is announced for that one, and
// otherwise no longer.
func TestAnnouncementOfAnOrphan(t *testing.T) {
	for apps, want := range map[string][]string{chainApps: {"v for a.example"}, aloneApps: nil} {
		old, before := newParker(t, siteApps(aloneApps, "a.example"))
		old.shared.started(old)
		old.shared.announcer.want(watched("a.example", "v"), old, false)
		before.Park(t.Context(), missing("a.example", "v"))
		next, now := newParker(t, siteApps(apps, "a.example"))
		next.shared.started(next)
		if want != nil {
			next.shared.announcer.want(watched("a.example", "v"), now.iss.rt.app, false)
		}
		old.end()
		next.shared.dropOrphans()
		if got := announced(next.shared); !slices.Equal(got, want) {
			t.Errorf("announced are %q, want %q", got, want)
		}
		next.end()
		next.shared.dropOrphans()
		if got := announced(next.shared); len(got) != 0 {
			t.Errorf("announced are %q for nobody", got)
		}
	}
}

// A name whose record changes is announced with the new one only.
func TestAnnouncementOfAChangedRecord(t *testing.T) {
	a, k := newParker(t, siteApps(aloneApps, "a.example"))
	s := a.shared
	s.announcer.want(watched("a.example", "old"), a, false)
	s.announcer.want(watched("a.example", "new"), a, false)
	if got := announced(s); !slices.Equal(got, []string{"new for a.example"}) {
		t.Errorf("announced are %q", got)
	}
	for _, value := range []string{"new", "newer"} {
		k.Park(t.Context(), missing("a.example", value))
	}
	if got := announced(s); len(got) != 0 {
		t.Errorf("announced are %q, although another record is on its way", got)
	}
}
