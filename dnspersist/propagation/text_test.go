package propagation

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/ask"
)

// What servers and strangers' records say reaches terminals escaped, and in short.
func TestForeignTextIsQuoted(t *testing.T) {
	t.Parallel()
	const evil = "\x1b[2J\r\n    ns1.example.test: yes\x9b\u202e"
	for _, tt := range []struct {
		name, want string
		answer     func(m *dns.Msg)
	}{
		{"extended errors", `(0 Other: "\x1b[2J\r\n    ns1`, func(m *dns.Msg) {
			m.Rcode = dns.RcodeServerFailure
			m.SetEdns0(ask.UDPSize, false)
			for range 50 {
				m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_EDE{ExtraText: evil + strings.Repeat("x", 2000)})
			}
		}},
		{"wildcard", `TXT "\x1b[2J\r\n    ns1`, func(m *dns.Msg) {
			m.Authoritative = true
			for i := range 50 {
				m.Answer = append(m.Answer, &dns.TXT{
					Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60},
					Txt: []string{evil + fmt.Sprint(i) + strings.Repeat("x", 200)},
				})
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := &hookNet{memNet: newMemNet(t)}
				n.hook = func(_, addr string, q *dns.Msg) (*dns.Msg, error, bool) {
					m := new(dns.Msg).SetReply(q)
					tt.answer(m)
					return m, nil, addr != "192.0.2.53:53" && q.Question[0].Qtype == dns.TypeTXT
				}
				c := n.checker()
				rep := c.Check(t.Context(), target, c.NewGate())
				all := rep.Summary() + "|" + rep.Servers[0].Reason + "|" + rep.Servers[0].Rcode + "|" + rep.Wildcard
				for _, d := range rep.Diagnostics() {
					all += "|" + d.Text
					if len(d.Text) > 3000 {
						t.Errorf("%d octets: %s", len(d.Text), d.Text)
					}
				}
				if !strings.Contains(all, tt.want) {
					t.Errorf("%q lacks %s", all, tt.want)
				}
				if strings.ContainsFunc(all, func(r rune) bool { return r < ' ' || r > '~' }) {
					t.Errorf("raw: %q", all)
				}
			})
		})
	}
}

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
