//go:build unix

package realdns

import (
	"fmt"
	"strings"
	"testing"
)

// Knot starts a Knot DNS with zones.
func Knot(t testing.TB, zones ...Zone) *Server {
	t.Helper()
	knotd := Program(t, "knotd", "knot")
	s := newServer(t)
	var remotes, acls, list strings.Builder
	for i, z := range zones {
		fmt.Fprintf(&list, "  - domain: %s\n    file: %q\n    storage: %q\n    zonefile-sync: -1\n", z.Origin, z.Origin+".zone", s.Dir)
		acl := "updates"
		if z.Policy != "" {
			acl = fmt.Sprintf("updates%d", i)
			fmt.Fprintf(&acls, "  - id: %s\n    key: %s\n    action: update\n    update-type: TXT\n    update-owner: name\n    update-owner-match: equal\n    update-owner-name: [%s]\n", acl, Key, z.Policy)
		}
		switch {
		case z.Primary != nil:
			fmt.Fprintf(&remotes, "  - id: primary%d\n    address: 127.0.0.1@%d\n", i, z.Primary.Port)
			fmt.Fprintf(&list, "    master: primary%d\n    acl: [notified, transfers]\n    refresh-min-interval: 2\n", i)
		default:
			s.Write(z.Origin+".zone", z.file())
			fmt.Fprintf(&list, "    acl: [%s, transfers]\n", acl)
		}
		if z.Notify != nil {
			fmt.Fprintf(&remotes, "  - id: notify%d\n    address: 127.0.0.1@%d\n", i, z.Notify.Port)
			fmt.Fprintf(&list, "    notify: notify%d\n", i)
		}
		if z.Signed {
			list.WriteString("    dnssec-signing: on\n    dnssec-policy: test\n")
		}
	}
	remote := ""
	if remotes.Len() > 0 {
		remote = "remote:\n" + remotes.String()
	}
	config := fmt.Sprintf(`server:
    rundir: %q
    listen: 127.0.0.1@%d
    udp-workers: 1
    tcp-workers: 1
    background-workers: 2
log:
  - target: stderr
    any: info
database:
    storage: %q
key:
  - id: %s
    algorithm: hmac-sha256
    secret: %s
%sacl:
  - id: updates
    key: %s
    action: update
  - id: transfers
    address: 127.0.0.0/8
    action: transfer
  - id: notified
    address: 127.0.0.0/8
    action: notify
%spolicy:
  - id: test
    algorithm: ecdsap256sha256
zone:
%s`, s.Dir, s.Port, s.Dir, Key, KeySecret, remote, Key, acls.String(), list.String())
	s.start(zones[0].Origin, knotd, "-c", s.Write("knot.conf", config))
	s.loaded(zones)
	return s
}

// Control runs knotc.
func (s *Server) Control(args ...string) string {
	s.t.Helper()
	return s.Run("", Program(s.t, "knotc", "knot"), append([]string{"-c", s.Dir + "/knot.conf"}, args...)...)
}
