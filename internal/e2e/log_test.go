package e2e

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
)

// lines counts what the log has of Caddy's certificates by level, and how often each was reported to have failed.
func lines(e *harness.Env) (levels, messages map[string]int, failed int) {
	levels, messages = make(map[string]int), make(map[string]int)
	for _, l := range e.Logs("") {
		level, logger := fmt.Sprint(l["level"]), fmt.Sprint(l["logger"])
		switch {
		case logger == "events" && l["name"] == "cert_failed" && l["msg"] == "event":
			failed++
		case level == "debug", logger != "dns_persist" && logger != "tls.obtain" && logger != "tls.renew" && logger != "tls.on_demand" && logger != "tls" && logger != "events":
			continue
		}
		if level != "debug" {
			levels[level]++
			messages[level+" "+fmt.Sprint(l["msg"])]++
		}
	}
	return levels, messages, failed
}

// A domain that waits is announced and no failure: nothing of it is an error, nobody is told that its
// certificate has failed, and a hundred reloads add nothing.
func TestLogOfAWaitOverReloads(t *testing.T) {
	e := harness.New(t, harness.Options{})
	served, waits := e.Name("served"), e.Name("waits")
	e.Publish(served, e.Value(e.Bind(), false))
	config := e.Global() + e.Site(served, e.Block()) + e.Site(waits, e.Block())
	e.Load(config)
	e.WaitTrusted(served, harness.Soon)
	e.Asked(waits)
	levels, messages, failed := lines(e)
	if levels["error"] != 0 || levels["warn"] != 1 || failed != 0 {
		t.Errorf("after the start: %d cert_failed, %v", failed, messages)
	}
	for range 100 {
		e.Load(config)
	}
	// the attempt of the last configuration for what waits has come and gone
	e.Eventually(harness.Soon, "the end of all attempts", func() error {
		return harness.Want(len(e.Logs("releasing lock")), len(e.Logs("lock acquired")))
	})
	after, messages, failed := lines(e)
	if after["error"] != 0 || after["warn"] != levels["warn"] || failed != 0 {
		t.Errorf("after 100 reloads: %d cert_failed, %v", failed, messages)
	}
	if more := after["info"] - levels["info"]; more > 0 {
		t.Errorf("100 reloads have added %d entries: %v", more, messages)
	}
}

// A visit to a tenant that waits costs no entry, and which tenants wait is a number.
func TestLogOfVisits(t *testing.T) {
	e := harness.New(t, harness.Options{})
	e.Bind()
	const tenants = 5
	permission := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer permission.Close()
	e.Load(e.Global("on_demand_tls {\n\t\task "+permission.URL+"\n\t}") +
		"https:// {\n\ttls {\n\t\ton_demand\n\t\tissuer dns_persist " + e.Block() + "\n\t}\n\trespond \"hi\"\n}\n")
	visit := func(i int) {
		conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", e.HTTPSPort), &tls.Config{ServerName: e.Name(fmt.Sprint("tenant", i)), MinVersion: tls.VersionTLS12})
		if err == nil {
			_ = conn.Close()
		}
	}
	for i := range tenants {
		visit(i)
	}
	e.Eventually(harness.Soon, "the number of those that wait", func() error {
		return harness.AtLeast(len(e.Logs("names that were asked for on demand wait")), 1)
	})
	levels, messages, failed := lines(e)
	if levels["error"]+levels["warn"] != 0 || failed != 0 {
		t.Errorf("after the first visits: %d cert_failed, %v", failed, messages)
	}
	for range 20 {
		for i := range tenants {
			visit(i)
		}
	}
	if after, messages, failed := lines(e); after["error"]+after["warn"]+after["info"] > levels["info"]+1 || failed != 0 { // the number may be corrected once
		t.Errorf("100 visits have made of %v %v: %d cert_failed, %v", levels, after, failed, messages)
	}
}
