package command

import (
	"strings"
	"testing"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/formats"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/operator"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// A record without the policy does not stand for one that was asked for with it, whatever the
// names are; one with the policy serves both.
func TestIsPublished(t *testing.T) {
	const account = "https://ca.example/1"
	value := func(wildcard bool) string {
		return record.Value{IssuerDomainName: "ca.example", AccountURI: account, Wildcard: wildcard}.String()
	}
	for _, test := range []struct {
		published, wanted, want bool
		names                   []string
	}{
		{false, true, false, []string{"a.example"}},
		{false, true, false, []string{"*.a.example", "a.example"}},
		{true, true, true, []string{"a.example"}},
		{true, false, true, []string{"a.example"}},
		{false, false, true, []string{"a.example"}},
	} {
		w := acmepersist.Wanted{Identifiers: test.names, IssuerDomainName: "ca.example", AccountURI: account, Value: value(test.wanted)}
		// in other words, or there would be nothing to evaluate
		if got := isPublished([]string{value(test.published) + "; x=y"}, w); got != test.want {
			t.Errorf("%+v: %v", test, got)
		}
	}
}

// Of a name that shows more values than are handled no format is made that sets a whole RRset.
func TestShortenedSetIsNoProof(t *testing.T) {
	set := operator.RecordSet{
		Name: "_validation-persist.example.com", TTL: 3600, Type: "TXT",
		Wanted: []acmepersist.Wanted{{Value: "ca.example; accounturi=https://ca.example/1", Identifiers: []string{"example.com"}}},
	}
	fill(&set, propagation.Report{
		Name: set.Name, Values: []string{"theirs"}, MoreValues: 7,
		Servers: []propagation.ServerReport{{Name: set.Name, Verdict: propagation.VerdictNo, TTL: 17}},
	}, false, func(acmepersist.Wanted) bool { return false })
	for _, f := range []formats.Format{formats.Route53, formats.Terraform} {
		if err := (&recordsRun{run: new(run)}).writeFormat(f, []operator.RecordSet{set}); err == nil || !strings.Contains(err.Error(), "7 TXT values more than are handled") {
			t.Errorf("%s: %v", f, err)
		}
	}
}

// A resolver's cache does not prove what is published, so no format that sets a whole RRset is made of it.
func TestCachedAnswerIsNoProof(t *testing.T) {
	set := operator.RecordSet{
		Name: "_validation-persist.example.com", TTL: 3600, Type: "TXT",
		Wanted: []acmepersist.Wanted{{Value: "ca.example; accounturi=https://ca.example/1", Identifiers: []string{"example.com"}}},
	}
	fill(&set, propagation.Report{
		Name: set.Name, Mode: propagation.ModeRecursive, Values: []string{"theirs"},
		Servers: []propagation.ServerReport{{Name: set.Name, Verdict: propagation.VerdictNo, TTL: 17}},
	}, false, func(acmepersist.Wanted) bool { return false })
	if set.DNS.Error != "" || set.TTL != 17 {
		t.Errorf("%+v, TTL %d", set.DNS, set.TTL)
	}
	for _, f := range []formats.Format{formats.Route53, formats.Terraform} {
		if err := (&recordsRun{run: new(run)}).writeFormat(f, []operator.RecordSet{set}); err == nil || !strings.Contains(err.Error(), "check is recursive") {
			t.Errorf("%s: %v", f, err)
		}
	}
	var out strings.Builder
	if err := (&recordsRun{run: &run{out: &out}}).writeFormat(formats.NSUpdate, []operator.RecordSet{set}); err != nil || !strings.Contains(out.String(), "update add") {
		t.Errorf("%v: %s", err, out.String())
	}
}
