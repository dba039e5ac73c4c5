package propagation

import (
	"strings"
	"testing"
)

// The shapes that the way to the record can have.
func TestLookWays(t *testing.T) {
	t.Parallel()
	const delegatedLabel = "_validation-persist.www.example.test. NS nsd.other.test.\n"
	const txt = `TXT "` + wantedValue + "\"\n"
	const childZone = "_validation-persist.www.example.test. SOA nsd.other.test. h.other.test. 3 1 1 1 60\n" +
		"_validation-persist.www.example.test. NS nsd.other.test.\n"
	const subSOA = "www.example.test. SOA ns1.example.test. h.example.test. 5 1 1 1 60\n" +
		"www.example.test. NS ns1.example.test.\nwww.example.test. NS nsd.other.test.\n"
	const alias = "_validation-persist.www.example.test. CNAME v.target.test.\n"
	const targetZone = "target.test. SOA ns.target.test. h.target.test. 9 1 1 1 60\n" +
		"target.test. NS ns.target.test.\nns.target.test. A 192.0.2.31\n"

	tests := []struct {
		name  string
		setup func(t *testing.T, w *world)
		want  string
	}{
		{"validation label delegated", func(t *testing.T, w *world) {
			w.ns1.load(t, without+delegatedLabel)
			w.ns2.load(t, without+delegatedLabel)
			w.serve("192.0.2.21", childZone+validationName+". "+txt)
			w.resolver.load(t, otherZone+"nsd.other.test. A 192.0.2.21\n")
		}, "nsd.other.test 192.0.2.21=yes"},
		{"delegated by servers that recurse for us", func(t *testing.T, w *world) {
			for _, s := range []*testServer{w.ns1, w.ns2} {
				s.load(t, without+delegatedLabel)
				s.set("recurses-too")
			}
			w.serve("192.0.2.21", childZone+validationName+". "+txt)
			w.resolver.load(t, otherZone+"nsd.other.test. A 192.0.2.21\n")
		}, "nsd.other.test 192.0.2.21=yes"},
		{"delegated and intercepted", func(t *testing.T, w *world) {
			for _, s := range []*testServer{w.ns1, w.ns2, w.serve("192.0.2.21", childZone+validationName+". "+txt)} {
				s.load(t, without+delegatedLabel)
				s.set("resolver")
			}
			w.resolver.load(t, otherZone+"nsd.other.test. A 192.0.2.21\n")
		}, "nsd.other.test 192.0.2.21=broken"},
		{"delegated on one server only", func(t *testing.T, w *world) {
			w.ns1.load(t, without+delegatedLabel)
			w.serve("192.0.2.21", childZone+validationName+". "+txt)
			w.resolver.load(t, otherZone+"nsd.other.test. A 192.0.2.21\n")
		}, "ns2.other.test 192.0.2.2=no\nnsd.other.test 192.0.2.21=yes"},
		{"child lists a server more than the parent", func(t *testing.T, w *world) {
			w.ns1.load(t, without+delegatedLabel)
			w.ns2.load(t, without+delegatedLabel)
			w.serve("192.0.2.21", childZone+"_validation-persist.www.example.test. NS nse.other.test.\n"+validationName+". "+txt)
			w.serve("192.0.2.22", childZone)
			w.resolver.load(t, otherZone+"nsd.other.test. A 192.0.2.21\nnse.other.test. A 192.0.2.22\n")
		}, "nsd.other.test 192.0.2.21=yes\nnse.other.test 192.0.2.22=no"},
		{"cut hidden in a server of both zones", func(t *testing.T, w *world) {
			// The resolver does not show the cut, and both servers of the
			// upper zone serve the lower one too, which has one more.
			for _, s := range []*testServer{w.ns1, w.ns2} {
				s.load(t, subSOA+validationName+". "+txt)
			}
			w.serve("192.0.2.21", subSOA)
			w.resolver.load(t, otherZone+"nsd.other.test. A 192.0.2.21\n")
		}, "ns1.example.test 192.0.2.1=yes\nnsd.other.test 192.0.2.21=no"},
		{"cut hidden in negative answers", func(t *testing.T, w *world) {
			for _, s := range []*testServer{w.ns1, w.ns2} {
				s.load(t, subSOA)
			}
			w.serve("192.0.2.21", subSOA+validationName+". "+txt)
			w.resolver.load(t, otherZone+"nsd.other.test. A 192.0.2.21\n")
		}, "ns1.example.test 192.0.2.1=no\nnsd.other.test 192.0.2.21=yes"},
		{"alias to another zone", func(t *testing.T, w *world) {
			w.ns1.load(t, without+alias)
			w.ns2.load(t, without+alias)
			w.serve("192.0.2.31", targetZone+"v.target.test. "+txt)
			w.resolver.load(t, targetZone)
		}, "ns.target.test 192.0.2.31=yes\nns1.example.test 192.0.2.1=yes\nns2.other.test 192.0.2.2=yes"},
		{"alias on one server only", func(t *testing.T, w *world) {
			w.ns1.load(t, without+alias)
			w.serve("192.0.2.31", targetZone+"v.target.test. "+txt)
			w.resolver.load(t, targetZone)
		}, "ns.target.test 192.0.2.31=yes\nns1.example.test 192.0.2.1=yes\nns2.other.test 192.0.2.2=no"},
		{"alias to nothing", func(t *testing.T, w *world) {
			w.ns1.load(t, without+alias)
			w.ns2.load(t, without+alias)
			w.serve("192.0.2.31", targetZone)
			w.resolver.load(t, targetZone)
		}, "ns.target.test 192.0.2.31=no\nns1.example.test 192.0.2.1=yes\nns2.other.test 192.0.2.2=yes"},
		{"alias loop", func(t *testing.T, w *world) {
			loop := without + "_validation-persist.www.example.test. CNAME a.example.test.\na.example.test. CNAME _validation-persist.www.EXAMPLE.test.\n"
			w.ns1.load(t, loop)
			w.ns2.load(t, loop)
		}, "ns1.example.test 192.0.2.1=yes\nns1.example.test 192.0.2.1=yes\nns2.other.test 192.0.2.2=yes\nns2.other.test 192.0.2.2=yes\n" +
			"error: CNAME loop: _validation-persist.www.example.test → a.example.test → _validation-persist.www.example.test; remove the CNAME"},
		{"SOA records made up", func(t *testing.T, w *world) {
			w.ns1.set("odd-soa")
			w.ns2.set("odd-soa")
		}, "ns1.example.test 192.0.2.1=no\nns2.other.test 192.0.2.2=no"},
		{"host is an alias into another zone", func(t *testing.T, w *world) {
			w.ns1.load(t, withRecord)
			w.ns2.load(t, withRecord)
			w.resolver.load(t, soaRecord+"example.test. NS ns1.example.test.\nns1.example.test. A 192.0.2.1\nwww.example.test. CNAME cdn.target.test.\n")
			w.resolver.load(t, targetZone)
		}, "ns1.example.test 192.0.2.1=yes"},
		{"IPv6 dead", func(t *testing.T, w *world) {
			w.ns1.load(t, withRecord)
			w.ns2.load(t, withRecord)
			w.resolver.load(t, otherZone+"ns2.other.test. AAAA 2001:db8::2\n")
		}, "ns1.example.test 192.0.2.1=yes\nns2.other.test 192.0.2.2=yes\nns2.other.test [2001:db8::2]=silent"},
		{"IPv6 stale", func(t *testing.T, w *world) {
			w.ns1.load(t, withRecord)
			w.ns2.load(t, withRecord)
			w.serve("2001:db8::2", without)
			w.resolver.load(t, otherZone+"ns2.other.test. AAAA 2001:db8::2\n")
		}, "ns1.example.test 192.0.2.1=yes\nns2.other.test 192.0.2.2=yes\nns2.other.test [2001:db8::2]=no"},
		{"private, unspecified and multicast addresses", func(t *testing.T, w *world) {
			w.ns1.load(t, withRecord)
			w.resolver.load(t, strings.Replace(otherZone, "192.0.2.2\n", "10.0.0.2\nns2.other.test. A 0.0.0.0\nns2.other.test. AAAA ff02::1\nns2.other.test. AAAA ::ffff:127.0.0.1\n", 1))
			w.serve("10.0.0.2", withRecord)
			w.serve("127.0.0.1", withRecord)
		}, "ns1.example.test 192.0.2.1=yes\nns2.other.test 10.0.0.2=broken\nns2.other.test 127.0.0.1=broken"},
		{"host without address", func(t *testing.T, w *world) {
			w.ns1.load(t, withRecord)
			w.resolver.load(t, strings.Replace(otherZone, "ns2.other.test. A 192.0.2.2\n", "", 1))
		}, "ns1.example.test 192.0.2.1=yes\nns2.other.test =broken"},
		{"no such top-level domain", func(t *testing.T, w *world) {
			w.resolver.mu.Lock()
			defer w.resolver.mu.Unlock()
			clear(w.resolver.zones)
		}, "error: no SOA found for www.example.test from 192.0.2.53:53: NXDOMAIN for www.example.test: its top-level domain does not exist there; check the name, or set resolvers that know it"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, without, without)
			tt.setup(t, w)
			c := w.checker()
			for range 2 { // the second from the cache
				r := c.Look(t.Context(), target)
				if got := verdicts(r); got != tt.want {
					t.Errorf("got\n%s\nwant\n%s", got, tt.want)
				}
			}
			if n := w.asked("192.0.2.53:53", "_validation-persist"); n != 0 {
				t.Errorf("a resolver was asked for the validation name %d times", n)
			}
		})
	}
}
