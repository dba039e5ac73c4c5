// Package ask asks one name server or resolver one question, and gets an answer wherever there is
// one to get: over UDP and TCP, with EDNS and without.
//
// It remembers what it met, so that a dead server does not cost its time-outs at every look; keeps
// the questions of a process under a pace; and charges them to the [Account] of a look, for whoever
// controls a zone chooses how many it takes.
package ask

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"time"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
)

// udpTries is how often a question is sent over UDP before TCP is tried.
const udpTries = 2

// Answer is a reply together with how it came.
type Answer struct {
	*dns.Msg
	Network string
	RTT     time.Duration
	NoEDNS  bool // the server does not answer questions with EDNS (RFC 6891)
}

// Asker sends questions and deals with what transports do to them.
type Asker struct {
	Exchanger Exchanger
	Memory    *Memory
	// Asked is called with how each question has ended; may be nil.
	Asked func(Outcome)
}

// Outcome is how a question has ended, retransmissions and further transports included.
type Outcome int

// Outcomes of a question.
const (
	// OutcomeAnswered: the answer came, be it that there is no such name.
	OutcomeAnswered Outcome = iota
	// OutcomeFailed: the server has answered with an error of its own, such as SERVFAIL or REFUSED.
	OutcomeFailed
	// OutcomeUnusable: something came that is not an answer to the question, or was cut.
	OutcomeUnusable
	// OutcomeSilent: no answer came.
	OutcomeSilent
	// OutcomeNotAsked: it was not sent, as so much is asked at present or of one look.
	OutcomeNotAsked
	// OutcomeAbandoned: whoever has asked did not wait for the answer.
	OutcomeAbandoned
)

// outcomeOf is how a question has ended.
func outcomeOf(ctx context.Context, ans Answer, err error) Outcome {
	switch {
	case err == nil && (ans.Rcode == dns.RcodeSuccess || ans.Rcode == dns.RcodeNameError):
		return OutcomeAnswered
	case err == nil:
		return OutcomeFailed
	case errors.Is(err, ErrNotAsked):
		return OutcomeNotAsked
	case errors.Is(ctx.Err(), context.Canceled):
		return OutcomeAbandoned
	case errors.Is(err, ErrBadReply):
		return OutcomeUnusable
	}
	return OutcomeSilent
}

// comparable is an Exchanger that can be the key of a map.
type comparable struct{ Exchanger }

// NewAsker returns an Asker that shares what it remembers with all others of the same exchanger.
func NewAsker(e Exchanger) Asker {
	if !reflect.ValueOf(e).Comparable() {
		e = &comparable{e}
	}
	return Asker{Exchanger: e, Memory: memoryOf(e)}
}

// Ask asks addr. With recurse it is asked as a resolver.
//
// UDP is tried twice, then TCP, for there are networks that drop either; TCP
// also where the reply was truncated or unreadable. A server that does not
// know EDNS is asked again without it: after an answer that asks for it, and after
// silence, for some drop what they do not know. Silence of a resolver means that
// it is busy finding the answer.
func (a Asker) Ask(ctx context.Context, addr, name string, qtype uint16, recurse bool) (Answer, error) {
	query := new(dns.Msg)
	query.SetQuestion(name, qtype)
	query.RecursionDesired = recurse
	query.SetEdns0(UDPSize, false)
	return a.Send(ctx, addr, query)
}

// Send is Ask with a question of one's own. Whatever it takes to get the answer, it is one
// question of the look's budget.
func (a Asker) Send(ctx context.Context, addr string, query *dns.Msg) (Answer, error) {
	ans, err := a.charged(ctx, addr, query)
	if a.Asked != nil {
		a.Asked(outcomeOf(ctx, ans, err))
	}
	return ans, err
}

func (a Asker) charged(ctx context.Context, addr string, query *dns.Msg) (Answer, error) {
	if err := AccountOf(ctx).charge(); err != nil {
		return Answer{}, err
	}
	if a.withoutEDNS(addr) {
		query = plain(query)
	}
	ans, err := a.transports(ctx, addr, query)
	if err == nil && query.IsEdns0() != nil && rejectsEDNS(ans.Msg) {
		if again, err := a.transports(ctx, addr, plain(query)); err == nil {
			if !rejectsEDNS(again.Msg) {
				a.Memory.note(addr, func(s *serverMemory) { s.noEDNS = time.Now() })
			}
			ans = again
		}
	}
	ans.NoEDNS = err == nil && a.withoutEDNS(addr)
	return ans, err
}

// withoutEDNS reports whether addr is known not to understand EDNS.
func (a Asker) withoutEDNS(addr string) bool {
	since := a.Memory.recall(addr).noEDNS
	return !since.IsZero() && time.Since(since) < ednsAgain
}

// plain is query without EDNS.
func plain(query *dns.Msg) *dns.Msg {
	other := query.Copy()
	other.Extra = nil
	other.Id = dns.Id()
	return other
}

func rejectsEDNS(m *dns.Msg) bool {
	return m.Rcode == dns.RcodeFormatError || m.Rcode == dns.RcodeNotImplemented || m.Rcode == dns.RcodeBadVers
}

// transports asks over UDP, and over TCP if that brings no answer that can be used.
func (a Asker) transports(ctx context.Context, addr string, query *dns.Msg) (Answer, error) {
	known := a.Memory.recall(addr)
	ans, err := a.overUDP(ctx, addr, query, known)
	switch {
	case err == nil && !ans.Truncated:
		return ans, nil
	case errors.Is(err, ErrNotAsked):
		return Answer{}, err
	case ctx.Err() != nil:
		return Answer{}, ctx.Err()
	}
	silent := err != nil && !errors.Is(err, ErrBadReply) // over UDP
	if silent && known.silent && time.Since(known.tcpSilent) < tcpAgain {
		return Answer{}, fmt.Errorf("no answer over UDP (%w); TCP was tried in vain lately", cause(err))
	}
	ans, tcpErr := a.within(ctx, 0, "tcp", addr, query)
	if errors.Is(tcpErr, ErrNotAsked) {
		return Answer{}, tcpErr
	}
	if ctx.Err() == nil {
		a.Memory.note(addr, func(s *serverMemory) {
			s.tcpSilent, s.onlyTCP = time.Time{}, tcpErr == nil && silent
			if tcpErr != nil {
				s.tcpSilent = time.Now()
			}
		})
	}
	switch {
	case tcpErr == nil && ans.Truncated:
		return Answer{}, fmt.Errorf("%w: truncated over TCP", ErrBadReply)
	case tcpErr == nil:
		return ans, nil
	case err == nil:
		return Answer{}, Coded(CodeTCPBlocked, fmt.Errorf("%w: truncated over UDP, and TCP failed: %w", ErrBadReply, cause(tcpErr)))
	case !silent:
		return Answer{}, fmt.Errorf("%w (and over TCP: %w)", err, cause(tcpErr))
	case errors.Is(tcpErr, ErrBadReply):
		return Answer{}, tcpErr
	}
	return Answer{}, fmt.Errorf("no answer over UDP (%w) or TCP (%w)", cause(err), cause(tcpErr))
}

// overUDP asks twice, the second time without EDNS, unless that is known to be in vain. The answer
// may be truncated.
func (a Asker) overUDP(ctx context.Context, addr string, query *dns.Msg, known serverMemory) (ans Answer, err error) {
	tries := udpTries
	if known.silent || known.onlyTCP {
		tries = 1
	}
	for try := range tries {
		sent := query
		if try > 0 && query.IsEdns0() != nil && !query.RecursionDesired {
			sent = plain(query)
		}
		ans, err = a.within(ctx, udpPatience(known, query.RecursionDesired), "udp", addr, sent)
		if err == nil && !ans.Truncated {
			a.Memory.note(addr, func(s *serverMemory) {
				s.rtt, s.onlyTCP = smooth(s.rtt, ans.RTT), false
				if sent == query {
					s.plain = 0
					return
				}
				// The first datagram may have been lost, once.
				if s.plain++; s.plain > 1 {
					s.noEDNS = time.Now()
				}
			})
		}
		if err == nil || errors.Is(err, ErrNotAsked) || errors.Is(err, ErrBadReply) || ctx.Err() != nil {
			break
		}
	}
	return ans, err
}

// cause is err without what a person knows already: the addresses.
func cause(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		if op.Timeout() {
			return errTimedOut
		}
		return op.Err
	}
	return err
}

var errTimedOut = errors.New("timed out")

// udpPatience is how long an answer over UDP is waited for, zero for the exchanger's time.
// How quick a resolver was does not show how quick it is: that was from its cache, perhaps.
func udpPatience(known serverMemory, resolver bool) time.Duration {
	switch {
	case known.silent || known.onlyTCP:
		return shortTimeout
	case known.rtt > 0 && !resolver:
		return min(max(rttFactor*known.rtt, minRTTWait), DefaultUDPTimeout)
	}
	return 0
}

// smooth is the smoothed round-trip time, as TCP has it.
func smooth(old, latest time.Duration) time.Duration {
	if old == 0 {
		return latest
	}
	return old + (latest-old)/8
}

// within asks once. A patience that is shorter than the exchanger's ends in an ordinary time-out;
// zero is the exchanger's.
func (a Asker) within(ctx context.Context, patience time.Duration, network, addr string, query *dns.Msg) (Answer, error) {
	if err := a.turn(ctx, addr, query); err != nil {
		return Answer{}, err
	}
	short := ctx
	if patience > 0 {
		var cancel context.CancelFunc
		short, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	ans, err := a.exchange(short, network, addr, query)
	if err != nil && short.Err() != nil && ctx.Err() == nil {
		return Answer{}, errTimedOut
	}
	return ans, err
}

// turn waits until addr may be asked. Resolvers are there to be asked much: a Scheduler bounds
// what it asks in all, and looks are bounded by their own questions to servers.
func (a Asker) turn(ctx context.Context, addr string, query *dns.Msg) error {
	if query.RecursionDesired {
		return AccountOf(ctx).Limiter.wait(ctx, "")
	}
	if err := AccountOf(ctx).Limiter.wait(ctx, addr); err != nil {
		return err
	}
	return a.Memory.looks.wait(ctx, addr)
}

// exchange asks now.
func (a Asker) exchange(ctx context.Context, network, addr string, query *dns.Msg) (Answer, error) {
	answered := AccountOf(ctx).send(query.RecursionDesired)
	began := time.Now()
	resp, err := a.Exchanger.Exchange(ctx, network, addr, query)
	octets := 0
	if network == "tcp" && resp != nil {
		octets = resp.Len()
	}
	answered(octets)
	if err != nil {
		return Answer{}, err
	}
	if resp == nil || !repliesTo(resp, query) {
		return Answer{}, fmt.Errorf("%w: not a reply to the question", ErrBadReply)
	}
	if !query.RecursionDesired {
		a.Memory.heard()
	}
	return Answer{Msg: resp, Network: network, RTT: time.Since(began)}, nil
}

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
	if c, ok := errors.AsType[*codedError](err); ok {
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
