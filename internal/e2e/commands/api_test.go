package commands

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

// call makes one request to the admin endpoint.
func (e *env) call(method, path, body string) (status int, reply string) {
	e.T.Helper()
	req, err := http.NewRequestWithContext(e.T.Context(), method, "http://"+e.Admin+path, strings.NewReader(body))
	if err != nil {
		e.T.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		e.T.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		e.T.Fatal(err)
	}
	e.said.Write(data)
	return resp.StatusCode, string(data)
}

func TestAdminAPI(t *testing.T) {
	e := newEnv(t, harness.Options{Tuning: func(v *tuning.Values) {
		// nothing but a poke looks again soon
		v.MinPoll, v.MaxPoll = time.Minute, time.Hour
	}})
	name, other := e.Name("www"), e.Name("other")
	e.configure(e.Global() + e.Site(name, e.Block()))
	value := e.Value(e.Bind(), false)

	// a Caddy without the issuer
	e.Load("{\n\tadmin " + e.Admin + "\n\tpersist_config off\n\tstorage file_system " + e.Storage + "\n}\n")
	if status, reply := e.call(http.MethodGet, "/dns_persist/records", ""); status != http.StatusNotFound || !strings.Contains(reply, "has no dns_persist issuer") {
		t.Errorf("without an issuer: %d %s", status, reply)
	}

	e.Load(e.Global() + e.Site(name+", "+other, e.Block()))
	e.Asked(name)
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{http.MethodGet, "/dns_persist/", "", 200, `"managed":2,"waiting":2`},
		{http.MethodHead, "/dns_persist/", "", 200, ""},
		{http.MethodHead, "/dns_persist/check", "", 405, ""},
		{http.MethodGet, "/dns_persist/nonsense", "", 404, "records, account, probe and check"},
		{http.MethodPost, "/dns_persist/records", "", 405, "use GET"},
		{http.MethodGet, "/dns_persist/check", "", 405, "use POST"},
		{http.MethodGet, "/dns_persist/records", "", 200, value},
		{http.MethodGet, "/dns_persist/records/" + name, "", 200, "absent"},
		{http.MethodGet, "/dns_persist/records?name=" + name + "&name=" + other, "", 200, "_validation-persist." + other},
		{http.MethodGet, "/dns_persist/records/a..b", "", 400, "empty label"},
		{http.MethodGet, "/dns_persist/records/a.example.net", "", 404, "no dns_persist issuer"},
		{http.MethodGet, "/dns_persist/records?ca=https://other.example/dir", "", 404, "uses the CA"},
		{http.MethodPost, "/dns_persist/check", `{"names":["` + name + `"],"ca":"https://other.example/dir"}`, 404, "uses the CA"},
		{http.MethodGet, "/dns_persist/account", "", 200, `"status":"valid"`},
		{http.MethodGet, "/dns_persist/probe", "", 200, `"offered":`},
		{http.MethodPost, "/dns_persist/check", "{", 400, "reading the request"},
		{http.MethodPost, "/dns_persist/check", `{"provider":{}}`, 400, "reading the request"},
		{http.MethodPost, "/dns_persist/check", `{"names":["` + strings.Repeat(`a","`, 200) + `b"]}`, 400, "at most 200"},
		{http.MethodPost, "/dns_persist/check", `{"names":["` + name + `"],"thorough":true}`, 200, `"state":"missing"`},
	} {
		status, reply := e.call(c.method, c.path, c.body)
		if status != c.status || !strings.Contains(reply, c.want) {
			t.Errorf("%s %s: %d %s, want %d with %s", c.method, c.path, status, reply, c.status, c.want)
		}
	}

	for _, command := range []string{"account", "probe", "records", "check"} {
		r := e.ends(1, command, "--ca", "https://other.example/dir", "--address", e.Admin)
		if !strings.Contains(r.err, "no dns_persist issuer of the configuration uses the CA https://other.example/dir") || !strings.Contains(r.err, e.CA.Directory()) {
			t.Errorf("%s of another CA: %s", command, r.err)
		}
	}

	// a shell completes the names, by the running Caddy and by the configuration, which has one
	for _, c := range []struct{ flag, value, want string }{
		{"--address", e.Admin, min(name, other) + "\n" + max(name, other) + "\n:4\n"}, {"--config", e.config, name + "\n:4\n"},
	} {
		cmd := e.prepare("check", c.flag, c.value, "")
		cmd.Args = slices.Insert(cmd.Args, 1, "__complete")
		if out, err := cmd.Output(); err != nil || string(out) != c.want {
			t.Errorf("completion by %s: %q, %v, want %q", c.flag, out, err, c.want)
		}
	}

	// a poke gets what was published noticed at once
	e.Publish(name, value)
	e.Publish(other, value)
	if status, reply := e.call(http.MethodPost, "/dns_persist/check", ""); status != 200 || !strings.Contains(reply, `"poked":2`) {
		t.Errorf("poke: %d %s", status, reply)
	}
	e.WaitTrusted(name, 20*time.Second)
	e.WaitTrusted(other, 20*time.Second)
	e.AssertClean(2)
}

// --wait ends when the last server has the record.
func TestWait(t *testing.T) {
	e := newEnv(t, harness.Options{})
	name, other := e.Name("www"), e.Name("other")
	e.configure(e.Global() + e.Site(name+", "+other, e.Block()))
	value := e.Value(e.Bind(), false)
	e.Publish(other, value)

	if r := e.ends(2, "check", "--wait", "--timeout", "1s"); !strings.Contains(r.err, name+": missing") {
		t.Errorf("in vain: %s", r.err)
	}
	done := make(chan result)
	go func() { done <- e.with("check", "--wait", "--timeout", "1m", "--format", "json") }()
	e.PublishOn(1, name, value)
	e.Eventually(harness.Soon, "the command to have looked", func() error { return harness.AtLeast(len(e.DNS.Queries()), 20) })
	e.PublishOn(2, name, value)
	r := <-done
	check := decode[dnspersist.CheckReply](t, r.out)
	if r.status != 0 || len(check.Checks) != 2 || check.Checks[1].State != acmepersist.StateGood {
		t.Errorf("status %d: %s\n%s", r.status, r.out, r.err)
	}
	if n := len(e.CA.Orders()); n != 0 {
		t.Errorf("%d orders", n)
	}
}
