package propagation

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/ask"
)

// A resolver that validates fails once, as one does whose patience ends at a slow server, for
// each name and type; always; or once with a word on DNSSEC.
func TestScenario47PassingServfail(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name          string
		mode          Mode
		always, blame bool
		want          bool // dnssec_bogus
	}{
		{"once", ModeAuthoritative, false, false, false},
		{"always", ModeAuthoritative, true, false, true},
		{"blames DNSSEC", ModeAuthoritative, false, true, true},
		{"recursive, once", ModeRecursive, false, false, false},
		{"recursive, always", ModeRecursive, true, false, true},
		{"recursive, blames DNSSEC", ModeRecursive, false, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := &hookNet{memNet: newMemNet(t)}
				n.publish(t, "192.0.2.1")
				n.publish(t, "192.0.2.2")
				n.servers["192.0.2.53:53"].load(t, withRecord+"example.test. DS 1 13 2 "+strings.Repeat("00", 32)+"\n")
				failed := make(map[dns.Question]bool)
				n.hook = func(_, addr string, q *dns.Msg) (*dns.Msg, error, bool) {
					n.mu.Lock()
					defer n.mu.Unlock()
					question := q.Question[0]
					if addr != "192.0.2.53:53" || q.CheckingDisabled || (failed[question] && !tt.always) {
						return nil, nil, false
					}
					failed[question] = true
					m := new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
					if tt.blame {
						m.SetEdns0(ask.UDPSize, true)
						m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeSignatureExpired}}
					}
					return m, nil, true
				}
				c := NewChecker(Config{Mode: tt.mode, Resolvers: []string{"192.0.2.53"}, Exchanger: n})
				rep := c.Check(t.Context(), target, c.NewGate())
				if bogus := slices.Contains(rep.Codes(), CodeBogus); bogus != tt.want || (rep.Status == StatusReady) == tt.want {
					t.Errorf("%s %v", rep.Summary(), rep.Codes())
				}
			})
		})
	}
}
