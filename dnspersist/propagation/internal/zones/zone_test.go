package zones

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/ask"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/lru"
)

// Thirty-two addresses are enough, and no host is left out for the second
// address of another.
func TestServersLimit(t *testing.T) {
	t.Parallel()
	z := &Zone{Name: "example.test."}
	for i := range 20 {
		h := nsHost{name: fmt.Sprintf("ns%02d.", i)}
		for j := range 3 {
			h.addrs = append(h.addrs, netip.MustParseAddr(fmt.Sprintf("192.0.%d.%d", j, i+1)))
		}
		z.hosts = append(z.hosts, h)
	}
	servers := z.Servers()
	hosts := make(map[string]bool)
	for _, s := range servers {
		hosts[s.Host] = true
	}
	if len(servers) != 32 || len(hosts) != 20 {
		t.Errorf("%d servers of %d hosts", len(servers), len(hosts))
	}
}

// A host may have thousands of addresses: those that are asked are kept, of each family.
func TestServersOfHugeHost(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ four, six, wantFour, wantSix int }{
		{32, 0, 32, 0},
		{1500, 0, 32, 0},
		{0, 1500, 0, 32},
		{700, 700, 16, 16},
		{700, 3, 29, 3},
		{3, 700, 3, 29},
	} {
		var addrs []netip.Addr
		for i := range tt.four {
			addrs = append(addrs, netip.MustParseAddr(fmt.Sprintf("198.17.%d.%d", i/250, i%250+1)))
		}
		for i := range tt.six {
			addrs = append(addrs, netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i+1)))
		}
		h := nsHost{}
		h.addrs, h.more = bounded(addrs)
		four, six := 0, 0
		for _, a := range h.addrs {
			if a.Is4() {
				four++
			} else {
				six++
			}
		}
		z := Zone{hosts: []nsHost{h}}
		if four != tt.wantFour || six != tt.wantSix || z.Dropped() != tt.four+tt.six-maxZoneServer {
			t.Errorf("%d and %d addresses: kept %d and %d, dropped %d", tt.four, tt.six, four, six, z.Dropped())
		}
	}
}

// nobody denies every name.
type nobody struct{ asked atomic.Int32 }

func (n *nobody) Exchange(_ context.Context, _, _ string, query *dns.Msg) (*dns.Msg, error) {
	n.asked.Add(1)
	return new(dns.Msg).SetRcode(query, dns.RcodeNameError), nil
}

// After four hosts without an address no further one is looked up.
func TestHostsLookedUp(t *testing.T) {
	t.Parallel()
	n := new(nobody)
	a := ask.NewAsker(n)
	d := &Finder{asker: a, Resolvers: newResolvers(a, []string{"192.0.2.53"}), cache: lru.New[cacheKey, known](3)}
	var hosts []string
	for i := range 20 {
		hosts = append(hosts, fmt.Sprintf("n%02d.void.test.", i))
	}
	z := &Zone{Name: "x.test."}
	d.addHosts(t.Context(), z, hosts, nil, "")
	// when the fourth has failed, some are being looked up still
	if asked := int(n.asked.Load()); asked != 2*len(z.hosts) || len(z.hosts) >= 2*maxUnnamed || len(z.hosts)+z.Dropped() != len(hosts) {
		t.Errorf("%d questions, %d hosts, %d left out", asked, len(z.hosts), z.Dropped())
	}
}

// Of very many hosts those of the day are looked up.
func TestHostsAreSampled(t *testing.T) {
	t.Parallel()
	hosts := strings.Fields("a b c d e f g h i j k l m n o p q r s t u v w x y z")
	day := time.Date(2026, 11, 30, 1, 0, 0, 0, time.UTC)
	seen := make(map[string]bool)
	for i := range 20 {
		today := sampled(hosts, maxZoneHosts, day.AddDate(0, 0, i))
		if !slices.Equal(today, sampled(hosts, maxZoneHosts, day.AddDate(0, 0, i).Add(20*time.Hour))) {
			t.Error("another sample on the same day")
		}
		for _, h := range today {
			seen[h] = true
		}
	}
	if len(seen) != len(hosts) {
		t.Errorf("in twenty days %d of %d hosts were looked up", len(seen), len(hosts))
	}
}
