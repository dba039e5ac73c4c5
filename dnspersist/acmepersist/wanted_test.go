package acmepersist_test

import (
	"strings"
	"testing"

	"github.com/caddyserver/certmagic"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
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
