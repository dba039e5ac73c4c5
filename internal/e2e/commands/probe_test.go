package commands

import (
	"testing"

	"github.com/dnspersist/caddy-dnspersist/dnspersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// Any CA can be asked for its directory, before there is a configuration.
func TestProbeWithoutConfiguration(t *testing.T) {
	e := newEnv(t, harness.Options{CA: lab.CAConfig{Dialect: lab.Dialect{Draft: "02"}}})
	r := e.caddy("probe", e.CA.Directory(), "--root", e.CA.RootsFile(), "--format", "json")
	if r.status != 0 {
		t.Fatalf("status %d: %s", r.status, r.err)
	}
	p := decode[dnspersist.ProbeReply](t, r.out).CAs[0]
	if p.Offered != acmepersist.OfferedYes || p.By != "directory" || p.AccountHashPrefix != e.CA.HashPrefix() || len(p.IssuerDomainNames) == 0 {
		t.Errorf("%+v", p)
	}
	if n := len(e.CA.Requests("new-account", "new-order")); n != 0 {
		t.Errorf("%d requests beside that for the directory", n)
	}
	deployed := newEnv(t, harness.Options{})
	if r := deployed.caddy("probe", deployed.CA.Directory(), "--root", deployed.CA.RootsFile()); r.status != 2 || !has(r.out, "unknown", "only an order can tell") {
		t.Errorf("deployed drafts: status %d: %s%s", r.status, r.out, r.err)
	}
	for _, bad := range []struct {
		args []string
		said string
	}{
		{[]string{"probe", "ca.example"}, "is not an absolute URL"},
		{[]string{"probe", e.CA.Directory()}, "certificate"},
		{[]string{"probe", e.CA.Directory(), "--order", "x.example"}, "--order is about a configuration"},
		{[]string{"probe", "--root", e.CA.RootsFile()}, "--root is for a directory's URL"},
		{[]string{"probe", e.CA.Directory(), "--root", "nowhere.pem"}, "loading trusted root 'nowhere.pem'"},
	} {
		if r := e.caddy(bad.args...); r.status != 1 || r.out != "" || !has(r.err, bad.said) {
			t.Errorf("%v: status %d: %s%s", bad.args, r.status, r.out, r.err)
		}
	}
}
