package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/operator"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/parking"
)

// hostileTexts are what another issuer, a CA, a DNS server or a DNS provider may have put into an error.
var hostileTexts = []string{
	"HTTP 403: \x1b[31mred\n" + strings.Repeat("x", 200_000), "\x1b]0;title\x07\r\nok", "\u202etxet desrever", "\x00\xff\xfe", strings.Repeat("\n\x1b", 100_000),
	errors.Join(errors.New("one"), errors.New("two\x9b")).Error(),
}

// isHarmless reports whether a text neither controls a terminal nor fills it; lines may end where they are allowed to.
func isHarmless(text string, lines bool) bool {
	return len(text) < 6000 && strings.IndexFunc(text, func(r rune) bool { return r == unicode.ReplacementChar || !unicode.IsPrint(r) && (!lines || r != '\n') }) < 0
}

// where somebody reads where a name is, and what to do, nothing of what others have put into an error is more than text.
func TestHostileTextsAreTextInStatus(t *testing.T) {
	for _, text := range hostileTexts {
		err := errors.New(text)
		registry := oneStatus{
			{Domain: "failed.test", Phase: parking.PhaseFailed, IsCertMagics: true, Err: err},
			{
				Domain: "held.test", CA: "https://ca.test/dir", Phase: parking.PhaseHeld, Reason: acmepersist.ReasonRejected, Err: err, Since: time.Now(),
				Record: acmepersist.Record{Name: "_validation-persist.held.test", Value: "ca.test; accounturi=https://ca.test/1"},
			},
		}
		reply, namesErr := (&operator.Operator{Registry: registry}).Names(t.Context(), operator.NamesQuery{})
		if namesErr != nil || len(reply.Names) != len(registry) {
			t.Fatal(reply, namesErr)
		}
		for _, n := range reply.Names {
			for _, text := range []string{n.Why, n.Do, n.Next} {
				if text == "" && n.Domain == "held.test" || !isHarmless(text, false) {
					t.Errorf("%s has %.200q (%d octets)", n.Domain, text, len(text))
				}
			}
		}
		if data, err := json.Marshal(reply.Names); err != nil || len(data) > 20_000 {
			t.Errorf("the answer has %d octets, %v", len(data), err)
		}
		// a Caddy that is not ours may answer as well
		for i := range reply.Names {
			n := &reply.Names[i]
			n.Why, n.Do, n.Next, n.Code, n.Domain, n.DNS = text, text, text, text, text, text
			n.Answer = &acmepersist.Answer{At: time.Now(), Text: text + "!"}
			n.Published = []acmepersist.ValueVerdict{{Value: text, Reason: text}}
		}
		var out bytes.Buffer
		s := &statuses{run: &run{cmd: new(cobra.Command), out: &out, err: &out}}
		for _, n := range reply.Names {
			s.story(n)
			for line := range strings.Lines(out.String()) {
				if line = strings.TrimSuffix(line, "\n"); !isHarmless(line, false) {
					t.Errorf("shown is %.200q (%d octets)", line, len(line))
				}
			}
			for _, w := range s.lines(reply) {
				if !isHarmless(w.text, false) {
					t.Errorf("a change is shown as %.200q (%d octets)", w.text, len(w.text))
				}
			}
		}
	}
}

// oneStatus is a registry of these.
type oneStatus []parking.Status

func (s oneStatus) Snapshot() []parking.Status { return s }
func (oneStatus) Of(string) []parking.Status   { return nil }
func (oneStatus) Poke([]string) int            { return 0 }
