package zones

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/ask"
)

// resolvConf is where a system lists its resolvers; not on Windows.
const resolvConf = "/etc/resolv.conf"

// Resolvers asks recursive resolvers, one after another.
type Resolvers struct {
	asker ask.Asker
	Addrs []string
	Err   error // why there are none

	// first is the index of the one that answered last: a dead one in front
	// of it is not waited for at every question.
	first atomic.Int32
}

func newResolvers(a ask.Asker, configured []string) *Resolvers {
	r := &Resolvers{asker: a}
	if len(configured) == 0 {
		configured, r.Err = systemResolvers(resolvConf)
	}
	for _, s := range configured {
		addr, err := resolverAddr(s)
		if err != nil {
			r.Err = err
			return r
		}
		r.Addrs = append(r.Addrs, addr)
	}
	return r
}

// systemResolvers reads a resolv.conf.
func systemResolvers(path string) ([]string, error) {
	conf, err := dns.ClientConfigFromFile(path)
	if err != nil {
		return nil, fmt.Errorf("finding the system's resolvers (%s): %w; set resolvers", runtime.GOOS, err)
	}
	if len(conf.Servers) == 0 {
		return nil, fmt.Errorf("finding the system's resolvers: none in %s; set resolvers", path)
	}
	addrs := make([]string, len(conf.Servers))
	for i, s := range conf.Servers {
		addrs[i] = net.JoinHostPort(s, conf.Port)
	}
	return addrs, nil
}

// resolverAddr completes "ip", "ip:port", "host" or "host:port".
func resolverAddr(s string) (string, error) {
	s = strings.TrimSpace(s)
	if ip, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return net.JoinHostPort(ip.String(), "53"), nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = s, "53"
	}
	if _, portErr := strconv.ParseUint(port, 10, 16); host == "" || portErr != nil || strings.ContainsAny(host, " /[]") || (err != nil && strings.Contains(host, ":")) {
		return "", fmt.Errorf("resolver '%s' is not an address: expected ip, ip:port or host:port", s)
	}
	return net.JoinHostPort(host, port), nil
}

// key identifies the set for the cache of zones.
func (r *Resolvers) key() string { return strings.Join(r.Addrs, ",") }

// Query asks the resolvers until one answers NOERROR or NXDOMAIN.
func (r *Resolvers) Query(ctx context.Context, name string, qtype uint16) (ask.Answer, string, error) {
	if r.Err != nil {
		return ask.Answer{}, "", r.Err
	}
	var failures, bogus error
	answered := false
	start := int(r.first.Load())
	for i := range r.Addrs {
		n := (start + i) % len(r.Addrs)
		addr := r.Addrs[n]
		ans, err := r.asker.Ask(ctx, addr, name, qtype, true)
		invalid := false
		if err == nil && ans.Rcode == dns.RcodeServerFailure {
			ans, invalid = r.AfterServfail(ctx, addr, name, qtype, ans)
		}
		switch {
		case ctx.Err() != nil:
			return ask.Answer{}, "", ctx.Err()
		case errors.Is(err, ask.ErrOverBudget):
			return ask.Answer{}, "", err
		case err != nil:
			failures = alsoFailed(failures, fmt.Errorf("%s: %w", addr, err))
		case invalid:
			bogus = fmt.Errorf("%s: %s", addr, ask.RcodeText(ans.Msg))
		case ans.Rcode != dns.RcodeSuccess && ans.Rcode != dns.RcodeNameError:
			// some answer REFUSED for a single name that they do not like
			answered = answered || ans.Rcode == dns.RcodeServerFailure || ans.Rcode == dns.RcodeRefused
			failures = alsoFailed(failures, fmt.Errorf("%s: %s", addr, ask.RcodeText(ans.Msg)))
		default:
			r.first.Store(int32(n))
			return ans, addr, nil
		}
	}
	if bogus != nil {
		return ask.Answer{}, "", ask.Coded(CodeBogus, fmt.Errorf(
			"the DNSSEC signatures of %s do not validate for the resolver %w: CAs refuse the zone; check the DS record and the signatures", Display(name), bogus))
	}
	err := fmt.Errorf("no resolver has answered for %s of %s: %w; check or set resolvers",
		dns.TypeToString[qtype], Display(name), failures)
	if answered {
		err = &nameError{err}
	}
	return ask.Answer{}, "", err
}

// nameError is that of resolvers that work and fail for this name, so its servers
// may be at fault.
type nameError struct{ error }

func (e *nameError) Unwrap() error { return e.error }

// alsoFailed joins errors on one line.
func alsoFailed(all, err error) error {
	if all == nil {
		return err
	}
	return fmt.Errorf("%w; %w", all, err)
}

// AfterServfail finds out why the resolver at addr answered SERVFAIL: because what it found
// does not validate, if it has an answer when it need not validate, and still none when it must. The
// second half is needed because a resolver that gives up on a slow server has an answer a
// moment later from what it has learnt since: that one is returned then.
func (r *Resolvers) AfterServfail(ctx context.Context, addr, name string, qtype uint16, failed ask.Answer) (now ask.Answer, bogus bool) {
	ans, err := r.asker.Send(ctx, addr, ValidationQuery(name, qtype, true))
	if err != nil || (ans.Rcode != dns.RcodeSuccess && ans.Rcode != dns.RcodeNameError) {
		return failed, false
	}
	if blamesDNSSEC(failed.Msg) {
		return failed, true
	}
	ans, err = r.asker.Send(ctx, addr, ValidationQuery(name, qtype, false))
	switch {
	case err != nil:
		return failed, false
	case ans.Rcode == dns.RcodeServerFailure:
		return failed, true
	}
	return ans, false
}

// blamesDNSSEC reports whether an answer failed because of DNSSEC, by an
// extended error (RFC 8914, section 4).
func blamesDNSSEC(m *dns.Msg) bool {
	opt := m.IsEdns0()
	return opt != nil && slices.ContainsFunc(opt.Option, func(o dns.EDNS0) bool {
		ede, ok := o.(*dns.EDNS0_EDE)
		if !ok {
			return false
		}
		switch c := ede.InfoCode; c {
		case dns.ExtendedErrorCodeUnsupportedDNSKEYAlgorithm, dns.ExtendedErrorCodeUnsupportedDSDigestType:
			return true
		default:
			return c >= dns.ExtendedErrorCodeDNSSECIndeterminate && c <= dns.ExtendedErrorCodeNSECMissing
		}
	})
}

// ValidationQuery is a question to a resolver; with unchecked it need not validate.
func ValidationQuery(name string, qtype uint16, unchecked bool) *dns.Msg {
	query := new(dns.Msg)
	query.SetQuestion(name, qtype)
	query.CheckingDisabled = unchecked
	query.SetEdns0(ask.UDPSize, true)
	return query
}

// SOAOf returns the SOA record in rrs that speaks for name.
func SOAOf(rrs []dns.RR, name string) *dns.SOA {
	for _, rr := range rrs {
		if soa, ok := rr.(*dns.SOA); ok && dns.IsSubDomain(soa.Hdr.Name, name) {
			return soa
		}
	}
	return nil
}

// CutOf returns the owner of the NS records in rrs that speak for name.
func CutOf(rrs []dns.RR, name string) string {
	for _, rr := range rrs {
		if ns, ok := rr.(*dns.NS); ok && dns.IsSubDomain(ns.Hdr.Name, name) {
			return dns.CanonicalName(ns.Hdr.Name)
		}
	}
	return ""
}

// GlueOf returns the addresses in rrs by host.
func GlueOf(rrs []dns.RR) map[string][]netip.Addr {
	glue := make(map[string][]netip.Addr)
	for _, rr := range rrs {
		if ip, ok := addrOf(rr); ok {
			host := dns.CanonicalName(rr.Header().Name)
			glue[host] = append(glue[host], ip)
		}
	}
	return glue
}

// addrOf returns the address in an A or AAAA record.
func addrOf(rr dns.RR) (ip netip.Addr, ok bool) {
	switch rr := rr.(type) {
	case *dns.A:
		ip, _ = netip.AddrFromSlice(rr.A)
	case *dns.AAAA:
		ip, _ = netip.AddrFromSlice(rr.AAAA)
	default:
		return ip, false
	}
	return ip.Unmap(), true
}

// IsBelow reports whether name is strictly below zone; both canonical.
func IsBelow(name, zone string) bool {
	return name != zone && dns.IsSubDomain(zone, name)
}

// NSRecords returns the hosts that rrs name for owner, and their TTL.
func NSRecords(rrs []dns.RR, owner string) ([]string, uint32) {
	var hosts []string
	ttl := uint32(maxZoneTTL / time.Second)
	for _, rr := range rrs {
		if ns, ok := rr.(*dns.NS); ok && dns.CanonicalName(ns.Hdr.Name) == owner {
			hosts = append(hosts, dns.CanonicalName(ns.Ns))
			ttl = min(ttl, ns.Hdr.Ttl)
		}
	}
	slices.Sort(hosts)
	hosts = slices.Compact(hosts)
	return sampled(hosts, min(len(hosts), maxZoneServer), time.Now()), ttl
}

func HasAlias(rrs []dns.RR) bool {
	return slices.ContainsFunc(rrs, func(rr dns.RR) bool {
		t := rr.Header().Rrtype
		return t == dns.TypeCNAME || t == dns.TypeDNAME
	})
}

// Display is a name as shown to a person: without the final dot.
func Display(name string) string {
	if name == "." {
		return name
	}
	return strings.TrimSuffix(name, ".")
}

// HostAbove is the parent of a name, unless that is a top-level domain: from there no zone is
// looked for.
func HostAbove(name string) string {
	if dns.CountLabel(name) <= 2 {
		return name
	}
	return Parent(name)
}

// Parent is name without its first label.
func Parent(name string) string {
	next, end := dns.NextLabel(name, 0)
	if end {
		return "."
	}
	return name[next:]
}

// DNSAddr is where the name server at ip listens.
func DNSAddr(ip netip.Addr) string { return net.JoinHostPort(ip.String(), "53") }
