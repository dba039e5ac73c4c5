package acmepersist_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
)

// Neither a file that cannot be read nor many records that cannot be removed keep what nobody wants any
// more from being removed.
func TestUnusedRecordsBesideStuckOnes(t *testing.T) {
	t.Parallel()
	for what, spoil := range map[string]func(n *tenants){
		"a damaged file": func(n *tenants) {
			files, err := filepath.Glob(filepath.Join(n.dir, "dns_persist", "*", "published", "*.json"))
			if err != nil || len(files) != 1 {
				t.Fatal(files, err)
			}
			if err := os.WriteFile(filepath.Join(filepath.Dir(files[0]), "damaged.json"), []byte("{"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"zones that are gone": func(n *tenants) {
			entries, err := n.Inventory().At(t.Context(), labelOf("left.example.test"))
			if err != nil || len(entries) != 1 {
				t.Fatal(entries, err)
			}
			for i := range 110 {
				e := entries[0]
				e.Name = fmt.Sprintf("_validation-persist.a%d.gone.invalid", i)
				if err := n.Inventory().Note(t.Context(), e); err != nil {
					t.Fatal(err)
				}
			}
		},
	} {
		n := newTenants(t, func(c *acmepersist.Config) { c.OnDemand, c.NoWait = true, true })
		n.alias("left.example.test", labelOf("left.example.test"))
		_ = n.issueFor(t.Context(), "left.example.test") // NoWait: it is seen to settle
		spoil(n)
		gone := func() bool { return len(n.answer(labelOf("left.example.test"), dns.TypeTXT)) == 0 }
		for range 20 {
			if err := n.RemoveUnused(t.Context(), 0, nil); (err != nil) != (what == "a damaged file") {
				t.Errorf("%s: %v", what, err)
			}
			if gone() {
				break
			}
		}
		if !gone() {
			t.Errorf("%s: the record of another name stays", what)
		}
	}
}
