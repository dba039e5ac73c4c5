package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

// hooks is a receiver of events.
type hooks struct {
	*harness.Env
	server *httptest.Server

	mu  sync.Mutex
	got []hookEvent
}

type hookEvent struct {
	Event, ID string
	Data      map[string]any
}

func newHooks(e *harness.Env) *hooks {
	h := &hooks{Env: e}
	h.server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var event hookEvent
		if err := json.NewDecoder(r.Body).Decode(&event); err != nil {
			e.T.Error(err)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.got = append(h.got, event)
	}))
	e.T.Cleanup(h.server.Close)
	return h
}

// global are the global options with the receiver for all events of ours.
func (h *hooks) global() string {
	on := ""
	for _, event := range []string{"record_needed", "record_wrong", "record_complete", "record_gone", "record_ending", "record_published", "ca_changed", "account_lost"} {
		on += "\t\ton dns_persist_" + event + " dns_persist_webhook " + h.server.URL + "\n"
	}
	return h.Global("events {\n" + on + "\t}")
}

// events are those that have come for the record of a domain, or for none, each with its code. Which domains they
// list depends on which of them an attempt has come for.
func (h *hooks) events(domain string) (all []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, event := range h.got {
		if name, _ := event.Data["name"].(string); domain == "" && name == "" || name == record.Label+"."+domain {
			code, _ := event.Data["code"].(string)
			all = append(all, strings.TrimSpace(strings.TrimPrefix(event.Event, "dns_persist_")+" "+code))
		}
	}
	return all
}

// want waits until the events of a domain are these.
func (h *hooks) want(domain string, want ...string) {
	h.T.Helper()
	h.Eventually(harness.Soon, fmt.Sprintf("the events %q", want), func() error {
		if got := h.events(domain); !slices.Equal(got, want) {
			return fmt.Errorf("got %q", got)
		}
		return nil
	})
}

// A record that is needed, wrong and then complete is an event each, for a domain and its wildcard together, whatever
// reloads come between: none is lost, and none comes twice.
func TestEventsOverReloads(t *testing.T) {
	e := harness.New(t, harness.Options{})
	h := newHooks(e)
	account := e.Bind()
	name := e.Name("a")
	good := e.Value(account, true)
	config := h.global() + e.Site(name+", *."+name, e.Block())
	e.Load(config)
	for range 3 {
		e.Load(config)
	}
	h.want(name, "record_needed record_absent")
	e.Load(config)
	e.Publish(name, strings.Replace(good, account, account+"x", 1))
	e.Load(config)
	e.Load(config)
	h.want(name, "record_needed record_absent", "record_wrong wrong_account")
	e.Load(config)
	e.Publish(name, good)
	for range 3 {
		e.Load(config)
	}
	e.WaitTrusted(name, harness.Soon)
	e.WaitTrusted("x."+name, harness.Soon)
	want := []string{"record_needed record_absent", "record_wrong wrong_account", "record_complete"}
	h.want(name, want...)
	// one that is emitted after it comes after whatever else there may be
	later := e.Name("later")
	e.Load(config + e.Site(later, e.Block()))
	h.want(later, "record_needed record_absent")
	h.want(name, want...)
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, event := range h.got {
		for _, other := range h.got[:i] {
			if other.ID == event.ID {
				t.Errorf("%s came twice", event.ID)
			}
		}
	}
	if d := h.got[1].Data; d["value"] != good || d["name"] != "_validation-persist."+name || d["account"] != account || d["do"] == "" || d["published"] == nil {
		t.Errorf("the data are %v", d)
	}
}

// What is found between renewals is an event too: a record that is gone, one that is back, one that ends, and an
// account that the CA has lost.
func TestEventsOfServedNames(t *testing.T) {
	e := harness.New(t, harness.Options{Lifetime: 90 * 24 * time.Hour, Tuning: func(v *tuning.Values) {
		v.LookAtNames, v.ReadDirectory = time.Second, time.Second
	}})
	h := newHooks(e)
	account := e.Bind()
	gone, ends := e.Name("gone"), e.Name("ends")
	good := e.Value(account, false)
	e.Publish(gone, good)
	e.Publish(ends, good)
	e.Load(h.global() + e.Site(gone, e.Block()) + e.Site(ends, e.Block()))
	e.WaitTrusted(gone, harness.Soon)
	e.WaitTrusted(ends, harness.Soon)
	e.Publish(gone)
	e.Publish(ends, record.Value{IssuerDomainName: harness.IssuerName, AccountURI: account, PersistUntil: time.Now().Add(80 * 24 * time.Hour)}.String())
	h.want(gone, "record_gone record_absent")
	h.want(ends, "record_ending")
	e.Publish(gone, good)
	h.want(gone, "record_gone record_absent", "record_complete")
	e.CA.Forget()
	h.want("", "account_lost")
}
