package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// An issuer is changed at run time through Caddy's admin API; the name that waits goes
// on under the changed configuration.
func TestPatchOfAnIssuer(t *testing.T) {
	e := harness.New(t, harness.Options{})
	name := e.Name("patch")
	value := e.Value(e.Bind(), false)
	config, err := harness.Adapt(e.Global() + e.Site(name, e.Block()))
	if err != nil {
		t.Fatal(err)
	}
	port, err := lab.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	var tree map[string]any
	if err := json.Unmarshal(config, &tree); err != nil {
		t.Fatal(err)
	}
	admin := fmt.Sprintf("127.0.0.1:%d", port)
	tree["admin"] = map[string]any{"listen": admin, "config": map[string]any{"persist": false}}
	config, err = json.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Stop)
	if err := caddy.Load(config, true); err != nil {
		t.Fatal(err)
	}
	e.Asked(name)

	request := func(method, path, body string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+admin+path, bytes.NewBufferString(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(answer)
	}
	const issuer = "/config/apps/tls/automation/policies/0/issuers/0"
	status, was := request(http.MethodGet, issuer, "")
	if status != http.StatusOK || !strings.Contains(was, `"module":"dns_persist"`) {
		t.Fatalf("GET %s: %d %s", issuer, status, was)
	}
	if status, answer := request(http.MethodPatch, issuer, strings.Replace(was, `"module"`, `"policy":"wildcard","module"`, 1)); status != http.StatusOK {
		t.Fatalf("PATCH: %d %s", status, answer)
	}
	e.Eventually(harness.Soon, "the record with the policy to be asked for", func() error {
		for _, l := range e.Logs("publish this TXT record once") {
			if strings.HasSuffix(fmt.Sprint(l["value"]), "policy=wildcard") {
				return nil
			}
		}
		return fmt.Errorf("no entry")
	})
	if status, answer := request(http.MethodPatch, issuer, strings.Replace(was, `"module"`, `"polcy":"wildcard","module"`, 1)); status == http.StatusOK {
		t.Errorf("a PATCH with an unknown key was accepted: %s", answer)
	}
	e.Publish(name, value)
	e.WaitTrusted(name, harness.Soon)
	e.AssertClean(1)
}

func TestCheckRecursive(t *testing.T) {
	e := harness.New(t, harness.Options{})
	name := e.Name("recursive")
	e.Publish(name, e.Value(e.Bind(), false))
	e.Load(e.Global() + e.Site(name, e.Block("check recursive")))
	e.WaitTrusted(name, harness.Soon)
	e.AssertClean(1)
}

func TestCheckNoneAsksAtOnce(t *testing.T) {
	e := harness.New(t, harness.Options{})
	name := e.Name("none")
	e.Publish(name, e.Value(e.Bind(), false))
	before := len(e.DNS.Queries())
	e.Load(e.Global() + e.Site(name, e.Block("check none")))
	e.WaitTrusted(name, harness.Soon)
	for _, q := range e.DNS.Queries()[before:] {
		if q.Server != 0 {
			// resolvers are asked for CAA, by the CA, and for the record's end once there is a certificate
			t.Errorf("check none asked %s %s of server %d", q.Type, q.Name, q.Server)
		}
	}
	if len(e.Logs("check is none")) == 0 {
		t.Error("check none was not warned of")
	}
	e.AssertClean(1)
}

// Nobody is shown a record before the CA has confirmed the account with a POST-as-GET.
func TestAccountIsCheckedBeforeARecordIsShown(t *testing.T) {
	e := harness.New(t, harness.Options{})
	name := e.Name("checked")
	e.Bind()
	e.Load(e.Global() + e.Site(name, e.Block()))
	e.Asked(name)
	if e.CA.Count("account") == 0 {
		t.Error("the CA was not asked for the account before the record was shown")
	}
	if n := e.CA.Count("challenge"); n != 0 {
		t.Errorf("%d challenges were posted", n)
	}
}

// No recursive server hears of the validation name before the authoritative ones have
// the record: it would cache that there is none.
func TestRecursiveServerIsNotAskedForTheValidationName(t *testing.T) {
	e := harness.New(t, harness.Options{})
	name := e.Name("quiet")
	e.Bind()
	e.Load(e.Global() + e.Site(name, e.Block()))
	e.Asked(name)
	for _, q := range e.DNS.Queries() {
		if q.Server == 0 && strings.Contains(q.Name, "_validation-persist") {
			t.Errorf("the recursive server was asked %s %s", q.Type, q.Name)
		}
	}
}
