package fair

import "testing"

func TestDomain(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"example.com":                    "example.com",
		"www.example.com":                "example.com",
		"a.b.WWW.Example.com.":           "example.com",
		"_validation-persist.www.a.test": "a.test",
		"shop.example.co.uk":             "example.co.uk",
		"*.example.com":                  "example.com",

		// free of charge, each a domain of its own
		"tenant.github.io":       "tenant.github.io",
		"www.tenant.duckdns.org": "tenant.duckdns.org",
		"duckdns.org":            "duckdns.org",

		// no registered domain
		"nas":           "nas",
		"nas.":          "nas",
		"localhost":     "localhost",
		"home.arpa":     "home.arpa",
		"nas.home.arpa": "nas.home.arpa",
		"com":           "com",
		"":              "",
		".":             "",
		".example.com":  ".example.com",
		"example..com":  "example..com",

		// top-level domains that are on no list
		"nas.lan":                 "nas.lan",
		"www.wiki.corp.internal":  "corp.internal",
		"a.b.c.corp-network":      "c.corp-network",
		"xn--bcher-kva.example":   "xn--bcher-kva.example",
		"a.xn--bcher-kva.example": "xn--bcher-kva.example",
	} {
		if got := Domain(name); got != want {
			t.Errorf("Domain(%q) = %q, want %q", name, got, want)
		}
	}
}
