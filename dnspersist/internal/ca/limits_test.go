package ca

import (
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
)

// Texts of CAs as they were seen, or are in Boulder's source.
func TestLimitedDomain(t *testing.T) {
	const issued = `too many certificates (50) already issued for "example.com" in the last 168h0m0s, retry after 2026-11-28 22:00:00 UTC: see https://letsencrypt.org/docs/rate-limits/`
	for _, tc := range []struct{ name, text, want string }{
		{"www.example.com", issued, "example.com"},
		{"*.www.example.com", issued, "example.com"},
		{"a.b.example.com", issued, "example.com"},
		{"example.com", issued, ""},
		{"www.other.com", issued, ""},
		{"www.example.co.uk", `too many certificates already issued for "co.uk"`, ""},
		{"www.example.com", `too many failed authorizations (5) for "www.example.com" in the last 1h0m0s`, ""},
		{"www.example.com", `certificates for EXAMPLE.COM.`, "example.com"},
		{"www.example.com", `too many certificates for "notexample.com" or "example.com.test"`, ""},
		{"www.example.com", `see https://example.com/limits`, ""},
		{"www.example.com", "too many new orders (300) from this account in the last 3h0m0s", ""},
		{"localhost", "too many for localhost", ""},
	} {
		if got := limitedDomain(tc.name, tc.text); got != tc.want {
			t.Errorf("%s: %q is limited, want %q: %s", tc.name, got, tc.want, tc.text)
		}
	}
}

func TestPageOf(t *testing.T) {
	const paused = "Your account is temporarily prevented from requesting certificates for a.test and possibly others. Please visit: https://ca.test/unpause?jwt=a.b_c"
	for _, tc := range []struct {
		problem acme.Problem
		want    string
	}{
		{acme.Problem{Type: acme.ProblemTypeNamespace + "rateLimited", Detail: paused}, "https://ca.test/unpause?jwt=a.b_c"},
		{acme.Problem{Type: acme.ProblemTypeNamespace + "userActionRequired", Instance: "https://ca.test/terms"}, "https://ca.test/terms"},
		{acme.Problem{Detail: "too many, see https://ca.test/limits"}, ""},
		{acme.Problem{Detail: "please visit us"}, ""},
		{acme.Problem{Detail: "please visit javascript:alert(1)"}, ""},
	} {
		if got := pageOf(tc.problem); got != tc.want {
			t.Errorf("page %q of %+v, want %q", got, tc.problem, tc.want)
		}
	}
}

const limitedAccount = "https://ca.test/account/1"

// limitedClient is a conversation with a CA that has just answered 429 without a time.
func limitedClient(t *testing.T) *Client {
	const url = "https://ca.test/dir"
	c := New(Config{URL: url, Store: state.New(&certmagic.FileStorage{Path: t.TempDir()}, url), Logger: zap.NewNop()}).At(&Directory{})
	c.wire.status = 429
	return c
}

// A CA that gives no time is asked less and less often.
func TestLimitWithoutTimeGrows(t *testing.T) {
	c := limitedClient(t)
	problem := acme.Problem{Type: acme.ProblemTypeNamespace + "rateLimited", Status: 429, Detail: "slow down"}
	var waits []time.Duration
	for range 6 {
		limited := c.RateLimit(problem, 0)
		_ = c.NoteLimit(t.Context(), limitedAccount, "www.example.com", limited)
		waits = append(waits, time.Until(limited.RetryAt).Round(time.Minute))
	}
	want := []time.Duration{time.Minute, 4 * time.Minute, 16 * time.Minute, 64 * time.Minute, 256 * time.Minute, 6 * time.Hour}
	for i := range want {
		if waits[i] != want[i] {
			t.Fatalf("it waits %v, want %v", waits, want)
		}
	}
	c.ForgetLimit(t.Context(), "www.example.com")
	if err := c.CheckLimits(t.Context(), limitedAccount, "www.example.com"); err != nil {
		t.Errorf("after an order that was taken: %v", err)
	}
}

// A limit of another account, one that lies further ahead than limits can, and one that cannot
// be read hold nothing up.
func TestLimitsThatDoNotHold(t *testing.T) {
	now := time.Now().UTC()
	for what, kept := range map[string]any{
		"another account": limit{Account: "https://ca.test/account/2", At: now, Until: now.Add(time.Hour)},
		"a clock ahead":   limit{Account: "https://ca.test/account/1", At: now.AddDate(1, 0, 0), Until: now.AddDate(1, 0, 1)},
		"too far ahead":   limit{Account: "https://ca.test/account/1", At: now, Until: now.AddDate(1, 0, 0)},
		"over":            limit{Account: "https://ca.test/account/1", At: now.Add(-time.Hour), Until: now.Add(-time.Minute)},
		"damaged":         "x",
	} {
		c := limitedClient(t)
		key, _ := c.limitKeys("www.example.com")
		if err := c.server.Store.Save(t.Context(), key, kept); err != nil {
			t.Fatal(err)
		}
		if err := c.CheckLimits(t.Context(), limitedAccount, "www.example.com"); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}
