//go:build unix

package realdns

import (
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// bindAt is BIND on a port that was picked before.
func bindAt(t *testing.T, port int, zones ...Zone) *Server {
	t.Helper()
	fixedPort = port
	defer func() { fixedPort = 0 }()
	return BIND(t, zones...)
}

// refresh tells a BIND that the zone of its primary has changed.
func (s *Server) refresh(zone string, primary *Server) {
	s.t.Helper()
	Eventually(s.t, "the transfer", func() error {
		m := new(dns.Msg).SetNotify(dns.Fqdn(zone))
		if _, err := dns.Exchange(m, s.Addr()); err != nil {
			return err
		}
		a, errA := s.Query(zone, dns.TypeSOA)
		b, errB := primary.Query(zone, dns.TypeSOA)
		if errA != nil || errB != nil || len(a.Answer) == 0 || len(b.Answer) == 0 {
			return fmt.Errorf("%w, %w", errA, errB)
		}
		if x, y := a.Answer[0].(*dns.SOA).Serial, b.Answer[0].(*dns.SOA).Serial; x != y {
			return fmt.Errorf("serial %d, not %d", x, y)
		}
		return nil
	})
}

// dsOf waits until Knot has signed the zone, and returns its DS record.
func dsOf(t *testing.T, s *Server) string {
	t.Helper()
	keymgr := Program(t, "keymgr", "knot")
	var ds string
	Eventually(t, "the keys of the zone", func() error {
		out := s.Run("", keymgr, "-c", s.Dir+"/knot.conf", example, "ds")
		for _, line := range strings.Split(out, "\n") {
			if f := strings.Fields(line); len(f) == 6 && f[4] == "2" {
				ds = fmt.Sprintf("%s DS %s %s %s %s", f[0], f[2], f[3], f[4], f[5])
				return nil
			}
		}
		return fmt.Errorf("no DS record in %q", out)
	})
	return ds
}

// breakDS changes the digest.
func breakDS(ds string) string {
	last := ds[len(ds)-1]
	other := byte('0')
	if last == '0' {
		other = '1'
	}
	return ds[:len(ds)-1] + string(other)
}
