package site

import (
	"strings"
	"testing"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// Whatever a CNAME says, a record goes directly below the zone, to a label that could stand in a zone
// file as it is and is not worked out from another name.
func FuzzCovers(f *testing.F) {
	const zone = "certs.example.net"
	for _, label := range []string{
		"customer-1", record.DelegationLabel("shop.example"), record.DelegationLabel("other.example"), "_dmarc", "a.b", "*", "", "A", "a b", "ä", `a\.b`, "x;y", "-", "xn--",
		strings.Repeat("a", 63), strings.Repeat("a", 64), "a\n", "127", " a",
	} {
		f.Add(label + "." + zone)
	}
	f.Add(zone)
	d := &Delegation{Zone: zone, OwnLabels: true}
	own := d.Target("shop.example")
	f.Fuzz(func(t *testing.T, target string) {
		if d.covers("shop.example")(target) != d.covers("*.shop.example")(target) {
			t.Errorf("%q is covered for the name or its wildcard alone", target)
		}
		if !d.covers("shop.example")(target) || target == own {
			return
		}
		label, ok := strings.CutSuffix(target, "."+zone)
		if !ok || label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" || label[0] == '_' || record.IsDelegationLabel(label) {
			t.Errorf("%q is covered", target)
		}
	})
}
