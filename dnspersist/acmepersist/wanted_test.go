package acmepersist_test

import (
	"strings"
	"testing"

	"github.com/caddyserver/certmagic"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/site"
)

// A pinned account_uri is one account's: nothing is told for a standby account then.
func TestStandbyWithPinnedURI(t *testing.T) {
	i := newIssuing(t)
	account, err := i.Account(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	standby := acmepersist.Account{URL: account.URL + "-standby", Thumbprint: "x"}
	told, err := i.Wanted(t.Context(), []string{issuedName}, standby)
	if err != nil || len(told) != 2 || told[1].AccountURI != standby.URL {
		t.Errorf("without a pinned URI: %+v, %v", told, err)
	}
	pinned := acmepersist.New(acmepersist.Config{
		CA: i.ca.Directory(), Storage: &certmagic.FileStorage{Path: i.dir}, Transport: i.ca.HTTPClient().Transport,
		AccountURI: "https://ca.example/pinned",
	})
	if told, err := pinned.Wanted(t.Context(), []string{issuedName}, standby); err == nil || !strings.Contains(err.Error(), "--account-url") {
		t.Errorf("with a pinned URI: %+v, %v", told, err)
	}
	if told, err := pinned.Wanted(t.Context(), []string{issuedName}); err != nil || len(told) != 1 {
		t.Errorf("with a pinned URI and no standby: %+v, %v", told, err)
	}
}

// A record that had to serve a wildcard in an earlier run goes on serving it: it is never narrowed.
func TestRecordIsNeverNarrowed(t *testing.T) {
	t.Parallel()
	i := newIssuing(t)
	policy := func(iss *acmepersist.Issuer, name string) string {
		t.Helper()
		all, err := iss.Wanted(t.Context(), []string{name})
		if err != nil || len(all) != 1 {
			t.Fatalf("%+v, %v", all, err)
		}
		_, policy, _ := strings.Cut(all[0].Value, "; policy=")
		return policy
	}
	if got := policy(i.Issuer, issuedName); got != "" {
		t.Errorf("before any wildcard was wanted the policy is %q", got)
	}
	if err := i.issueFor(t.Context(), "*."+issuedName); err == nil {
		t.Fatal("a record without the policy has served a wildcard")
	}
	if got := policy(i.another(), issuedName); got != "wildcard" {
		t.Errorf("after a wildcard was wanted the policy is %q", got)
	}
	exact := acmepersist.New(acmepersist.Config{
		CA: i.ca.Directory(), Storage: &certmagic.FileStorage{Path: i.dir}, Transport: i.ca.HTTPClient().Transport, Policy: site.PolicyExact,
	})
	if got := policy(exact, issuedName); got != "" {
		t.Errorf("with policy exact it is %q", got)
	}
}
