//go:build unix

package realdns

import (
	"fmt"
	"strings"
	"testing"
)

// Zone is a zone of an authoritative server.
type Zone struct {
	// Origin is its name without a final dot.
	Origin string
	// Text is its content in master file format, without the SOA record.
	Text string
	// Primary is from where it is transferred, if it is; then it has no Text.
	Primary *Server
	// Notify is who is told of changes.
	Notify *Server
	// SOA are refresh, retry, expire and minimum. Default: "3600 600 86400 5".
	SOA string
	// Signed has Knot sign it.
	Signed bool
	// Policy is the update policy of BIND for the key Key, or the ACL's owner names of Knot.
	// Default: everything may be updated.
	Policy string
}

// Key is the TSIG key that may update zones.
const (
	Key       = "updater"
	KeySecret = "c2VjcmV0IGZvciB0aGUgdGVzdHMgb2YgdGhpcyBwbHVn"
)

// file is the zone in master file format.
func (z Zone) file() string {
	soa := z.SOA
	if soa == "" {
		soa = "3600 600 86400 5"
	}
	return fmt.Sprintf("$ORIGIN %s.\n$TTL 60\n@ IN SOA ns1.%s. hostmaster.%s. 1 %s\n%s", z.Origin, z.Origin, z.Origin, soa, z.Text)
}

// BIND starts a BIND 9 with zones.
func BIND(t testing.TB, zones ...Zone) *Server {
	t.Helper()
	named := Program(t, "named", "bind9")
	s := newServer(t)
	var b strings.Builder
	fmt.Fprintf(&b, `options {
	directory %q; pid-file %q; session-keyfile %q; managed-keys-directory %q;
	listen-on port %d { 127.0.0.1; }; listen-on-v6 { none; };
	recursion no; dnssec-validation no; empty-zones-enable no; notify no; allow-transfer { ! key %[6]q; any; };
	max-refresh-time 86400; min-refresh-time 1; min-retry-time 1; transfer-source 127.0.0.1; minimal-responses yes;
	serial-query-rate 100; startup-notify-rate 100; notify-rate 100; notify-delay 0;
};
controls { };
key %[6]q { algorithm hmac-sha256; secret %[7]q; };
`, s.Dir, s.Dir+"/named.pid", s.Dir+"/session.key", s.Dir, s.Port, Key, KeySecret)
	for _, z := range zones {
		if z.Primary != nil {
			fmt.Fprintf(&b, "zone %q { type secondary; primaries { 127.0.0.1 port %d; }; file %q; masterfile-format text; allow-notify { any; }; };\n",
				z.Origin, z.Primary.Port, z.Origin+".copy")
			continue
		}
		s.Write(z.Origin+".zone", z.file())
		notify := ""
		if z.Notify != nil {
			notify = fmt.Sprintf("notify explicit; also-notify { 127.0.0.1 port %d; };", z.Notify.Port)
		}
		policy := "allow-update { key " + Key + "; };"
		if z.Policy != "" {
			policy = "update-policy { " + z.Policy + " };"
		}
		fmt.Fprintf(&b, "zone %q { type primary; file %q; %s %s };\n", z.Origin, z.Origin+".zone", notify, policy)
	}
	s.start(zones[0].Origin, named, "-g", "-c", s.Write("named.conf", b.String()))
	s.loaded(zones)
	return s
}

// Update sends dynamic updates, each a line such as "add name. 60 TXT x", for a zone.
func (s *Server) Update(zone string, lines ...string) {
	s.t.Helper()
	nsupdate := Program(s.t, "nsupdate", "bind9-dnsutils")
	key := s.Write("update.key", fmt.Sprintf("key %q { algorithm hmac-sha256; secret %q; };\n", Key, KeySecret))
	script := fmt.Sprintf("server 127.0.0.1 %d\nzone %s\n", s.Port, zone)
	for _, l := range lines {
		script += "update " + l + "\n"
	}
	s.Run(script+"send\n", nsupdate, "-k", key)
}
