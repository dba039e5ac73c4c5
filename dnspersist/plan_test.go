package dnspersist

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// openApps opens the apps of a configuration that no server runs.
func openApps(t *testing.T, apps string) *Offline {
	t.Helper()
	dir, err := json.Marshal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	off, err := Open([]byte(`{"storage":{"module":"file_system","root":` + string(dir) + `},"apps":` + apps + `}`))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := off.Close(); err != nil {
			t.Error(err)
		}
	})
	return off
}

// The plan of a configuration that no server runs is that of one that Caddy has loaded.
func TestPlans(t *testing.T) {
	const (
		ours = `"issuers":[{"module":"dns_persist"}]`
		all  = `{"automation":{"policies":[{` + ours + `}]}}`
	)
	site := func(hosts, more string) string {
		return `{"servers":{"a":{"listen":[":8443"],"routes":[{"match":[{"host":[` + hosts + `]}]}]` + more + `}}}`
	}
	for name, test := range map[string]struct {
		tls, http string
		want      []string
	}{
		"names beyond ASCII": {
			`{"certificates":{"automate":["bücher.example"]},"automation":{"policies":[
				{"subjects":["münchen.example","bücher.example","*.straße.example"],` + ours + `}]}}`,
			site(`"münchen.example","a.straße.example","ÖL.example"`, ""),
			[]string{"a.xn--strae-oqa.example", "xn--bcher-kva.example", "xn--mnchen-3ya.example"},
		},
		"names beyond ASCII for all": {all, site(`"München.EXAMPLE","*.München.example","A.münchen.example"`, ""), []string{"*.xn--mnchen-3ya.example", "xn--mnchen-3ya.example"}},
	} {
		t.Run(name, func(t *testing.T) {
			apps := `{"tls":` + test.tls + `,"http":` + test.http + `}`
			if got := openApps(t, apps).Managed(); !slices.Equal(got, test.want) {
				t.Errorf("without a server: %q, want %q", got, test.want)
			}
			a, _ := provisionedApp(t, apps)
			if got := a.operator().Managed(); !slices.Equal(got, test.want) {
				t.Errorf("loaded: %q, want %q", got, test.want)
			}
		})
	}
}

// A name is found however it is written.
func TestNamesBeyondASCII(t *testing.T) {
	off := openApps(t, `{"tls":{"automation":{"policies":[{"subjects":["münchen.example"],"issuers":[{"module":"dns_persist"}]}]}}}`)
	for _, name := range []string{"münchen.example", "MÜNCHEN.example", "xn--mnchen-3ya.example"} {
		if _, _, err := off.names([]string{name}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Names that can never be validated are left out of all, and nothing fails for the others.
func TestHopelessNamesAreLeftOut(t *testing.T) {
	long := strings.Repeat(strings.Repeat("a", 58)+".", 4) + "example"
	apps := `{"tls":{"automation":{"policies":[
		{"subjects":["good.example","*.*.bad.example","` + long + `"],"issuers":[{"module":"dns_persist"}]},
		{"subjects":["*.exact.example","exact.example"],"issuers":[{"module":"dns_persist","policy":"exact"}]}]}},
		"http":{"servers":{"a":{"listen":[":8443"],"routes":[{"match":[{"host":["good.example","*.*.bad.example","` + long + `","*.exact.example","exact.example"]}]}]}}}}`
	off := openApps(t, apps)
	groups, order, err := off.names(nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, iss := range order {
		got = append(got, groups[iss]...)
	}
	slices.Sort(got)
	if want := []string{"exact.example", "good.example"}; !slices.Equal(got, want) {
		t.Errorf("worked on are %q, want %q", got, want)
	}
	if hopeless := off.Hopeless(); len(hopeless) != 3 {
		t.Errorf("left out are %v, want three", hopeless)
	}
	for _, name := range []string{"*.*.bad.example", long} {
		if _, _, err := off.names([]string{"good.example", name}); err == nil {
			t.Errorf("%s was given and is left out without a word", name)
		}
	}
}
