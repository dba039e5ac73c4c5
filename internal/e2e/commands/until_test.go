package commands

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
)

// A record for publishing by hand may end. The end is in each format, and one that is published
// without an end does not do for it, for it would outlive it.
func TestRecordsThatEnd(t *testing.T) {
	e := newEnv(t, harness.Options{})
	name := e.Name("www")
	e.configure(e.Global() + e.Site(name, e.Block()))
	account := e.Bind()
	value := e.Value(account, false)
	until := time.Now().Add(100 * 24 * time.Hour).UTC().Truncate(24 * time.Hour)
	ends := fmt.Sprintf("%s; persistUntil=%d", value, until.Unix())

	for _, format := range []string{"table", "json", "zone", "nsupdate", "route53", "octodns", "terraform"} {
		r := e.ok("records", "--until", until.Format(time.DateOnly), "--format", format)
		if !strings.Contains(strings.ReplaceAll(r.out, `\;`, ";"), ends) || !strings.Contains(r.err, "the records end at "+until.Format(time.RFC3339)) {
			t.Errorf("%s: %s\n%s", format, r.out, r.err)
		}
		if strings.Contains(r.err, "warning: that is in less than 60 days") {
			t.Errorf("%s: %s", format, r.err)
		}
	}
	bare := []string{"records", name, "--account-url", account, "--issuer", harness.IssuerName, "--dns", "never"}
	if r := e.ok(append(bare, "--until", until.Format(time.RFC3339), "--value")...); r.out != ends+"\n" {
		t.Errorf("without a configuration: %q, want %q", r.out, ends)
	}
	if r := e.ok(append(bare, "--until", "30d")...); !strings.Contains(r.err, "warning: that is in less than 60 days") {
		t.Errorf("soon: %s", r.err)
	}
	for text, want := range map[string]string{"2020-01-01": "is past (2020-01-01T00:00:00Z)", "-1d": "is past", "someday": "is not a time", "": "is not a time"} {
		if r := e.ends(1, append(bare, "--until="+text)...); !strings.Contains(r.err, want) || r.out != "" {
			t.Errorf("--until %q: %s", text, r.err)
		}
	}

	// the CA goes on by what has no end
	e.Publish(name, value)
	r := e.ok("records", "--until", until.Format(time.DateOnly))
	if !strings.Contains(r.out, "to be published") || !strings.Contains(r.err, "ends later or never: remove it") || !strings.HasSuffix(strings.TrimSpace(r.err), value) {
		t.Errorf("beside one without an end: %s\n%s", r.out, r.err)
	}
	e.Publish(name, ends)
	if r := e.ok("records", "--until", until.Format(time.DateOnly)); strings.Contains(r.out, "to be published") || strings.Contains(r.err, "warning") {
		t.Errorf("published: %s\n%s", r.out, r.err)
	}
	check := decode[dnspersist.CheckReply](t, e.ok("check", "--format", "json").out)
	if check.Checks[0].State != acmepersist.StateGood || !check.Checks[0].EndsAt.Equal(until) {
		t.Errorf("check: %+v", check.Checks[0])
	}
}

// --value prints what is put into a panel or a clipboard, and nothing else.
func TestValueAlone(t *testing.T) {
	e := newEnv(t, harness.Options{})
	name, other := e.Name("www"), e.Name("other")
	e.configure(e.Global() + e.Site(name, e.Block()) + e.Site("*."+other+", "+other, e.Block()))
	account := e.Bind()
	if r := e.ok("records", name, "--value"); r.out != e.Value(account, false)+"\n" {
		t.Errorf("one: %q\n%s", r.out, r.err)
	}
	for _, q := range e.DNS.Queries() {
		if strings.HasPrefix(q.Name, "_validation-persist.") {
			t.Errorf("DNS was asked for %s", q.Name)
		}
	}
	r := e.ok("records", "--value")
	if r.out != e.Value(account, true)+"\n"+e.Value(account, false)+"\n" || !strings.Contains(r.err, "these are 2 values") {
		t.Errorf("two: %q\n%s", r.out, r.err)
	}
	if r := e.ends(1, "records", "--value", "--format", "json"); !strings.Contains(r.err, "format") {
		t.Errorf("with a format: %s", r.err)
	}
	delegated := []string{"records", name, "--account-url", account, "--issuer", harness.IssuerName, "--delegate-to", "certs.example.net", "--value"}
	if r := e.ends(1, delegated...); !strings.Contains(r.err, "--only CNAME") || r.out != "" {
		t.Errorf("delegated: %q\n%s", r.out, r.err)
	}
	if r := e.ok(append(delegated, "--only", "CNAME")...); !strings.HasSuffix(r.out, ".certs.example.net.\n") || strings.Contains(r.out, " ") {
		t.Errorf("delegated, the CNAME: %q", r.out)
	}
}
