package record

import (
	"strings"
	"testing"
	"time"
)

// A name is the same however its accents were typed; ß stays another letter than ss.
func TestNormalizeComposes(t *testing.T) {
	for name, want := range map[string]string{
		"m\u00fcller.example":             "xn--mller-kva.example",
		"mu\u0308ller.example":            "xn--mller-kva.example",
		"MU\u0308LLER.example":            "xn--mller-kva.example",
		"*.mu\u0308ller.example.":         "*.xn--mller-kva.example",
		"stra\u00dfe.example":             "xn--strae-oqa.example",
		"strasse.example":                 "strasse.example",
		"\u1112\u1161\u11ab.example":      "xn--6q8b.example",
		"\u00fc\u00d1ICODE-example.com":   "xn--icode-example-hkb8n.com",
		"u\u0308N\u0303ICODE-example.com": "xn--icode-example-hkb8n.com",
		"xn--mller-kva.example":           "xn--mller-kva.example",
		"plain.example":                   "plain.example",
		"\u212bngstrom.example":           "xn--ngstrom-dxa.example",
		"\u00e5ngstrom.example":           "xn--ngstrom-dxa.example",
		strings.Repeat("a", 63) + ".ex":   strings.Repeat("a", 63) + ".ex",
	} {
		if got, err := Normalize(name); err != nil || got != want {
			t.Errorf("Normalize(%+q) = %q, %v, want %q", name, got, err, want)
		}
	}
}

func TestNormalizeIssuerDomainName(t *testing.T) {
	for name, want := range map[string]string{
		"ca.example": "ca.example", "CA.example.": "ca.example", "ca": "ca", "m\u00fcller.example": "xn--mller-kva.example",
		"MU\u0308LLER.example.": "xn--mller-kva.example", "xn--mller-kva.example": "xn--mller-kva.example",
		"": "", ".": "", "a..b": "", "bad;value": "", "x y": "", "a_b.example": "", strings.Repeat("ü", 1000): "",
	} {
		if got, err := NormalizeIssuerDomainName(name); (err == nil) != (want != "") || err == nil && got != want {
			t.Errorf("%+q: %q, %v, want %q", name, got, err, want)
		}
	}
}

// Some CAs fold an issuer's name as browsers fold what is typed into them, others compare octets.
func TestFoldedIssuer(t *testing.T) {
	want := Requirement{IssuerDomainNames: []string{"ca.example", "k"}, AccountURI: "https://ca.example/1"}
	for issuer, outlook := range map[string]Outlook{
		"ca.example":           OutlookGood,
		"k":                    OutlookGood,
		"\ufeffca.example":     OutlookDepends, // a byte order mark
		"ca\u00ad.example":     OutlookDepends, // a soft hyphen
		"\uff43\uff41.example": OutlookDepends, // fullwidth letters
		"ca\u3002example":      OutlookDepends, // an ideographic full stop
		"\u212a":               OutlookDepends, // the Kelvin sign
		"\ufeffCA.example.":    OutlookDepends,
		"other.example":        OutlookBad,
		"\ufeffother.example":  OutlookBad,
		"ca.\u00e9xample":      OutlookBad,
		"ca.example\u00a0x":    OutlookBad,
		strings.Repeat("\ufeff", 2000) + "ca.example": OutlookBad,
	} {
		r := Evaluate([]string{issuer + "; accounturi=https://ca.example/1"}, want, time.Now())
		v := r.Verdicts[0]
		if v.Outlook != outlook || (outlook == OutlookDepends) != strings.Contains(v.Reason(), "a CA need not take it for") {
			t.Errorf("%+q: %s, %q, want %s", issuer, v.Outlook, v.Reason(), outlook)
		}
		if strings.Contains(v.Reason(), "\ufeff") {
			t.Errorf("the reason %+q shows the mark as it is", v.Reason())
		}
		wrong := Evaluate([]string{issuer + "; accounturi=https://ca.example/2"}, want, time.Now()).Verdicts[0]
		if wrong.Outlook != OutlookBad || (outlook != OutlookBad) != (wrong.Code == CodeWrongAccount) {
			t.Errorf("%+q with another account: %s, %s", issuer, wrong.Outlook, wrong.Code)
		}
	}
}
