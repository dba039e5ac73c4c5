package commands

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

// statusEnv is an environment in which each name is at another place on its way.
type statusEnv struct {
	*env
	sites string
	// want is phase and reason, by name.
	want map[string]string
}

func newStatusEnv(t *testing.T) *statusEnv {
	t.Helper()
	e := &statusEnv{env: newEnv(t, harness.Options{Tuning: func(v *tuning.Values) { v.InlineProcessing = time.Second }}), want: make(map[string]string)}
	port, err := lab.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	value := e.Value(e.Bind(), false)
	slow, forgetful, strict := e.NewCA(harness.Options{}), e.NewCA(harness.Options{}), e.NewCA(harness.Options{})
	e.sites = e.Global()
	site := func(label, block, want string) string {
		name := e.Name(label)
		e.sites += e.Site(name, block)
		e.want[name] = want
		return name
	}
	e.Publish(site("served", e.Block(), "served "), value)
	site("absent", e.Block(), "waiting record_absent")
	e.Publish(site("wrong", e.Block(), "waiting record_wrong"), strings.Replace(value, "accounturi=", "accounturi=x", 1))
	slow.SetValidationDelay(time.Hour)
	e.Publish(site("slow", e.BlockFor(slow), "processing ca_processing"), e.ValueFor(slow, e.BindFor(slow), false))
	strict.FailValidations(&lab.ErrSecondary)
	e.Publish(site("refused", e.BlockFor(strict), "held rejected"), e.ValueFor(strict, e.BindFor(strict), false))
	e.BindFor(forgetful)
	forgetful.Forget()
	site("lost", e.BlockFor(forgetful), "held account")
	site("down", strings.Replace(e.Block(), e.CA.Directory(), fmt.Sprintf("https://127.0.0.1:%d/dir", port), 1), "held ca_down")
	e.configure(e.sites)
	return e
}

// names waits until each name is where it should be, and returns where that is.
func (e *statusEnv) names() (reply dnspersist.NamesReply) {
	e.T.Helper()
	e.Eventually(2*harness.Soon, "each name to be where it should be", func() error {
		status, text := e.call(http.MethodGet, "/dns_persist/names", "")
		if status != http.StatusOK {
			return fmt.Errorf("status %d: %s", status, text)
		}
		reply = decode[dnspersist.NamesReply](e.T, text)
		for _, n := range reply.Names {
			if got := string(n.Phase) + " " + string(n.Reason); got != e.want[n.Domain] {
				return fmt.Errorf("%s is %s, want %s: %s", n.Domain, got, e.want[n.Domain], n.Why)
			}
		}
		return harness.Want(len(reply.Names), len(e.want))
	})
	return reply
}

// spend has storage remember so many attempts for a name that the CA is not asked again.
func (e *statusEnv) spend(name string) {
	e.T.Helper()
	files, err := filepath.Glob(filepath.Join(e.Storage, "dns_persist", "*", "names", "*"+name+".json"))
	if err != nil || len(files) != 1 {
		e.T.Fatalf("the name is in %q, %v", files, err)
	}
	data, err := os.ReadFile(files[0])
	if err != nil {
		e.T.Fatal(err)
	}
	known := decode[map[string]any](e.T, string(data))
	known["attempts"] = slices.Repeat([]time.Time{time.Now()}, 4)
	if data, err = json.Marshal(known); err == nil {
		err = os.WriteFile(files[0], data, 0o600)
	}
	if err != nil {
		e.T.Fatal(err)
	}
}

// Whoever asks where names are has the same answer from the API and the command: why a name has no certificate, what
// to do, and what comes next.
func TestStatus(t *testing.T) {
	e := newStatusEnv(t)
	e.Load(e.sites)
	reply := e.names()
	severities := make([]string, 0, len(reply.Names))
	for _, n := range reply.Names {
		severities = append(severities, n.Severity)
		if n.IsOK() {
			if n.CertificateUntil.Before(time.Now()) {
				t.Errorf("%s is served until %s", n.Domain, n.CertificateUntil)
			}
			continue
		}
		if n.Why == "" || n.Next == "" || !n.NextAt.After(time.Now()) || n.Since.IsZero() || !n.CertificateUntil.IsZero() || n.CA == "" {
			t.Errorf("of %s is told %+v", n.Domain, n)
		}
		if n.Do == "" && n.Severity != "info" {
			t.Errorf("what to do about %s is not told", n.Domain)
		}
	}
	order := []string{"error", "warning", "info", "ok"}
	if !slices.IsSortedFunc(severities, func(a, b string) int { return slices.Index(order, a) - slices.Index(order, b) }) {
		t.Errorf("the severities are %v", severities)
	}

	// the command has the same, and the whole of one name; between the two a name may have been tried again
	e.Eventually(harness.Soon, "the same from the command as from the API", func() error {
		reply = e.names()
		r := e.ends(2, "status", "--format", "json", "--address", e.Admin)
		for i, n := range decode[dnspersist.NamesReply](t, r.out).Names {
			// what was looked at meanwhile is newer
			was := reply.Names[i]
			if n.Reason == "ca_processing" { // its order is looked at every few seconds
				n.Phase, n.Why, n.NextAt = was.Phase, was.Why, was.NextAt
			}
			if n.Domain != was.Domain || n.Phase != was.Phase || n.Code != was.Code || n.Why != was.Why || n.Do != was.Do || !n.Since.Equal(was.Since) || !n.NextAt.Equal(was.NextAt) {
				return fmt.Errorf("the command has\n%+v, and the API\n%+v", n, was)
			}
		}
		return nil
	})
	for label, parts := range map[string][]string{
		"served":  {"served, certificate until "},
		"absent":  {"waiting for ", ", record_absent, ", "no certificate", "record  TXT _validation-persist.", "do      publish"},
		"wrong":   {"waiting for ", ", wrong_account, ", "found   "},
		"slow":    {", ca_processing", "has been validating"},
		"refused": {"held for ", ", rejected, ", "secondary", "in "},
		"lost":    {"held for ", ", account, ", "do      restore the account"},
		"down":    {"held for ", ", ca_down, ", "connection refused"},
	} {
		status := 2
		if label == "served" {
			status = 0
		}
		e.Eventually(harness.Soon, "the status of "+label, func() error {
			if r := e.ends(status, "status", e.Name(label), "--address", e.Admin); !has(r.out, parts...) || strings.Contains(r.out, "on demand") {
				return errors.New(r.out)
			}
			return nil
		})
	}
	if r := e.ends(2, "status", "--address", e.Admin); !has(r.out, "7 names: 2 waiting, 3 held, 1 ", "1 served", e.Name("lost")) || strings.Contains(r.out, e.Name("served")) {
		t.Errorf("status of all:\n%s", r.out)
	}
	if r := e.ends(0, "status", "--phase", "served", "--address", e.Admin); !has(r.out, e.Name("served")+": served") || strings.Contains(r.out, e.Name("lost")) {
		t.Errorf("status of those that are served:\n%s", r.out)
	}
	if r := e.ends(1, "status", "elsewhere.example.net", "--address", e.Admin); !has(r.err, "no dns_persist issuer") {
		t.Errorf("status of a name of somebody else: %s", r.err)
	}

	// an account is lost, and those of the other CAs are not
	if status, text := e.call(http.MethodGet, "/dns_persist/health", ""); status != http.StatusOK || !has(text, `"state":"degraded"`, `"code":"account"`, e.Name("lost")) {
		t.Errorf("the health is %d %s", status, text)
	}
	if status, _ := e.call(http.MethodGet, "/dns_persist/health?strict", ""); status != http.StatusServiceUnavailable {
		t.Errorf("for a monitor it is %d", status)
	}

	// a name that was refused too often is not asked about again, and why is known after a restart too
	e.Stop()
	e.spend(e.Name("refused"))
	e.want[e.Name("refused")] = "held budget"
	r := e.ends(2, "status", e.Name("refused"))
	if !has(r.out, "held for ", ", budget, ", "secondary") || !has(r.err, "this is what the storage has") {
		t.Errorf("while no Caddy runs: %s%s", r.out, r.err)
	}
	if r := e.ends(0, "status", e.Name("served")); !has(r.out, "served, certificate until ") {
		t.Errorf("while no Caddy runs: %s", r.out)
	}
	e.Load(e.sites)
	for _, n := range e.names().Names {
		if n.Reason == "budget" && (n.Answer == nil || !strings.Contains(n.Why, n.Answer.Text)) {
			t.Errorf("after a restart it is %+v", n)
		}
	}
	// a good record is not all, and whoever looks at it has to know
	refused := e.Name("refused")
	if r := e.ends(2, "check", refused, "--address", e.Admin); !has(r.out, ": good", "held    "+refused+": held for ", ", budget, ", "secondary", "next    ") {
		t.Errorf("check of a name that is held:\n%s", r.out)
	}
	if r := e.ends(2, "check", refused, "--wait", "--timeout", "2s", "--address", e.Admin); !has(r.err, refused+": held, budget") {
		t.Errorf("waiting for a name that is held ends with:\n%s", r.err)
	}
	if r := e.ends(2, "status", refused, "--phase", "served", "--address", e.Admin); !has(r.err, "none of the names is in the phases served") {
		t.Errorf("a name that is not in the phase: %s", r.err)
	}
	if r := e.ends(0, "records", refused, "--address", e.Admin); !has(r.out, "published; held: ") {
		t.Errorf("the record of a name that is held:\n%s", r.out)
	}
}

// A name that was refused too often is asked about by a command, and the Caddy that runs learns that the CA has accepted it.
func TestAskEndsTheWait(t *testing.T) {
	e := &statusEnv{env: newEnv(t, harness.Options{}), want: make(map[string]string)}
	name := e.Name("refused")
	e.sites = e.Global() + e.Site(name, e.Block())
	e.configure(e.sites)
	e.Publish(name, e.Value(e.Bind(), false))
	e.CA.FailValidations(&lab.ErrSecondary)
	e.want[name] = "held rejected"
	e.Load(e.sites)
	e.names()
	e.Stop()
	e.spend(name)
	e.want[name] = "held budget"
	e.Load(e.sites)
	e.names()
	e.CA.FailValidations(nil)
	e.dir = filepath.Dir(e.config)
	if r := e.caddy("check", "--ask", name); r.status != 0 || !has(r.out, "the CA has accepted the record") {
		t.Fatalf("status %d: %s%s", r.status, r.out, r.err)
	}
	e.WaitTrusted(name, harness.Soon)
}
