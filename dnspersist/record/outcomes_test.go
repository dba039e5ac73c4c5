package record

import (
	"strings"
	"testing"
	"time"
)

// TestErrorTypes checks which error a CA reports of several values.
func TestErrorTypes(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	const (
		good      = "authority.example; accounturi=" + vectorURI
		malformed = good + ";"
		wrong     = "authority.example; accounturi=" + vectorPrefix + "sha-256/" + vectorThumbprint
		foreign   = "other.example; accounturi=x:y;"
		spelled   = "Authority.Example; accounturi=" + vectorURI
	)
	for _, tt := range []struct {
		txts    []string
		outlook Outlook
		types   string
	}{
		{nil, OutlookBad, "unauthorized"},
		{[]string{foreign}, OutlookBad, "unauthorized"},
		{[]string{wrong}, OutlookBad, "unauthorized"},
		{[]string{wrong, malformed}, OutlookBad, "malformed"},
		{[]string{malformed, foreign}, OutlookBad, "malformed"},
		{[]string{malformed, good}, OutlookGood, ""},
		{[]string{spelled}, OutlookDepends, "unauthorized"},
		{[]string{spelled + ";"}, OutlookBad, "malformed unauthorized"},
		{[]string{wrong, spelled}, OutlookDepends, "unauthorized"},
		{[]string{malformed, spelled}, OutlookDepends, "malformed"},
		{[]string{"authority.example; accounturi=" + vectorURL, wrong}, OutlookDepends, "malformed unauthorized"},
	} {
		r := Evaluate(tt.txts, hashedWant(), now)
		if got := strings.Join(r.ErrorTypes(), " "); r.Outlook() != tt.outlook || got != tt.types {
			t.Errorf("%q: %s, error types %q; want %s, %q", tt.txts, r.Outlook(), got, tt.outlook, tt.types)
		}
	}
}

// TestSplitValue checks that a value published as two records is recognized.
func TestSplitValue(t *testing.T) {
	value := "authority.example; accounturi=" + vectorURI + "; policy=wildcard"
	want := hashedWant()
	want.Wildcard = true
	for _, cut := range []int{18, 19, 40, 60, len(value) - 4} {
		for _, txts := range [][]string{{value[:cut], value[cut:]}, {"v=spf1 -all", value[cut:], value[:cut]}} {
			if got := Evaluate(txts, want, time.Unix(1_800_000_000, 0)).Explain(); got != reasonSplit {
				t.Errorf("cut at %d: %q", cut, got)
			}
		}
	}
	if got := Evaluate([]string{value[:40], "v=spf1 -all"}, want, time.Unix(0, 0)).Explain(); got == reasonSplit {
		t.Error("half a value counts as split in two")
	}
}

// TestReserve checks that a value that ends too soon is not relied on.
func TestReserve(t *testing.T) {
	want := hashedWant()
	want.Reserve = time.Minute
	txt := "authority.example; accounturi=" + vectorURI + "; persistUntil=1800000000"
	if r := Evaluate([]string{txt}, want, time.Unix(1_799_999_940, 0)); !r.Good() {
		t.Errorf("a minute before: %s", r.Explain())
	}
	if r := Evaluate([]string{txt}, want, time.Unix(1_799_999_941, 0)); r.Outlook() != OutlookBad || !strings.Contains(r.Explain(), "too near") {
		t.Errorf("less than a minute before: %s, %s", r.Outlook(), r.Explain())
	}
}

func TestServesAnyDomain(t *testing.T) {
	want := hashedWant()
	if !want.ServesAnyDomain(Value{AccountURI: vectorAny}) || want.ServesAnyDomain(Value{AccountURI: vectorURI}) {
		t.Error("the two scopes are not distinguished")
	}
}

// BenchmarkEvaluateHashed judges ten values of the CA's own issuer, nine of them of other
// accounts. The goal is less than 5 µs.
func BenchmarkEvaluateHashed(b *testing.B) {
	var txts []string
	for i := range 9 {
		txts = append(txts, "authority.example; accounturi="+vectorPrefix+"sha-256/"+digest("example.com", vectorThumbprint, vectorURL+string(rune('0'+i)))+"; policy=wildcard")
	}
	txts = append(txts, "authority.example; accounturi="+vectorURI+"; policy=wildcard; persistUntil=1900000000")
	want, now := hashedWant(), time.Unix(1_800_000_000, 0)
	want.EarlierThumbprints = nil
	b.ReportAllocs()
	for b.Loop() {
		if !Evaluate(txts, want, now).Good() {
			b.Fatal("not good")
		}
	}
}

func BenchmarkHashedAccountURI(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := HashedAccountURI(vectorPrefix, "example.com", vectorThumbprint, vectorURL); err != nil {
			b.Fatal(err)
		}
	}
}
