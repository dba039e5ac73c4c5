package ca

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
)

func TestParseRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		header string
		want   time.Duration
		has    bool
	}{
		{"", 0, false},
		{"0", 0, true},
		{"17", 17 * time.Second, true},
		{"-3", 0, true},
		{"Sun, 01 Nov 2026 12:00:30 GMT", 30 * time.Second, true},
		{"Sun, 01 Nov 2026 11:00:30 GMT", 0, true},
		{"soon", 0, false},
		{"99999999999999999999", 0, false},
	} {
		got, has := parseRetryAfter(tc.header, now)
		if got != tc.want || has != tc.has {
			t.Errorf("parseRetryAfter(%q) = %s, %v, want %s, %v", tc.header, got, has, tc.want, tc.has)
		}
	}
}

// A nonce that a conversation leaves over is the first of another one, once, and not after it has become old.
func TestTheLastNonceOfAConversationIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		given := 0
		srv := New(Config{URL: "https://ca/dir", Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
			given++
			return &http.Response{StatusCode: 200, Header: http.Header{"Replay-Nonce": {fmt.Sprint("nonce", given)}}, Body: http.NoBody}, nil
		})})
		directory := &Directory{URL: "https://ca/dir", NewNonce: "https://ca/nonce"}
		send := func(c *Client, method string) string {
			t.Helper()
			req := httptest.NewRequest(method, map[string]string{"HEAD": directory.NewNonce, "POST": "https://ca/order"}[method], nil)
			resp, err := c.wire.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			return resp.Header.Get("Replay-Nonce")
		}
		first := srv.At(directory)
		if send(first, "HEAD") != "nonce1" || send(first, "POST") != "nonce2" {
			t.Fatal("the first conversation has nonces of others")
		}
		first.Close()
		first.Close()
		second, third := srv.At(directory), srv.At(directory)
		if got := send(second, "HEAD"); got != "nonce2" {
			t.Errorf("the second conversation begins with %s", got)
		}
		if got := send(third, "HEAD"); got != "nonce3" {
			t.Errorf("the third conversation begins with %s", got)
		}
		second.Close() // has used what it had
		send(third, "POST")
		third.Close()
		time.Sleep(nonceFresh + time.Second)
		if got := send(srv.At(directory), "HEAD"); got != "nonce5" {
			t.Errorf("a conversation begins with the old %s", got)
		}
	})
}

// Nonces that came before the latest are not taken for as fresh as that.
func TestNoncesAgeOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n nonces
		n.put("old")
		time.Sleep(nonceFresh)
		n.put("young")
		time.Sleep(time.Second)
		if got := []string{n.take(), n.take(), n.take()}; !slices.Equal(got, []string{"young", "", ""}) {
			t.Errorf("taken are %q", got)
		}
		for i := range 2 * noncesKept {
			n.put(fmt.Sprint(i))
		}
		if got := n.take(); got != fmt.Sprint(2*noncesKept-1) || len(n.free) != noncesKept-1 {
			t.Errorf("taken is %s, and %d are kept", got, len(n.free))
		}
	})
}

// FuzzWire feeds the answers of a hostile CA through the transport.
func FuzzWire(f *testing.F) {
	f.Add(`{"challenges":[{"type":"dns-persist-01","url":"https://ca/c","accounturi":"https://ca/a"}]}`, "1")
	f.Add(`{"challenges":[null,1]}`, "Sun, 01 Nov 2026 12:00:30 GMT")
	f.Add(`[]`, "x")
	f.Fuzz(func(t *testing.T, body, retry string) {
		w := &wire{directory: &Directory{URL: "https://ca/dir"}, base: roundTrip(func(*http.Request) (*http.Response, error) {
			return &http.Response{
				StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}, "Retry-After": {retry}},
				Body: io.NopCloser(strings.NewReader(body)),
			}, nil
		})}
		req := httptest.NewRequest(http.MethodPost, "https://ca/authz", nil)
		resp, err := w.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		if err != nil || string(got) != body {
			t.Fatalf("the body came through as %q, %v, want %q", got, err, body)
		}
		if _, wait, _ := w.last(); wait < 0 {
			t.Fatalf("Retry-After %q became %s", retry, wait)
		}
	})
}

// FuzzDirectory reads what a CA may serve as its directory.
func FuzzDirectory(f *testing.F) {
	f.Add([]byte(`{"newNonce":"https://ca/n","newAccount":"https://ca/a","newOrder":"https://ca/o","meta":{"caaIdentities":["ca.example","evil;","\n"]}}`))
	f.Add([]byte(`{"meta":{"caaIdentities":null}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		d, err := parseDirectory("https://ca/dir", body)
		if err != nil {
			return
		}
		for _, n := range append(d.Meta.names(), d.Meta.Identities()...) {
			if strings.ContainsAny(n, "; \t\n\"\\") {
				t.Fatalf("the issuer domain name %q got in", n)
			}
		}
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestWireKeepsChallengeMembers(t *testing.T) {
	w := &wire{directory: &Directory{}}
	w.note([]byte(`{"challenges":[{"type":"dns-01","url":"https://ca/1","accounturi":"no"},
		{"type":"dns-persist-01","url":"https://ca/2","accounturi":"https://ca/acct","issuerDomainNames":["a.example",5]}]}`))
	got := w.challenge("https://ca/2")
	if got.AccountURI != "https://ca/acct" || got.Names == nil || len(*got.Names) != 2 || got.Deployed != nil {
		t.Errorf("the members are %+v", got)
	}
	if got := w.challenge("https://ca/1"); got.AccountURI != "" {
		t.Errorf("another challenge's member was kept: %q", got.AccountURI)
	}
}

// A CA that hangs once must not make the directory of a healthy one wait, nor a
// certificate wait for CertMagic's retry.
func TestDirectoryIsFetchedOnceAndKept(t *testing.T) {
	hits, broken := 0, false
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		hits++
		if broken {
			rw.WriteHeader(http.StatusInternalServerError)
			return
		}
		rw.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(rw, `{"newNonce":"https://ca/n","newAccount":"https://ca/a","newOrder":"https://ca/o"}`)
	}))
	defer srv.Close()
	var c directories
	ctx := context.Background()
	for range 3 {
		if _, err := c.get(ctx, srv.URL, http.DefaultTransport, "test"); err != nil {
			t.Fatal(err)
		}
	}
	if hits != 1 {
		t.Errorf("the directory was fetched %d times, want once", hits)
	}
	c.expire()
	broken = true
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if _, err := c.get(short, srv.URL, http.DefaultTransport, "test"); err != nil {
		t.Errorf("while the CA is down the older copy is not used: %v", err)
	}
}

func TestPreferredChain(t *testing.T) {
	yes := true
	chains := []acme.Certificate{{URL: "a", ChainPEM: []byte("long chain")}, {URL: "b", ChainPEM: []byte("short")}}
	if got := PreferredChain(chains, certmagic.ChainPreference{}); got.URL != "a" {
		t.Errorf("without a preference the chain is %s, want the first", got.URL)
	}
	if got := PreferredChain(chains, certmagic.ChainPreference{Smallest: &yes}); got.URL != "b" {
		t.Errorf("the smallest chain is %s, want b", got.URL)
	}
}

func FuzzParseRetryAfter(f *testing.F) {
	for _, s := range []string{"", "0", "17", "-3", "Sun, 01 Nov 2026 12:00:30 GMT", "99999999999999999999", "1e3", "Sunday, 06-Nov-94 08:49:37 GMT"} {
		f.Add(s, int64(1793534400))
	}
	f.Fuzz(func(t *testing.T, header string, now int64) {
		if wait, has := parseRetryAfter(header, time.Unix(now%1e10, 0)); wait < 0 || !has && wait != 0 {
			t.Fatalf("%q is %s, %v", header, wait, has)
		}
	})
}
