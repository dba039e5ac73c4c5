package commands

import (
	"net/http"
	"os"
	"strings"
	"testing"
	"unicode"

	"github.com/mholt/acmez/v3/acme"

	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// hostile is what a terminal and a log must never be given as it is: an escape sequence, a line
// of its own, a change of direction, a control character of the upper half, a byte order mark.
const hostile = "HOSTILE \x1b[2J\x1b[31m\r\n{\"level\":\"info\"} \u202egpj.exe\u2066\u0085\ufeff"

// clean checks a text that was written for somebody, in which only our own line ends and tabs
// may be.
func clean(t *testing.T, what, text string) {
	t.Helper()
	for _, r := range text {
		if r != '\n' && r != '\t' && unicode.In(r, unicode.C, unicode.Zl, unicode.Zp) {
			t.Errorf("%s shows %+q: %+q", what, r, text)
			return
		}
	}
	if strings.Contains(text, "\n{\"level\":\"info\"} ") {
		t.Errorf("%s has a line that is not ours: %q", what, text)
	}
}

// What a CA, DNS or anybody between says comes escaped out of every command, the log and the
// admin API.
func TestHostileTexts(t *testing.T) {
	e := newEnv(t, harness.Options{})
	long := strings.Repeat(hostile, 200)
	name, refused := e.Name("good"), e.Name("refused")
	e.configure(e.Global() + e.Site(name, e.Block()) + e.Site(refused, e.Block()))
	value := e.Value(e.Bind(), false)
	vname := "_validation-persist." + name
	e.DNS.SetTXT(0, vname, hostile, "\ufeff"+value, value+"; x="+hostile, "pebble.letsencrypt.org; "+hostile+"=1", "\u202epebble.letsencrypt.org; accounturi=x")
	e.DNS.SetTXT(0, "_validation-persist."+refused, value, hostile)
	e.CA.MutateDirectory(func(d map[string]any) {
		meta := d["meta"].(map[string]any)
		meta["termsOfService"] = "https://ca.example/" + hostile
		meta["profiles"] = map[string]any{hostile: hostile, "plain": long}
		meta["caaIdentities"] = []any{"pebble.letsencrypt.org", hostile}
	})
	seen := 0
	run := func(args ...string) {
		t.Helper()
		r := e.caddy(args...)
		what := strings.Join(args[:min(2, len(args))], " ")
		clean(t, what+" (output)", r.out)
		clean(t, what+" (errors)", r.err)
		if strings.Contains(r.out+r.err, "HOSTILE") {
			seen++
		}
		if n := len(r.err); n > 20000 {
			t.Errorf("%s writes %d octets", what, n)
		}
	}
	for _, args := range [][]string{
		{"probe"},
		{"probe", "--format", "json"},
		{"check", name},
		{"check", name, "--format", "json"},
		{"records", name, "--dns", "always"},
		{"records", name, "--dns", "always", "--format", "json"},
		{"records", name, "--dns", "always", "--format", "zone"},
		{"account"},
	} {
		run(append(args, "--config", e.config)...)
	}
	if seen < 4 {
		t.Errorf("only %d commands were given anything hostile", seen)
	}
	// each step of the CA refuses
	for _, fault := range []struct {
		step string
		args []string
	}{
		{"account", []string{"account"}},
		{"directory", []string{"probe"}},
		{"authz", []string{"probe", "--order", refused}},
		{"new-order", []string{"probe", "--order", refused}},
		{"challenge", []string{"check", "--ask", refused}},
		{"key-change", []string{"account", "rollover"}},
	} {
		e.CA.Inject(lab.Fault{Step: fault.step, Status: 403, Type: acme.ProblemTypeNamespace + "unauthorized", Detail: long, Times: 20})
		run(append(fault.args, "--config", e.config)...)
		e.CA.ClearFaults()
	}

	// a running Caddy
	e.CA.Inject(lab.Fault{Step: "new-order", Status: 403, Type: acme.ProblemTypeNamespace + "rejectedIdentifier", Detail: long, Times: 2})
	e.CA.Inject(lab.Fault{Step: "finalize", Status: 403, Type: acme.ProblemTypeNamespace + "badCSR", Detail: long, Times: 2})
	e.Load(e.Global() + e.Site(name, e.Block()) + e.Site(refused, e.Block()))
	e.Eventually(harness.Soon, "an error of the CA in the log", func() error {
		for _, l := range e.Logs("could not get certificate from issuer") {
			if text, _ := l["error"].(string); strings.Contains(text, "HOSTILE") {
				return nil
			}
		}
		return os.ErrNotExist
	})
	for _, args := range [][]string{{"check", name}, {"records", name}, {"probe"}, {"account"}} {
		run(append(args, "--address", e.Admin)...)
	}
	for _, path := range []string{"", "account", "probe", "records", "records/" + name} {
		_, reply := e.call(http.MethodGet, "/dns_persist/"+path, "")
		clean(t, "the admin API at "+path, reply)
	}
	_, reply := e.call(http.MethodPost, "/dns_persist/check", `{"names":["`+name+`","`+refused+`"],"thorough":true}`)
	clean(t, "the admin API's check", reply)
	if !strings.Contains(reply, "HOSTILE") || !strings.Contains(reply, `\u202e`) {
		t.Errorf("the check lacks what DNS says: %s", reply)
	}
	log, err := os.ReadFile(e.LogFile)
	if err != nil {
		t.Fatal(err)
	}
	clean(t, "the log", string(log))
}
