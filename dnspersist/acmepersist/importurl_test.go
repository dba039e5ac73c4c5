package acmepersist_test

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/caddyserver/certmagic"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
)

// accountsElsewhere is a CA whose accounts are on another host than its directory.
type accountsElsewhere struct{ *http.Transport }

const accountHost = "accounts.ca.test"

func newAccountsElsewhere(t *testing.T, i *issuing) accountsElsewhere {
	t.Helper()
	u, err := url.Parse(i.ca.Directory())
	if err != nil {
		t.Fatal(err)
	}
	transport := i.ca.HTTPClient().Transport.(*http.Transport).Clone()
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, u.Host)
	}
	transport.TLSClientConfig.ServerName = u.Hostname()
	return accountsElsewhere{transport}
}

func (a accountsElsewhere) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := a.Transport.RoundTrip(r)
	if err == nil {
		if u, err := url.Parse(resp.Header.Get("Location")); err == nil && strings.HasPrefix(u.Path, "/my-account/") {
			u.Host = accountHost
			resp.Header.Set("Location", u.String())
		}
	}
	return resp, err
}

// Nothing is signed for the URL in an account file before the CA has named it.
func TestImportAsksTheCAForTheURL(t *testing.T) {
	t.Parallel()
	i := newIssuing(t)
	data, err := i.ExportAccount(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	hits := 0
	other := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		hits++
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"status":"valid"}`))
	}))
	defer other.Close()
	with := func(u string) []byte {
		var m map[string]any
		if err := json.Unmarshal(data, &m); err != nil {
			t.Fatal(err)
		}
		m["url"] = u
		changed, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return changed
	}
	importing := func(transport http.RoundTripper, data []byte) error {
		_, err := acmepersist.New(acmepersist.Config{
			CA: i.ca.Directory(), Storage: &certmagic.FileStorage{Path: t.TempDir()}, Transport: transport,
		}).ImportAccount(t.Context(), data)
		return err
	}
	asks := i.ca.Count("account")
	account, err := i.Account(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for u, want := range map[string]string{
		other.URL + "/config/":            "the CA names the account of this key \"" + account.URL + `"`,
		account.URL + "0":                 "the CA names the account of this key",
		"http://127.0.0.1:1/my-account/1": "not encrypted",
	} {
		err := importing(i.ca.HTTPClient().Transport, with(u))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", u, err, want)
		}
	}
	if hits != 0 || i.ca.Count("account") != asks {
		t.Errorf("the foreign server was asked %d times, the CA for an account %d times more", hits, i.ca.Count("account")-asks)
	}

	at, err := url.Parse(account.URL)
	if err != nil {
		t.Fatal(err)
	}
	at.Host = accountHost
	if err := importing(newAccountsElsewhere(t, i), with(at.String())); err != nil {
		t.Errorf("an account on another host than the directory's: %v", err)
	}
}

// Directories that differ in scheme or query have one folder in storage, but no account in common.
func TestNoAccountOfAnotherDirectory(t *testing.T) {
	t.Parallel()
	i := newIssuing(t)
	for _, ca := range []string{i.ca.Directory() + "?env=b", strings.Replace(i.ca.Directory(), "https:", "http:", 1)} {
		if acmepersist.IssuerKey(ca) != acmepersist.IssuerKey(i.ca.Directory()) {
			t.Fatalf("%s has a folder of its own", ca)
		}
		for _, lost := range []string{acmepersist.OnAccountLostFail, acmepersist.OnAccountLostReplace} {
			iss := acmepersist.New(acmepersist.Config{
				CA: ca, Storage: &certmagic.FileStorage{Path: i.dir}, Transport: i.ca.HTTPClient().Transport, OnAccountLost: lost,
			})
			if account, found, err := iss.KnownAccount(t.Context()); err == nil || !strings.Contains(err.Error(), "account of the directory "+i.ca.Directory()) {
				t.Errorf("%s: %+v, %v, %v", ca, account, found, err)
			}
			if strings.HasPrefix(ca, "http:") {
				continue // the CA does not answer there
			}
			if account, err := iss.Account(t.Context()); err == nil || !strings.Contains(err.Error(), "account of the directory "+i.ca.Directory()) {
				t.Errorf("%s: %+v, %v", ca, account, err)
			}
		}
	}
	if n := len(i.ca.Accounts()); n != 1 {
		t.Errorf("%d accounts were registered, want the first one only", n)
	}
}

// A new-account that names an account in clear is not bound.
func TestAccountURLMustBeEncrypted(t *testing.T) {
	t.Parallel()
	i := newIssuing(t)
	iss := acmepersist.New(acmepersist.Config{
		CA: i.ca.Directory(), Storage: &certmagic.FileStorage{Path: t.TempDir()}, Transport: inClear{i.ca.HTTPClient().Transport},
	})
	if account, err := iss.Account(t.Context()); err == nil || !strings.Contains(err.Error(), "not encrypted") {
		t.Errorf("bound %+v, %v", account, err)
	}
}

// inClear is a CA that says http where it should say https.
type inClear struct{ http.RoundTripper }

func (c inClear) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := c.RoundTripper.RoundTrip(r)
	if err == nil {
		if l := resp.Header.Get("Location"); l != "" {
			resp.Header.Set("Location", strings.Replace(l, "https:", "http:", 1))
		}
	}
	return resp, err
}
