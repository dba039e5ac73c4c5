package ask

import (
	"fmt"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
)

// Bounds of what a server adds to a failure.
const (
	maxErrors    = 3   // extended errors of one answer
	maxErrorText = 100 // octets of the text of one
)

// RcodeText is the rcode's name, with what the server adds to it (extended
// DNS errors, RFC 8914).
func RcodeText(m *dns.Msg) string {
	text, ok := dns.RcodeToString[m.Rcode]
	if !ok {
		text = fmt.Sprintf("RCODE%d", m.Rcode)
	}
	opt := m.IsEdns0()
	if opt == nil {
		return text
	}
	shown := 0
	for _, o := range opt.Option {
		ede, ok := o.(*dns.EDNS0_EDE)
		if !ok {
			continue
		}
		if shown++; shown > maxErrors {
			break
		}
		text += fmt.Sprintf(" (%d", ede.InfoCode)
		if name, ok := dns.ExtendedErrorCodeToString[ede.InfoCode]; ok {
			text += " " + name
		}
		if ede.ExtraText != "" {
			text += ": " + foreign.Quote(ede.ExtraText, maxErrorText)
		}
		text += ")"
	}
	return text
}
