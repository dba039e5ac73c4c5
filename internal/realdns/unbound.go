//go:build unix

package realdns

import (
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// Unbound starts a resolver as a CA has it: it asks the given servers for zones, picks any
// of them, and validates with the trust anchors, if there are any.
func Unbound(t testing.TB, stubs map[string][]*Server, anchors ...string) *Server {
	t.Helper()
	unbound := Program(t, "unbound", "unbound")
	s := newServer(t)
	var b strings.Builder
	modules := "iterator"
	if len(anchors) > 0 {
		modules = "validator iterator"
	}
	fmt.Fprintf(&b, `server:
	directory: %q
	chroot: ""
	username: ""
	pidfile: %q
	do-daemonize: no
	use-syslog: no
	logfile: ""
	interface: 127.0.0.1@%d
	port: %d
	access-control: 127.0.0.0/8 allow
	do-not-query-localhost: no
	do-ip6: no
	module-config: %q
	qname-minimisation: yes
	harden-glue: yes
	harden-dnssec-stripped: yes
	discard-timeout: 0
	num-threads: 1
	ede: yes
	val-log-level: 2
	local-zone: "test." nodefault
`, s.Dir, s.Dir+"/unbound.pid", s.Port, s.Port, modules)
	for _, a := range anchors {
		fmt.Fprintf(&b, "\ttrust-anchor: %q\n", a)
	}
	fmt.Fprintf(&b, "remote-control:\n\tcontrol-enable: yes\n\tcontrol-interface: %q\n\tcontrol-use-cert: no\n", s.Dir+"/control")
	first := ""
	for zone, servers := range stubs {
		fmt.Fprintf(&b, "stub-zone:\n\tname: %q\n\tstub-prime: no\n\tstub-no-cache: no\n", zone)
		for _, server := range servers {
			fmt.Fprintf(&b, "\tstub-addr: 127.0.0.1@%d\n", server.Port)
		}
		first = zone
	}
	s.start(first, unbound, "-d", "-c", s.Write("unbound.conf", b.String()))
	return s
}

// Fresh asks the resolver for TXT records after its cache was emptied, so often, and
// returns an error unless every answer has the value.
func (s *Server) Fresh(name, value string, times int) error {
	control := Program(s.t, "unbound-control", "unbound")
	for i := range times {
		s.Run("", control, "-c", s.Dir+"/unbound.conf", "flush_zone", "test")
		answer, err := s.Query(name, dns.TypeTXT)
		if err != nil {
			return err
		}
		found := false
		for _, rr := range answer.Answer {
			if txt, ok := rr.(*dns.TXT); ok && strings.Join(txt.Txt, "") == value {
				found = true
			}
		}
		if !found {
			return fmt.Errorf("look-up %d of %d: %s without the value", i+1, times, dns.RcodeToString[answer.Rcode])
		}
	}
	return nil
}
