package site

import (
	"testing"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

func TestDelegationTargets(t *testing.T) {
	zone := &Delegation{Zone: "certs.example.net"}
	one := &Delegation{Name: "x.example.net"}
	label := record.DelegationLabel("example.com")
	for _, test := range []struct {
		d          *Delegation
		identifier string
		want       string
	}{
		{zone, "example.com", label + ".certs.example.net"},
		{zone, "*.example.com", label + ".certs.example.net"},
		{one, "*.example.com", "x.example.net"},
	} {
		if got := test.d.Target(test.identifier); got != test.want {
			t.Errorf("%s: %s, want %s", test.identifier, got, test.want)
		}
	}
	own := &Delegation{Zone: "certs.example.net", OwnLabels: true}
	other := record.DelegationLabel("other.example") + ".certs.example.net"
	for target, covered := range map[string]bool{
		label + ".certs.example.net": true, "any.certs.example.net": true, "a.b.certs.example.net": false, "certs.example.net": false,
		"_dmarc.certs.example.net": false, "_validation-persist.login.certs.example.net": false, other: false, "www." + label + ".certs.example.net": false,
		"*.certs.example.net": false, `a\010b.certs.example.net`: false, "A.certs.example.net": false, "a b.certs.example.net": false,
		"x;y.certs.example.net": false, ".certs.example.net": false, "-.certs.example.net": false,
		"xcerts.example.net": false, "certs.example.net.evil.example": false, "": false,
	} {
		if own.covers("example.com")(target) != covered {
			t.Errorf("%q below the zone: %v", target, !covered)
		}
		if zone.covers("*.example.com")(target) != (target == label+".certs.example.net") {
			t.Errorf("%q: only the label of the name's own is covered", target)
		}
		if one.covers("example.com")(target) {
			t.Errorf("%q is the name", target)
		}
	}
	if !one.covers("example.com")("x.example.net") {
		t.Error("the name itself is not covered")
	}
}

func TestPlaceHost(t *testing.T) {
	for target, want := range map[string]string{
		"label.certs.example.net": "certs.example.net", "x.example.net": "example.net", "example.net": "example.net", "net": "net",
	} {
		if got := PlaceHost(target); got != want {
			t.Errorf("%s: %s, want %s", target, got, want)
		}
	}
}

// CNAMEs are followed to the first target that is ours, through whatever zones, if all servers
// show them; a wildcard counts if it leads to what is asked for.
func TestDelegationLeadsTo(t *testing.T) {
	const name = "_validation-persist.www.shop.example"
	d := &Delegation{Zone: "certs.example.net", OwnLabels: true}
	wanted := d.Target("www.shop.example")
	at := func(pairs ...string) (all []propagation.ServerReport) {
		for i := 0; i < len(pairs); i += 2 {
			all = append(all, propagation.ServerReport{Name: pairs[i], Alias: pairs[i+1]})
		}
		return all
	}
	wildcard := func(target string) []propagation.ServerReport {
		all := at(name, target)
		all[0].FromWildcard = true
		return all
	}
	for what, c := range map[string]struct {
		servers []propagation.ServerReport
		want    string
	}{
		"none":               {at(name, ""), ""},
		"direct":             {at(name, "x.certs.example.net."), "x.certs.example.net"},
		"capitals":           {at(name, "X.Certs.example.net."), "x.certs.example.net"},
		"foreign":            {at(name, "elsewhere.example."), ""},
		"chain":              {at(name, "_validation-persist.shop.example.", "_validation-persist.shop.example", "x.certs.example.net."), "x.certs.example.net"},
		"in ours":            {at(name, "x.certs.example.net.", "x.certs.example.net", "y.certs.example.net."), "x.certs.example.net"},
		"astray":             {at(name, "a.example.", "a.example", "b.example."), ""},
		"loop":               {at(name, "a.example.", "a.example", name+"."), ""},
		"one lacks":          {at(name, "", name, "x.certs.example.net."), ""},
		"two":                {at(name, "x.certs.example.net.", name, "y.certs.example.net."), ""},
		"resolver":           {[]propagation.ServerReport{{Name: name, Via: "x.certs.example.net"}}, "x.certs.example.net"},
		"wildcard":           {wildcard("x.certs.example.net."), ""},
		"wildcard as wanted": {wildcard(wanted + "."), wanted},
	} {
		if got := d.LeadsTo(propagation.Report{Name: name, Servers: c.servers}.Alias(), "www.shop.example"); got != c.want {
			t.Errorf("%s: %q, want %q", what, got, c.want)
		}
	}
}
