package state

import (
	"fmt"
	"testing"

	"github.com/caddyserver/certmagic"
)

// What is remembered of a target only grows, and stays small.
func TestTargetOnlyGrows(t *testing.T) {
	st := New(&certmagic.FileStorage{Path: t.TempDir()}, "https://ca.example/directory")
	const target = "shared.certs.example.net"
	join := func(domain string, wildcard bool) Target {
		t.Helper()
		shared, err := st.JoinTarget(t.Context(), target, domain, wildcard)
		if err != nil {
			t.Fatal(err)
		}
		return shared
	}
	if s := join("shop.example", false); s.IsShared("shop.example") || s.Wildcard || !s.IsShared("www.shop.example") || s.IsShared("b.example") {
		t.Errorf("one domain: %+v", s)
	}
	if s := join("b.example", true); s.IsShared("shop.example") || s.Wildcard || len(s.Domains) != 2 || !s.IsStranger("b.example") {
		t.Errorf("a stranger has widened it: %+v", s)
	}
	if s := join("www.shop.example", true); !s.IsShared("shop.example") || !s.Wildcard || s.IsStranger("www.shop.example") {
		t.Errorf("two domains of one owner: %+v", s)
	}
	if s := join("shop.example", false); !s.Wildcard || len(s.Domains) != 3 {
		t.Errorf("it has shrunk: %+v", s)
	}
	for i := range mostDomains + 10 {
		join(fmt.Sprintf("d%d.example", i), false)
	}
	if s := join("late.example", true); len(s.Domains) != mostDomains || !s.More || !s.IsShared("shop.example") {
		t.Errorf("%d domains, more: %v", len(s.Domains), s.More)
	}
}
