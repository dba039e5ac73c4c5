// Package publish tests that a real Caddy with a DNS provider publishes the record by itself,
// against the lab's CA and name servers.
package publish

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/libdns/libdns"
	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

func init() { caddy.RegisterModule(client{}) }

// client is a DNS provider with an API over HTTP, which any process can call.
type client struct {
	URL   string `json:"url"`
	Token string `json:"token"`
}

func (client) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "dns.providers.lab", New: func() caddy.Module { return new(client) }}
}

// UnmarshalCaddyfile reads `lab <url> <token>`.
func (c *client) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if !d.Args(&c.URL, &c.Token) {
		return d.ArgErr()
	}
	return nil
}

// request is what the API takes: records of one name.
type request struct {
	Op, Zone, Name, Token string
	Texts                 []string
	TTL                   int
}

func (c *client) call(ctx context.Context, op, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	r := request{Op: op, Zone: zone, Token: c.Token}
	for _, rec := range recs {
		txt := rec.(libdns.TXT)
		r.Name, r.TTL, r.Texts = txt.Name, int(txt.TTL.Seconds()), append(r.Texts, txt.Text)
	}
	body, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.URL, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		return nil, &statusError{resp.StatusCode, fmt.Sprintf("HTTP %d with token %s: %s", resp.StatusCode, c.Token, text)}
	}
	return recs, nil
}

// statusError has the status, as the errors of some clients do.
type statusError struct {
	status int
	text   string
}

func (e *statusError) Error() string   { return e.text }
func (e *statusError) StatusCode() int { return e.status }

// AppendRecords implements libdns.RecordAppender.
func (c *client) AppendRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	return c.call(ctx, "append", zone, recs)
}

// DeleteRecords implements libdns.RecordDeleter.
func (c *client) DeleteRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	return c.call(ctx, "delete", zone, recs)
}

const token = "hush-hush-token"

// api is the provider's side: it changes the lab's zones.
type api struct {
	dns *lab.DNS
	url string
	// lag is how much later than the first the second server has a change.
	lag time.Duration
	// replaces is a provider whose adding replaces what others have.
	replaces bool

	mu     sync.Mutex
	fail   int // the status that writes end with, 0 for none
	writes []request
	// wrote is called once, when a write to a name went through and nobody was told yet.
	wrote  map[string]func()
	values map[string][]string // by name
	timers sync.WaitGroup
}

func newAPI(t testing.TB) *api {
	t.Helper()
	a := &api{values: make(map[string][]string), wrote: make(map[string]func())}
	s := httptest.NewServer(a)
	t.Cleanup(s.Close)
	t.Cleanup(a.timers.Wait)
	a.url = s.URL
	return a
}

// block is the line for an issuer's block.
func (a *api) block() string { return fmt.Sprintf("dns lab %s %s", a.url, token) }

// set makes values stand that somebody else has written.
func (a *api) set(name string, values ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.values[name] = values
	a.dns.SetTXT(0, name, values...)
}

// once calls fn when the next write to a name went through.
func (a *api) once(name string, fn func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wrote[name] = fn
}

func (a *api) breaks(status int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fail = status
}

// at are the values at a name.
func (a *api) at(name string) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.values[name])
}

// count is how many writes of a kind there were at a name.
func (a *api) count(op, name string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for _, w := range a.writes {
		if w.Op == op && libdns.AbsoluteName(w.Name, w.Zone) == name+"." {
			n++
		}
	}
	return n
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var req request
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.writes = append(a.writes, req)
	name := strings.TrimSuffix(dns.CanonicalName(libdns.AbsoluteName(req.Name, req.Zone)), ".")
	switch {
	case req.Token != token:
		http.Error(w, "wrong token", http.StatusForbidden)
		return
	case a.fail != 0:
		http.Error(w, http.StatusText(a.fail), a.fail)
		return
	case req.Op == "append" && a.replaces:
		a.values[name] = req.Texts
	case req.Op == "append":
		a.values[name] = append(slices.Clone(a.values[name]), req.Texts...)
	default:
		a.values[name] = slices.DeleteFunc(slices.Clone(a.values[name]), func(v string) bool { return slices.Contains(req.Texts, v) })
	}
	values := a.values[name]
	if fn := a.wrote[name]; fn != nil {
		delete(a.wrote, name)
		defer fn()
	}
	a.dns.SetTXT(1, name, values...)
	if a.lag == 0 {
		a.dns.SetTXT(2, name, values...)
		return
	}
	a.timers.Add(1)
	time.AfterFunc(a.lag, func() {
		defer a.timers.Done()
		a.dns.SetTXT(2, name, values...)
	})
}
