package lab

import (
	"math/rand/v2"
	"strings"
	"time"

	"github.com/miekg/dns"
)

func (d *DNS) serve(s *nameServer, network string, w dns.ResponseWriter, query *dns.Msg) {
	if len(query.Question) != 1 {
		reply := new(dns.Msg).SetRcode(query, dns.RcodeFormatError)
		w.WriteMsg(reply)
		return
	}
	q := query.Question[0]
	d.mu.Lock()
	d.queries = append(d.queries, Query{
		Time: time.Now(), Server: s.number, Name: dns.CanonicalName(q.Name), Type: dns.TypeToString[q.Qtype], Network: network,
	})
	mode, delay := s.mode, s.delay
	d.mu.Unlock()

	if mode == "silent" || mode == "tcponly" && network == "udp" {
		return
	}
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-d.done:
			return
		}
	}

	reply := new(dns.Msg).SetReply(query)
	reply.RecursionAvailable = s.number == 0
	switch {
	case mode == "servfail":
		reply.Rcode = dns.RcodeServerFailure
	case mode == "refused":
		reply.Rcode = dns.RcodeRefused
	case mode == "lame":
	case mode == "truncate" && network == "udp":
		reply.Truncated = true
		reply.Authoritative = s.number != 0
	case s.number == 0:
		d.recurse(reply, q)
	default:
		d.mu.RLock()
		a := d.lookup(s.number, q.Name, q.Qtype)
		d.mu.RUnlock()
		reply.Rcode, reply.Authoritative = a.rcode, a.authoritative
		reply.Answer, reply.Ns, reply.Extra = a.answer, a.authority, a.extra
	}

	size := dns.MinMsgSize
	if opt := query.IsEdns0(); opt != nil {
		size = max(size, int(opt.UDPSize()))
		reply.SetEdns0(1232, opt.Do())
	}
	if network == "tcp" {
		size = dns.MaxMsgSize
	}
	reply.Truncate(size)
	w.WriteMsg(reply)
}

// recurse fills reply like a resolver that caches nothing.
func (d *DNS) recurse(reply *dns.Msg, q dns.Question) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	name := dns.CanonicalName(q.Name)
	reply.Rcode = dns.RcodeServerFailure
	for range maxChain {
		z := d.zoneOf(name, 0)
		if z != nil && q.Qtype == dns.TypeDS && name == z.origin {
			z = d.zoneOf(parentName(name), 0)
		}
		if z == nil {
			d.outside(reply, name, q.Qtype)
			return
		}
		a, ok := d.ask(z, name, q.Qtype)
		if !ok || a.rcode != dns.RcodeSuccess && a.rcode != dns.RcodeNameError || !a.authoritative {
			reply.Rcode = dns.RcodeServerFailure
			return
		}
		reply.Answer = append(reply.Answer, a.answer...)
		reply.Rcode, reply.Ns = a.rcode, a.authority
		if len(a.answer) != 1 || q.Qtype == dns.TypeCNAME || q.Qtype == dns.TypeANY {
			return
		}
		cname, ok := a.answer[0].(*dns.CNAME)
		if !ok {
			return
		}
		name = dns.CanonicalName(cname.Target)
	}
	// A loop, or a chain that is too long.
	reply.Rcode, reply.Answer, reply.Ns = dns.RcodeServerFailure, nil, nil
}

// outside answers for names that are in no zone, as the root would.
func (d *DNS) outside(reply *dns.Msg, name string, qtype uint16) {
	soa, err := dns.NewRR(". 60 IN SOA a.root-servers.net. nstld.verisign-grs.com. 1 1800 900 604800 60")
	if err != nil {
		panic(err)
	}
	reply.Rcode = dns.RcodeNameError
	for origin := range d.zones {
		if dns.IsSubDomain(name, origin) {
			reply.Rcode = dns.RcodeSuccess
		}
	}
	if name == "." && qtype == dns.TypeSOA {
		reply.Rcode = dns.RcodeSuccess
		reply.Answer = append(reply.Answer, soa)
		return
	}
	reply.Ns = []dns.RR{soa}
}

// ask picks a server of z that is not broken. d.mu is held.
func (d *DNS) ask(z *zone, name string, qtype uint16) (answer, bool) {
	var able []int
	for _, number := range z.servers {
		switch d.servers[number].mode {
		case "normal", "tcponly", "truncate":
			able = append(able, number)
		}
	}
	if len(able) == 0 {
		return answer{}, false
	}
	switch d.pick {
	case "first":
		return d.lookupIn(z, able[0], name, qtype), true
	case "rotate":
		turn := name + dns.TypeToString[qtype]
		d.turnsMu.Lock()
		n := d.turns[turn]
		d.turns[turn]++
		d.turnsMu.Unlock()
		return d.lookupIn(z, able[n%len(able)], name, qtype), true
	case "last":
		return d.lookupIn(z, able[len(able)-1], name, qtype), true
	case "worst":
		worst := d.lookupIn(z, able[0], name, qtype)
		for _, number := range able[1:] {
			if a := d.lookupIn(z, number, name, qtype); a.weight() < worst.weight() {
				worst = a
			}
		}
		return worst, true
	}
	return d.lookupIn(z, able[rand.IntN(len(able))], name, qtype), true
}

func parentName(name string) string {
	_, parent, ok := strings.Cut(name, ".")
	if !ok || parent == "" {
		return "."
	}
	return parent
}
