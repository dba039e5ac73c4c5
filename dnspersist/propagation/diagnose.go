package propagation

import (
	"context"
	"fmt"
	"slices"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/ask"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/zones"
)

// Diagnose looks once at all servers and then asks one of them what polls never ask: whether
// the record is published at a name that is nearly right. That is some 20 questions, for a person
// who waits for them, with a budget of their own. In recursive mode, where none may be asked for
// too much, it is a look alone.
func (c *Checker) Diagnose(ctx context.Context, t Target) (Report, []Diagnostic) {
	r, w := c.walked(ctx, t, -1, nil)
	ctx, _, cancel := ask.Begin(ctx)
	defer cancel()
	if w.mayShadow(r.Wildcard) { // what is remembered for polls may be of an hour ago
		r.Shadows = w.shadows(ctx, t.host())
	}
	rep := c.NewGate().Observe(r)
	all := rep.Diagnostics()
	i := slices.IndexFunc(w.last.outcomes, func(o outcome) bool { return o.Verdict == VerdictYes || o.Verdict == VerdictNo })
	if i < 0 {
		return rep, all
	}
	if !w.signed && rep.Mode == ModeAuthoritative {
		all = append(all, Diagnostic{Code: CodeUnsigned, Text: fmt.Sprintf(
			"the zone %s is not signed: who can forge DNS answers can forge a record that lasts; DNSSEC protects it", rep.Zone)})
	}
	p := probe{c: c, zone: w.last.zone.Name, host: t.host(), name: w.last.name, addr: zones.DNSAddr(w.last.asked[i].Addr), accept: t.Accept, wildcard: r.Wildcard != ""}
	if rep.FirstYes.IsZero() && t.Mistaken != nil {
		all = append(all, p.wrongNames(ctx, t.Mistaken(zones.Display(p.zone)))...)
	}
	return rep, all
}

// probe asks one server that serves the zone.
type probe struct {
	c                *Checker
	zone, host, name string
	addr             string
	accept           acceptFunc
	wildcard         bool // one answers for names that nobody has
}

func (p probe) ask(ctx context.Context, name string, qtype uint16) []dns.RR {
	ans, err := p.c.asker.Ask(ctx, p.addr, name, qtype, false)
	if err != nil || ans.Rcode != dns.RcodeSuccess {
		return nil
	}
	return ans.Answer
}

// wrongNames looks for the record where it is put by mistake.
func (p probe) wrongNames(ctx context.Context, places []Place) []Diagnostic {
	var all []Diagnostic
	for _, place := range places {
		name := dns.CanonicalName(place.Name)
		if _, ok := dns.IsDomainName(name); !ok || name == p.name || !dns.IsSubDomain(p.zone, name) {
			continue
		}
		values, _ := txtValues(p.ask(ctx, name, dns.TypeTXT), name)
		if len(values) == 0 {
			continue
		}
		good := false
		if p.accept != nil {
			good, _ = p.accept(slices.Clone(values))
		}
		d := Diagnostic{Code: CodeWrongName, Addr: p.addr}
		switch {
		case good:
			d.Place = zones.Display(name)
			d.Text = fmt.Sprintf("%s has no acceptable record, but %s has one: %s; move it", zones.Display(p.name), zones.Display(name), place.Why)
		case place.Conclusive && !p.wildcard:
			d.Text = fmt.Sprintf("%s has no acceptable record, and the TXT record at %s was probably meant for it: %s, and its value is not the right one either", zones.Display(p.name), zones.Display(name), place.Why)
		default:
			continue
		}
		all = append(all, d)
	}
	return all
}
