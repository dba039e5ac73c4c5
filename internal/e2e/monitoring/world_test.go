//go:build unix

package monitoring

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/libdns/libdns"

	_ "github.com/caddyserver/caddy/v2/modules/metrics" // GET /metrics of the admin endpoint

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

// speed is how much faster than in the world time goes by: a second of the lab is two hours.
const speed = 7200

// lifetime is that of certificates, short that of those that end within the test.
const (
	lifetime = 90 * 24 * time.Hour
	short    = 45 * time.Second
)

// world is one Caddy with a CA for each thing that can go wrong, so that each alert has a CA of its own.
type world struct {
	*harness.Env
	// target is the admin endpoint.
	target string
	cas    map[string]*lab.CA
	// names are the domains, by CA.
	names    map[string]string
	accounts map[string]string
}

// Things that go wrong, by the CA at which they do.
const (
	fine      = "fine"      // nothing
	gone      = "gone"      // the record vanishes, and comes back
	overdue   = "overdue"   // the record vanishes, and the certificate ends
	ending    = "ending"    // the record ends soon
	missing   = "missing"   // the record was never published
	lost      = "lost"      // the CA forgets the account
	down      = "down"      // the CA does not answer
	unwritten = "unwritten" // the DNS provider takes no record
	refused   = "refused"   // the CA refuses the domain
	limited   = "limited"   // too many domains want a certificate at once
	tenants   = "tenants"   // names on demand: all of this that tenants can bring about
)

func newWorld(t *testing.T) *world {
	t.Helper()
	port, err := lab.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	e := harness.New(t, harness.Options{Lifetime: lifetime, Tuning: func(v *tuning.Values) {
		v.LookAtNames, v.ReadDirectory = time.Second, time.Second
	}})
	e.Admin = fmt.Sprintf("127.0.0.1:%d", port)
	w := &world{Env: e, target: e.Admin, cas: map[string]*lab.CA{fine: e.CA}, names: make(map[string]string), accounts: make(map[string]string)}
	for _, ca := range []string{fine, gone, overdue, ending, missing, lost, down, unwritten, refused, limited, tenants} {
		if ca != fine {
			o := harness.Options{Lifetime: lifetime}
			if ca == overdue || ca == tenants {
				o.Lifetime = short
			}
			w.cas[ca] = e.NewCA(o)
		}
		w.names[ca] = e.Name(ca)
		w.accounts[ca] = e.BindFor(w.cas[ca])
	}
	return w
}

// publish sets the record of a domain.
func (w *world) publish(ca, name string) {
	w.Publish(name, w.ValueFor(w.cas[ca], w.accounts[ca], false))
}

// start loads Caddy and waits until all is well where it ever is.
func (w *world) start() {
	w.T.Helper()
	config := ""
	for _, ca := range slices.Sorted(maps.Keys(w.names)) {
		var more []string
		switch ca {
		case unwritten:
			more = append(more, "dns broken")
		case limited:
			more = append(more, "rate_limit 1 1h")
		}
		block := w.BlockFor(w.cas[ca], more...)
		switch ca {
		case tenants:
			config += "https:// {\n\ttls {\n\t\ton_demand\n\t\tissuer dns_persist " + block + "\n\t}\n\trespond \"hi\"\n}\n"
		default:
			config += w.Site(w.names[ca], block)
		}
	}
	permission := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	w.T.Cleanup(permission.Close)
	served := []string{fine, gone, overdue, lost, down, limited, tenants}
	for _, ca := range served {
		w.publish(ca, w.names[ca])
	}
	w.Publish(w.names[ending], record.Value{
		IssuerDomainName: harness.IssuerName, AccountURI: w.accounts[ending], PersistUntil: time.Now().Add(240 * time.Second),
	}.String())
	// as monitoring.caddyfile has it
	config += fmt.Sprintf("http://127.0.0.1:%d {\n\tmetrics /metrics\n}\n", w.HTTPPort)
	w.Load(w.Global("renew_interval 1s", "on_demand_tls {\n\t\task "+permission.URL+"\n\t}") + config)
	_, _ = w.Served(w.Name("a-stranger")) // who waits for ever
	for _, ca := range append(served, ending) {
		w.Eventually(harness.Soon, "a certificate for "+w.names[ca], func() error { return w.TrustedBy(w.cas[ca], w.names[ca]) })
	}
}

// breakAll has everything go wrong.
func (w *world) breakAll() {
	for _, ca := range []string{gone, overdue, tenants} {
		w.Publish(w.names[ca])
	}
	w.cas[lost].Forget()
	w.cas[down].Inject(lab.Fault{Times: -1, Status: http.StatusServiceUnavailable, RetryAfter: "1"}) // so that it is soon given up
	w.cas[refused].FailValidations(&lab.ErrSecondary)
	w.publish(refused, w.names[refused])
}

// hide closes the admin endpoint: for Prometheus that is a Caddy that has ended.
func (w *world) hide() {
	w.Admin = ""
	w.Load(w.Global())
}

// broken is a DNS provider that takes nothing.
type broken struct{}

func init() { caddy.RegisterModule(broken{}) }

func (broken) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "dns.providers.broken", New: func() caddy.Module { return new(broken) }}
}

func (broken) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	if d.Next(); d.NextArg() {
		return d.ArgErr()
	}
	return nil
}

func (broken) GetRecords(context.Context, string) ([]libdns.Record, error) { return nil, nil }

func (broken) AppendRecords(context.Context, string, []libdns.Record) ([]libdns.Record, error) {
	return nil, errors.New("the credential has ended")
}

// rename puts names in the place of addresses, which are others in each run.
func (w *world) rename(text string) string {
	pairs := []string{w.target, "caddy.example:2019"}
	for name, ca := range w.cas {
		pairs = append(pairs, ca.Directory(), "https://"+name+".example/directory")
	}
	return strings.NewReplacer(pairs...).Replace(text)
}
