package propagation

import (
	"slices"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/zones"
)

func (s *testServer) zoneOf(name string) string {
	for n := dns.CanonicalName(name); ; n = zones.Parent(n) {
		if _, ok := s.zones[n]; ok {
			return n
		}
		if n == "." {
			return ""
		}
	}
}

func (s *testServer) soa(name string) dns.RR { return s.zones[s.zoneOf(name)][0] }

func (s *testServer) answer(m *dns.Msg, q dns.Question) {
	if s.recursive {
		m.RecursionAvailable = true
		s.recurse(m, q)
		return
	}
	name := dns.CanonicalName(q.Name)
	zone := s.zoneOf(name)
	if zone == "" {
		m.Rcode = dns.RcodeRefused
		return
	}
	rrs := s.zones[zone]
	// The highest cut between the apex and the name.
	for n, cut := name, ""; ; n = zones.Parent(n) {
		if n == zone {
			if cut != "" {
				s.refer(m, rrs, cut)
				return
			}
			break
		}
		if slices.ContainsFunc(rrs, func(rr dns.RR) bool { return owns(rr, n, dns.TypeNS) }) {
			cut = n
		}
	}
	m.Authoritative = true
	s.look(m, rrs, name, q.Qtype)
}

func (s *testServer) refer(m *dns.Msg, rrs []dns.RR, cut string) {
	for _, rr := range rrs {
		if owns(rr, cut, dns.TypeNS) {
			m.Ns = append(m.Ns, rr)
			for _, glue := range rrs {
				if owns(glue, dns.CanonicalName(rr.(*dns.NS).Ns), dns.TypeA) {
					m.Extra = append(m.Extra, glue)
				}
			}
		}
	}
}

func (s *testServer) look(m *dns.Msg, rrs []dns.RR, name string, qtype uint16) (alias string) {
	exists := false
	found := false
	for _, rr := range rrs {
		owner := dns.CanonicalName(rr.Header().Name)
		exists = exists || dns.IsSubDomain(name, owner)
		if owns(rr, name, qtype) {
			m.Answer, found = append(m.Answer, dns.Copy(rr)), true
		} else if owns(rr, name, dns.TypeCNAME) {
			m.Answer = append(m.Answer, dns.Copy(rr))
			return dns.CanonicalName(rr.(*dns.CNAME).Target)
		}
	}
	if !found {
		m.Ns = []dns.RR{dns.Copy(rrs[0])}
		if !exists {
			m.Rcode = dns.RcodeNameError
		}
	}
	return ""
}

// recurse answers as a resolver that knows the zones.
func (s *testServer) recurse(m *dns.Msg, q dns.Question) {
	name := dns.CanonicalName(q.Name)
	for range maxAliases {
		zone := s.zoneOf(name)
		if zone == "" {
			m.Rcode = dns.RcodeNameError
			soa, _ := dns.NewRR(". 300 SOA a.root.test. x.root.test. 1 1 1 1 300")
			m.Ns = []dns.RR{soa}
			return
		}
		if name = s.look(m, s.zones[zone], name, q.Qtype); name == "" {
			return
		}
	}
}
