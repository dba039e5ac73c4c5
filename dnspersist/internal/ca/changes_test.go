package ca

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
)

// A change is logged once, by whichever node sees it first, and the time of it stays.
func TestChangeIsLoggedOnce(t *testing.T) {
	const url, account = "https://ca.example/dir", "https://ca.example/acct/1"
	core, logs := observer.New(zap.WarnLevel)
	storage := &certmagic.FileStorage{Path: t.TempDir()}
	nodes := make([]*Server, 2)
	for i := range nodes {
		nodes[i] = New(Config{URL: url, Store: state.New(storage, url), Logger: zap.New(core)})
	}
	at := func(node int, meta string) *Client {
		d := &Directory{URL: url}
		if err := json.Unmarshal([]byte(meta), &d.Meta); err != nil {
			t.Fatal(err)
		}
		return nodes[node].At(d)
	}
	compare := func(node int, meta, named string, want int) time.Time {
		t.Helper()
		c := at(node, meta)
		before := logs.Len()
		changes, err := c.CompareDirectory(t.Context(), account, named)
		if err != nil || (len(changes) > 0) != (logs.Len() > before) {
			t.Fatalf("the changes are %q: %v", changes, err)
		}
		if logs.Len() != want {
			t.Fatalf("the log is %v, want %d entries", logs.All(), want)
		}
		o, err := nodes[node].ReloadOffer(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return o.ChangedAt()
	}
	const deployed, hashed = `{"caaIdentities":["ca.example"]}`, `{"accountHashPrefix":"https://ca.example/h/","issuerDomainNames":["ca.example"]}`
	for node := range nodes {
		if changed := compare(node, deployed, account, 0); !changed.IsZero() {
			t.Fatalf("it changed at %s", changed)
		}
	}
	first := compare(0, hashed, "", 1)
	if first.IsZero() {
		t.Fatal("the time of the change is not noted")
	}
	for _, named := range []string{"", account} {
		for node := range nodes {
			// an older front end of the CA shows no change back
			for _, meta := range []string{hashed, deployed} {
				if again := compare(node, meta, named, 1); !again.Equal(first) {
					t.Fatalf("it changed at %s, want %s", again, first)
				}
			}
		}
	}
	if renamed := compare(1, hashed, "https://acme.ca.example/acct/1", 2); !renamed.After(first) {
		t.Errorf("the account has another URL since %s", renamed)
	}
}

// With the deployed dialect as the last that a challenge has shown, a directory that is read for the first
// time and shows the other one is a change.
func TestChangeBeforeTheFirstComparison(t *testing.T) {
	const url = "https://ca.example/dir"
	core, logs := observer.New(zap.WarnLevel)
	server := New(Config{URL: url, Store: state.New(&certmagic.FileStorage{Path: t.TempDir()}, url), Logger: zap.New(core)})
	if err := server.updateOffer(t.Context(), func(o *Offer) bool { o.Dialect = "account_url"; return true }); err != nil {
		t.Fatal(err)
	}
	d := &Directory{URL: url}
	if err := json.Unmarshal([]byte(`{"accountHashPrefix":"https://ca.example/h/","issuerDomainNames":["ca.example"]}`), &d.Meta); err != nil {
		t.Fatal(err)
	}
	if changes, err := server.At(d).CompareDirectory(t.Context(), "", ""); err != nil || logs.Len() != 1 || len(changes) == 0 {
		t.Errorf("%v, the changes are %q, the log is %v", err, changes, logs.All())
	}
}
