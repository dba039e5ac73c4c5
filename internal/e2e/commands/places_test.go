package commands

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/caddyserver/caddy/v2/modules/caddyevents/eventsconfig"
	_ "github.com/caddyserver/caddy/v2/modules/metrics"
	"github.com/caddyserver/certmagic"

	"github.com/dnspersist/caddy-dnspersist/dnspersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

// trouble is a domain with what is wrong with it.
type trouble struct {
	label string
	block string // of its issuer
	// value is what is published, at where; nil is the validation name.
	value string
	at    func(domain string) string
	// what the five places have to say
	phase, reason, code string
	why, do             string // parts of the texts
	event               string // the last one about it; empty if there is none

	domain string
	// isServed is true where the record vanishes once there is a certificate.
	isServed bool
}

// receiver is where a webhook sends events.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	events []receivedEvent
}

type receivedEvent struct {
	Event string         `json:"event"`
	Data  map[string]any `json:"data"`
}

func newReceiver(t *testing.T) *receiver {
	r := new(receiver)
	r.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		var e receivedEvent
		if err := json.Unmarshal(body, &e); err != nil {
			t.Errorf("an event is %s: %v", body, err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.events = append(r.events, e)
	}))
	t.Cleanup(r.Close)
	return r
}

// last is the last event about a domain, or about the account of a CA.
func (r *receiver) last(domain, ca string) (last receivedEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		domains, _ := e.Data["domains"].([]any)
		if slices.Contains(domains, any(domain)) || e.Data["domains"] == nil && e.Data["ca"] == ca {
			last = e
		}
	}
	return last
}

// Whatever is wrong with a domain, the log, the command status, the admin API, the metrics and the events
// say the same: wrong records wherever people put them, a CA that is down or slow, a lost account, a domain that
// the CA has refused too often, one that queues, and a record that vanishes once there is a certificate.
func TestFivePlacesAgree(t *testing.T) {
	e := newEnv(t, harness.Options{Tuning: func(v *tuning.Values) {
		v.DiagnoseAfter, v.InlineProcessing, v.LookAtNames = time.Second, time.Second, 2*time.Second
	}})
	events := newReceiver(t)
	account := e.Bind()
	records := wrongRecords(account, e.Value(account, false))
	all := append(records, e.troubles(account)...)
	global := e.Global("dns_persist {\n\t\tmetrics {\n\t\t\tper_name\n\t\t}\n\t}", "events {\n\t\ton * dns_persist_webhook "+events.URL+"\n\t}")
	config := global
	for i, c := range all {
		if c.domain == "" {
			all[i].domain = e.Name(c.label)
		}
		config += e.Site(all[i].domain, cmp.Or(c.block, e.Block()))
	}
	for _, c := range all[:len(records)] {
		switch {
		case c.at != nil:
			e.DNS.SetTXT(0, c.at(c.domain), c.value)
		case c.value != "":
			e.Publish(c.domain, c.value)
		}
	}
	full, spender := e.fullCA()
	e.Load(global + e.Site(spender, full)) // it takes the one order that there is room for
	e.Eventually(harness.Soon, "the certificate of "+spender, func() error {
		if _, reply := e.call(http.MethodGet, "/dns_persist/names?domain="+spender, ""); !has(reply, `"served"`) {
			return fmt.Errorf("GET names: %s", reply)
		}
		return nil
	})
	queued := trouble{label: "queued", phase: "held", reason: "queued", code: "queued", why: "in the queue", domain: e.Name("queued")}
	all = append(all, queued)
	e.Load(config + e.Site(spender, full) + e.Site(queued.domain, full))
	for _, c := range all {
		if c.isServed {
			e.WaitTrusted(c.domain, harness.Soon)
			e.Publish(c.domain)
		}
	}
	for _, c := range all {
		t.Run(c.label, func(t *testing.T) { e.agrees(t, c, events) })
	}
}

// troubles are those that the records have nothing to do with.
func (e *env) troubles(account string) []trouble {
	slow, lost := e.NewCA(harness.Options{}), e.NewCA(harness.Options{})
	slow.SetValidationDelay(10 * time.Minute)
	port, err := lab.FreePort()
	if err != nil {
		e.T.Fatal(err)
	}
	down := strings.Replace(e.Block(), e.CA.Directory(), fmt.Sprintf("https://127.0.0.1:%d/dir", port), 1)
	all := []trouble{
		{label: "down", block: down, phase: "held", reason: "ca_down", code: "ca_down", why: "connection refused", do: "look at your network"},
		{label: "lost", block: e.BlockFor(lost), phase: "held", reason: "account", code: "account", do: "restore the account", event: "dns_persist_account_lost"},
		{label: "slow", block: e.BlockFor(slow), phase: "processing", reason: "ca_processing", code: "ca_processing", why: "has been validating"},
		{label: "budget", phase: "held", reason: "budget", code: "budget", why: "failed to validate", do: "correct why"},
		{
			label: "gone", phase: "served", reason: "record_absent", code: "record_absent", why: "gone or was changed", do: "publish it again",
			event: "dns_persist_record_gone", isServed: true,
		},
	}
	for i := range all {
		all[i].domain = e.Name(all[i].label)
	}
	e.BindFor(lost)
	lost.Forget()
	e.Publish(all[2].domain, e.ValueFor(slow, e.BindFor(slow), false))
	e.Publish(all[3].domain, e.Value(account, false))
	e.Publish(all[4].domain, e.Value(account, false))
	name, hour := "_validation-persist."+all[3].domain, time.Now().Add(-time.Hour)
	spent, err := json.Marshal(map[string]any{"name": name, "attempts": []time.Time{hour, hour, hour, hour}})
	if err != nil {
		e.T.Fatal(err)
	}
	file := filepath.Join(e.Storage, "dns_persist", certmagic.StorageKeys.Safe(acmepersist.IssuerKey(e.CA.Directory())), "names", certmagic.StorageKeys.Safe(name)+".json")
	if err = os.MkdirAll(filepath.Dir(file), 0o700); err == nil {
		err = os.WriteFile(file, spent, 0o600)
	}
	if err != nil {
		e.T.Fatal(err)
	}
	return all
}

// fullCA is the block of a CA that takes one order an hour, with a domain that is to have it; another one is called queued.
func (e *env) fullCA() (block, spender string) {
	full := e.NewCA(harness.Options{})
	value := e.ValueFor(full, e.BindFor(full), false)
	spender = e.Name("spender")
	e.Publish(spender, value)
	e.Publish(e.Name("queued"), value)
	return e.BlockFor(full, "rate_limit 1 1h"), spender
}

// agrees compares what the five places say of a domain.
func (e *env) agrees(t *testing.T, c trouble, events *receiver) {
	var n dnspersist.NameStatus
	if err := harness.Eventually(harness.Soon, func() error {
		_, reply := e.call(http.MethodGet, "/dns_persist/names?domain="+c.domain, "")
		names := decode[dnspersist.NamesReply](t, reply).Names
		if len(names) != 1 {
			return fmt.Errorf("GET names: %s", reply)
		}
		n = names[0]
		if got := fmt.Sprint(n.Phase, " ", n.Reason, " ", n.Code); got != c.phase+" "+c.reason+" "+c.code {
			return fmt.Errorf("GET names: %s, want %s %s %s", got, c.phase, c.reason, c.code)
		}
		// between the two it may have been tried again
		r := e.caddy("status", c.domain, "--format", "json", "--address", e.Admin)
		if names = decode[dnspersist.NamesReply](t, r.out).Names; r.status != 2 || len(names) != 1 || names[0].Phase != n.Phase || names[0].Reason != n.Reason || names[0].Do != n.Do || !names[0].NextAt.Equal(n.NextAt) {
			return fmt.Errorf("status ends with %d and %s, GET names says %+v", r.status, r.out, n)
		}
		if r = e.caddy("status", c.domain, "--address", e.Admin); !has(r.out, c.domain, c.phase, c.code) {
			return fmt.Errorf("status: %s", r.out)
		}
		_, metrics := e.call(http.MethodGet, "/metrics", "")
		series := fmt.Sprintf(`caddy_dns_persist_name_status{ca="[^"]+",domain="%s",phase="%s",reason="%s"} 1`, c.domain, c.phase, c.reason)
		if !regexp.MustCompile(series).MatchString(metrics) {
			return fmt.Errorf("no series %s", series)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(n.Why, c.why) || !strings.Contains(n.Do, c.do) || n.NextAt.IsZero() || n.Severity == "ok" {
		t.Errorf("GET names: %+v, want %q and %q, and when it is tried again", n, c.why, c.do)
	}
	if _, health := e.call(http.MethodGet, "/dns_persist/health", ""); c.isServed && !has(health, "degraded", "record_gone", c.domain) {
		t.Errorf("health: %s", health)
	}
	if err := harness.Eventually(harness.Soon, func() error { return e.hasLogged(c, n) }); err != nil {
		t.Error(err)
	}
	if c.event == "" {
		return
	}
	if err := harness.Eventually(harness.Soon, func() error {
		last := events.last(c.domain, n.CA)
		isOfMany := last.Data["count"] != nil // so many came within a minute that this one is a number
		if last.Event != c.event || c.event == "dns_persist_record_wrong" && !isOfMany && (last.Data["code"] != c.code || last.Data["do"] != n.Do) {
			return fmt.Errorf("the last event is %+v, want %s with %s and %q", last, c.event, c.code, n.Do)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// hasLogged reports an error unless the log has what is wrong with a domain.
func (e *env) hasLogged(c trouble, n dnspersist.NameStatus) error {
	var all []string
	for _, l := range e.Logs("") {
		if l["logger"] != "dns_persist" || l["level"] == "debug" || l["domain"] != c.domain && !strings.Contains(fmt.Sprint(l["domains"]), c.domain) {
			continue
		}
		all = append(all, fmt.Sprint(l))
		switch {
		case l["reason"] == c.reason && l["code"] == c.code && (l["do"] == n.Do || l["do"] == nil && n.Do == ""),
			strings.Contains(fmt.Sprint(l["found"]), c.code) && l["do"] == n.Do,
			l["misplaced"] != nil && c.code == "wrong_name",
			c.reason == "record_absent" && n.Record != nil && l["name"] == n.Record.Name && l["value"] == n.Record.Value && l["host"] == n.Record.Host:
			return nil
		}
	}
	return fmt.Errorf("the log has nothing about %s, but %s", c.code, strings.Join(all, "\n"))
}

// wrongRecords are the mistakes that people make with a record.
func wrongRecords(account, good string) []trouble {
	quoted := func(s string) string { return `"` + s + `"` }
	found := func(label, value, code, do string) trouble {
		return trouble{label: label, value: value, phase: "waiting", reason: "record_wrong", code: code, do: do, event: "dns_persist_record_wrong"}
	}
	misplaced := func(label, why string, at func(string) string) trouble {
		return trouble{
			label: label, value: good, at: at, phase: "waiting", reason: "record_wrong", code: "wrong_name", why: why, do: "move the TXT record",
			event: "dns_persist_record_wrong",
		}
	}
	return []trouble{
		found("account", strings.Replace(good, account, account+"x", 1), "wrong_account", "replace the value"),
		found("quotes", quoted(good), "miswritten", "replace the value"),
		found("curly", "\u201c"+good+"\u201d", "miswritten", "replace the value"),
		found("line", "_validation-persist 3600 IN TXT "+quoted(good), "miswritten", "replace the value"),
		found("cut", harness.IssuerName, "malformed", "replace the value"),
		found("semicolon", strings.Replace(good, "; ", "", 1), "miswritten", "replace the value"),
		found("other", "ca.example; accounturi=https://ca.example/1", "wrong_issuer", "beside what is published"),
		misplaced("doubled", "twice", func(name string) string { return "_validation-persist." + name + ".example.test" }),
		misplaced("bare", "missing", func(name string) string { return name }),
		misplaced("typo", "underscore", func(name string) string { return "_validation_persist." + name }),
		misplaced("www", "www.", func(name string) string { return "_validation-persist.www." + name }),
		misplaced("dns01", "dns-01", func(name string) string { return "_acme-challenge." + name }),
		{label: "absent", phase: "waiting", reason: "record_absent", code: "record_absent", do: "publish", event: "dns_persist_record_needed"},
	}
}
