package dnspersist

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

// tenantDNS is a resolver at any address, by which tenant.test has name servers inside this
// network. They show a secret.
type tenantDNS struct {
	servers []string // their addresses

	mu    sync.Mutex
	asked []string // those of them that were asked
}

var insideServers = []string{"10.66.0.9", "127.66.0.9", "169.254.169.254"}

func (n *tenantDNS) Exchange(_ context.Context, _, addr string, query *dns.Msg) (*dns.Msg, error) {
	q := query.Question[0]
	m := new(dns.Msg).SetReply(query)
	add := func(list *[]dns.RR, format string, args ...any) {
		rr, err := dns.NewRR(fmt.Sprintf(format, args...))
		if err != nil {
			panic(err)
		}
		*list = append(*list, rr)
	}
	const soa = "tenant.test. 60 SOA n0.tenant.test. h.tenant.test. 1 1 1 1 60"
	switch {
	case !query.RecursionDesired:
		n.mu.Lock()
		n.asked = append(n.asked, strings.TrimSuffix(addr, ":53"))
		n.mu.Unlock()
		m.Authoritative = true
		if q.Qtype == dns.TypeTXT {
			add(&m.Answer, "%s 60 TXT \"internal secret value\"", q.Name)
			return m, nil
		}
		return nil, errors.New("i/o timeout")
	case q.Qtype == dns.TypeNS && q.Name == "tenant.test.":
		for i := range n.servers {
			add(&m.Answer, "tenant.test. 60 NS n%d.tenant.test.", i)
		}
	case q.Qtype == dns.TypeA && strings.HasPrefix(q.Name, "n"):
		add(&m.Answer, "%s 60 A %s", q.Name, n.servers[q.Name[1]-'0'])
	default:
		add(&m.Ns, soa)
	}
	return m, nil
}

// Whoever sets resolvers, wherever, has not allowed to ask name servers in the network; that is
// an option of its own, which the diagnosis names.
func TestPrivateNameServers(t *testing.T) {
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	root := filepath.Join(t.TempDir(), "root.pem")
	if err := os.WriteFile(root, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	roots, err := json.Marshal([]string{root})
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		issuer, tls string
		asked, warn bool
	}{
		"no resolvers":              {``, ``, false, false},
		"resolvers":                 {`"dns":{"resolvers":["192.0.2.53"]}`, ``, false, false},
		"those of the challenge":    {`"challenges":{"dns":{"resolvers":["192.0.2.53"]}}`, ``, false, false},
		"those of all of TLS":       {``, `"resolvers":["192.0.2.53"],`, false, false},
		"inside ones":               {`"dns":{"resolvers":["10.0.0.53","[fd00::53]:5353","192.0.2.53"]}`, ``, false, true},
		"inside ones of all of TLS": {``, `"resolvers":["127.0.0.1:5353"],`, false, true},
		"allowed":                   {`"dns":{"resolvers":["10.0.0.53"],"allow_private_ns":true}`, ``, true, false},
		"a CA of the network":       {`"dns":{"resolvers":["10.0.0.53"]},"trusted_roots_pem_files":` + string(roots), ``, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			n := &tenantDNS{servers: insideServers}
			defer tuning.Set(tuning.Values{Exchanger: n})()
			issuer := strings.TrimSuffix(`{"module":"dns_persist",`+tt.issuer, ",") + "}"
			a, logs := provisionedApp(t, `{"tls":{`+tt.tls+`"automation":{"policies":[{"subjects":["tenant.test"],"issuers":[`+issuer+`]},{"subjects":["b.test"],"issuers":[`+issuer+`]}]}}}`)
			a.warnAtLoad()
			if got := logs.FilterMessageSnippet("allow_private_ns").Len(); got > 1 || (got == 1) != tt.warn {
				t.Errorf("%d warnings about resolvers inside, want one: %v", got, tt.warn)
			}
			app, err := a.ctx.AppIfConfigured("tls")
			if err != nil {
				t.Fatal(err)
			}
			iss := app.(*caddytls.TLS).Automation.Policies[0].Issuers[0].(*Issuer)
			rep, found := iss.rt.core.Checker.Diagnose(t.Context(), propagation.Target{Name: "_validation-persist.tenant.test", Host: "tenant.test"})
			if asked := len(n.asked) > 0; asked != tt.asked {
				t.Errorf("asked were %v", n.asked)
			}
			if tt.asked {
				return
			}
			named := slices.ContainsFunc(found, func(d propagation.Diagnostic) bool {
				return d.Code == propagation.CodePrivate && strings.Contains(d.Text, "allow_private_ns")
			})
			if name != "no resolvers" && !named { // the system may have none
				t.Errorf("the option is not named: %s %v", rep.Summary(), found)
			}
			if shown := fmt.Sprint(rep, found); strings.Contains(shown, "secret") {
				t.Errorf("a value of an inside server is shown: %s", shown)
			}
		})
	}
}

// Networks that the app names are private for every issuer, beside those that an issuer names itself, also
// where no server runs the configuration.
func TestPrivateNetworksOfTheApp(t *testing.T) {
	n := &tenantDNS{servers: []string{"11.66.0.9", "12.66.0.9"}}
	defer tuning.Set(tuning.Values{Exchanger: n})()
	const apps = `{"dns_persist":{"private_networks":["11.66.0.0/16"]},"tls":{"automation":{"policies":[{"subjects":["tenant.test"],"issuers":[
		{"module":"dns_persist","dns":{"resolvers":["192.0.2.53"],"private_networks":["12.66.0.9"]}}]}]}}}`
	a, _ := provisionedApp(t, apps)
	app, err := a.ctx.AppIfConfigured("tls")
	if err != nil {
		t.Fatal(err)
	}
	running := app.(*caddytls.TLS).Automation.Policies[0].Issuers[0].(*Issuer)

	folder, err := json.Marshal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	off, err := Open([]byte(`{"storage":{"module":"file_system","root":` + string(folder) + `},"apps":` + apps + `}`))
	if err != nil {
		t.Fatal(err)
	}
	defer off.Close()
	stopped := off.Plan().Issuers()[0].(*offline).Issuer

	for name, iss := range map[string]*Issuer{"runs": running, "runs nowhere": stopped} {
		rep, found := iss.rt.core.Checker.Diagnose(t.Context(), propagation.Target{Name: "_validation-persist.tenant.test", Host: "tenant.test"})
		if len(n.asked) > 0 {
			t.Errorf("%s: asked were %v", name, n.asked)
		}
		if !slices.ContainsFunc(found, func(d propagation.Diagnostic) bool { return d.Code == propagation.CodePrivate }) {
			t.Errorf("%s: not diagnosed as private: %s %v", name, rep.Summary(), found)
		}
	}
}
