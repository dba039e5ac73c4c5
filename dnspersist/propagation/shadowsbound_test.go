package propagation

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
)

// What a wildcard answers is its owner's to choose, and gets into messages and memory: bounded.
func TestShadowsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &hookNet{memNet: newMemNet(t)}
		var zone strings.Builder
		for i := range 12 {
			fmt.Fprintf(&zone, "*.home.example.test. 60 HTTPS %d . ech=%s\n", i+1, base64.StdEncoding.EncodeToString(make([]byte, 4000)))
		}
		wildcards(n, map[string]string{"192.0.2.1": zone.String(), "192.0.2.2": zone.String()})
		c := n.checker()
		r := c.Look(t.Context(), Target{Name: "_validation-persist.a.b.nas.home.example.test", Accept: accept})
		if r.Shadows == "" || len(r.Shadows) > 4<<10 {
			t.Errorf("%d octets: %.300s", len(r.Shadows), r.Shadows)
		}
	})
}
