package ask

import (
	"errors"
	"fmt"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
)

// Code is a stable word for what was found, for programs and alerts.
type Code string

// CodeTCPBlocked is that of answers that are cut over UDP and not to be had over TCP.
const CodeTCPBlocked Code = "tcp_blocked"

// codedError is an error with a code.
type codedError struct {
	code Code
	err  error
}

func (e *codedError) Error() string { return e.err.Error() }

func (e *codedError) Unwrap() error { return e.err }

// Coded gives err a code, unless it has one, which then is more exact.
func Coded(code Code, err error) error {
	if CodeOf(err) != "" {
		return err
	}
	return &codedError{code, err}
}

// CodeOf returns the code of an error, empty if it has none.
func CodeOf(err error) Code {
	var c *codedError
	if errors.As(err, &c) {
		return c.code
	}
	return ""
}

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
