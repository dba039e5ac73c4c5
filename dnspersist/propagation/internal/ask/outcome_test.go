package ask

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/miekg/dns"
)

// answering is an Exchanger that answers with a code, or fails.
type answering struct {
	rcode int
	err   error
	hook  func()
}

func (a *answering) Exchange(_ context.Context, _, _ string, query *dns.Msg) (*dns.Msg, error) {
	if a.hook != nil {
		a.hook()
	}
	if a.err != nil {
		return nil, a.err
	}
	return new(dns.Msg).SetRcode(query, a.rcode), nil
}

// A question is counted once, however often it was sent, by how it has ended.
func TestOutcomes(t *testing.T) {
	spent := new(Account)
	_ = spent.End("enough")
	cut, cancel := context.WithCancel(t.Context())
	for name, c := range map[string]struct {
		ctx  context.Context
		with answering
		want Outcome
	}{
		"an answer":                  {t.Context(), answering{rcode: dns.RcodeSuccess}, OutcomeAnswered},
		"no such name":               {t.Context(), answering{rcode: dns.RcodeNameError}, OutcomeAnswered},
		"a server's error":           {t.Context(), answering{rcode: dns.RcodeServerFailure}, OutcomeFailed},
		"no EDNS":                    {t.Context(), answering{rcode: dns.RcodeFormatError}, OutcomeFailed},
		"something else":             {t.Context(), answering{err: ErrBadReply}, OutcomeUnusable},
		"silence":                    {t.Context(), answering{err: errors.New("timed out")}, OutcomeSilent},
		"nothing, as it is too much": {spent.ChargeTo(t.Context()), answering{}, OutcomeNotAsked},
		"nothing any more":           {cut, answering{err: errors.New("closed"), hook: cancel}, OutcomeAbandoned},
	} {
		a := NewAsker(&c.with)
		var got []Outcome
		a.Asked = func(o Outcome) { got = append(got, o) }
		_, _ = a.Ask(c.ctx, "192.0.2.1:53", "example.test.", dns.TypeTXT, false)
		if !slices.Equal(got, []Outcome{c.want}) {
			t.Errorf("%s is counted as %v, want %v", name, got, c.want)
		}
	}
	cancel()
}
