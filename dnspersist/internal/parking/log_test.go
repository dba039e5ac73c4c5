package parking

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// waitsAt are the levels at which it is logged that a domain waits; the others have entries of their own.
var waitsAt = map[acmepersist.Reason]zapcore.Level{
	acmepersist.ReasonConfirming: zap.InfoLevel, acmepersist.ReasonPartial: zap.InfoLevel, acmepersist.ReasonProcessing: zap.InfoLevel,
	acmepersist.ReasonRateLimited: zap.InfoLevel, acmepersist.ReasonCADown: zap.InfoLevel, acmepersist.ReasonQueued: zap.InfoLevel,
	acmepersist.ReasonBudget: zap.ErrorLevel, acmepersist.ReasonRejected: zap.ErrorLevel, acmepersist.ReasonNotOffered: zap.ErrorLevel,
	acmepersist.ReasonAccount: zap.ErrorLevel, acmepersist.ReasonAccountURI: zap.ErrorLevel, acmepersist.ReasonCAA: zap.ErrorLevel,
	acmepersist.ReasonUnsupported: zap.ErrorLevel,
}

const waitText = "this domain has to wait for its certificate"

// waiting is a Hold for a reason.
func waiting(domain string, reason acmepersist.Reason) *acmepersist.Hold {
	h := held(domain, time.Time{})
	switch reason {
	case acmepersist.ReasonConfirming, acmepersist.ReasonPartial:
		h = missing(domain, "v")
		h.Watch.Report.Status = propagation.Status(strings.TrimPrefix(string(reason), "record_"))
	case acmepersist.ReasonAbsent, acmepersist.ReasonBlocked, acmepersist.ReasonWrong, acmepersist.ReasonPublish:
		h = missing(domain, "v")
	}
	h.Reason = reason
	return h
}

// nothing is DNS that has no record at all.
type nothing struct{}

func (nothing) Exchange(_ context.Context, _, _ string, m *dns.Msg) (*dns.Msg, error) {
	return new(dns.Msg).SetRcode(m, dns.RcodeNameError), nil
}

// absent is a Hold for a record that stays missing.
func absent(domain, value string) *acmepersist.Hold {
	h := missing(domain, value)
	h.Watch.Checker = propagation.NewChecker(propagation.Config{Exchanger: nothing{}, Resolvers: []string{"192.0.2.53"}, Mode: propagation.ModeRecursive})
	h.Watch.Gate = h.Watch.Checker.NewGate()
	h.Watch.Report = h.Watch.Checker.Check(context.Background(), h.Watch.Target, h.Watch.Gate)
	return h
}

// again is an attempt that comes to the CA: the last Hold is over.
func (w *world) again(t *testing.T, o *owner, h *acmepersist.Hold) {
	t.Helper()
	if w.entryOf(o, h.Domain) != nil {
		w.change(o, h.Domain, func(e *entry) { e.retryAt = time.Time{} })
	}
	if err := w.attempt(t.Context(), o, h.Domain, h); !errors.Is(err, h) {
		t.Errorf("the attempt is answered from memory: %v", err)
	}
}

// Why a domain waits is logged once, at the level of what somebody has to do about it; again only when
// the reason is another one, or the certificate has begun to run out.
func TestReasonIsLoggedOnce(t *testing.T) {
	for reason, level := range waitsAt {
		inBubble(t, func(t *testing.T, w *world) {
			o := w.configure("a")
			w.again(t, o, waiting("a.test", reason))
			w.again(t, o, waiting("a.test", reason))
			next := w.configure("a") // a reload
			defer w.end(next)
			_ = w.attempt(t.Context(), next, "a.test", waiting("a.test", reason))
			w.end(o)
			o = next
			lines := w.logs.FilterMessage(waitText).All()
			if len(lines) != 1 || lines[0].Level != level {
				t.Fatalf("%s is logged as %v, want once at %s", reason, lines, level)
			}
			fields := lines[0].ContextMap()
			for _, f := range []string{"domain", "ca", "reason", "code", "why"} {
				if text, _ := fields[f].(string); text == "" || strings.ContainsAny(text, `"\`) {
					t.Errorf("%s: the field %s is %q", reason, f, fields[f])
				}
			}
			if level > zap.InfoLevel && fields["do"] == nil {
				t.Errorf("%s: nobody is told what to do", reason)
			}
			other := waiting("a.test", acmepersist.ReasonCAA)
			if reason == acmepersist.ReasonCAA {
				other.Reason = acmepersist.ReasonAccount
			}
			w.again(t, o, other)
			w.again(t, o, waiting("a.test", reason))
			late := waiting("a.test", reason)
			late.NotAfter, late.Urgent = time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
			w.again(t, o, late)
			w.again(t, o, late)
			lines = w.logs.FilterMessage(waitText).All()
			want := 4
			if level == zap.ErrorLevel { // it cannot be worse
				want = 3
			}
			if len(lines) != want || lines[len(lines)-1].Level != max(level, zap.ErrorLevel) && want == 4 {
				t.Errorf("%s: another reason, back, and the certificate runs out: %v", reason, lines)
			}
		})
	}
}

// What others have put into an error is one line of text in the log, whatever it is.
func TestHostileErrorIsALine(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		o := w.configure("a")
		h := waiting("a.test", acmepersist.ReasonRejected)
		h.Err = errors.Join(errors.New("HTTP 403: \x1b[31mred\nline"), errors.New(strings.Repeat("x", 200_000)))
		w.again(t, o, h)
		lines := w.logs.FilterMessage(waitText).All()
		if len(lines) != 1 {
			t.Fatal(lines)
		}
		why, _ := lines[0].ContextMap()["why"].(string)
		if !strings.Contains(why, "HTTP 403") || strings.ContainsAny(why, "\x1b\n") || len(why) > 5000 {
			t.Errorf("it is logged as %.300q (%d octets)", why, len(why))
		}
	})
}

// What has an entry of its own is not logged twice, unless a certificate runs out.
func TestReasonsWithEntriesOfTheirOwn(t *testing.T) {
	for _, reason := range []acmepersist.Reason{acmepersist.ReasonAbsent, acmepersist.ReasonWrong, acmepersist.ReasonPublish} {
		inBubble(t, func(t *testing.T, w *world) {
			o := w.configure("a")
			defer w.end(o)
			w.again(t, o, waiting("a.test", reason))
			if n := w.logs.FilterMessage(waitText).Len(); n != 0 {
				t.Errorf("%s is logged %d times", reason, n)
			}
			late := waiting("a.test", reason)
			late.NotAfter, late.Urgent = time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
			w.again(t, o, late)
			late = waiting("b.test", reason)
			late.NotAfter, late.Urgent = time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
			w.again(t, o, late)
			lines := w.logs.FilterMessage(waitText).FilterLevelExact(zap.ErrorLevel).Len()
			if reason == acmepersist.ReasonPublish { // that is an error in any case
				lines++
			}
			if lines != 2 {
				t.Errorf("%s while a certificate runs out is logged %d times, want once for each domain", reason, lines)
			}
		})
	}
	inBubble(t, func(t *testing.T, w *world) {
		o := w.configure("a")
		defer w.end(o)
		w.again(t, o, missing("a.test", "v"))
		time.Sleep(announceWindow + time.Second)
		synctest.Wait()
		w.show(o, "a.test", propagation.StatusBlocked)
		if lines := w.logs.FilterMessage(waitText).All(); len(lines) != 1 || lines[0].Level != zap.WarnLevel {
			t.Errorf("DNS that does not answer any more: %v", lines)
		}
		if n := w.logs.FilterMessage("record changed in DNS").Len(); n != 0 {
			t.Errorf("it is logged %d times more", n)
		}
	})
}

// Beside other issuers CertMagic logs what ours has said, and a reason is not logged twice.
func TestReasonsInAChain(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		o := w.configure("a", "a.test")
		o.chain = true
		defer w.end(o)
		w.again(t, o, waiting("a.test", acmepersist.ReasonCAA))
		if n := w.logs.FilterMessage(waitText).Len(); n != 0 {
			t.Errorf("it is logged %d times", n)
		}
	})
}

// sizes is a log of which only the lines and octets are kept, by level.
type sizes struct {
	mu     sync.Mutex
	lines  map[string]int
	octets int // at WARN and above
}

func (s *sizes) Sync() error { return nil }

func (s *sizes) Write(line []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	level, _, _ := bytes.Cut(bytes.TrimPrefix(line, []byte(`{"level":"`)), []byte(`"`))
	s.lines[string(level)]++
	if string(level) != "info" && string(level) != "debug" {
		s.octets += len(line)
	}
	return len(line), nil
}

// withSizes has the registry log into sizes, as Caddy does: JSON, from level INFO.
func (w *world) withSizes() *sizes {
	s := &sizes{lines: make(map[string]int)}
	w.SetLogger(zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), s, zap.InfoLevel)))
	return s
}

// At a start with ten thousand domains that wait the first ones are logged in full, and the others are a
// number; the same when CAs are down, and each time that the records are announced again.
func TestStartWithTenThousandDomains(t *testing.T) {
	const most = 10_000
	for _, onDemand := range []bool{false, true} {
		inBubble(t, func(t *testing.T, w *world) {
			domains := most
			o := w.configure("a")
			defer w.end(o)
			o.onDemand, o.configuration.Limits.MaxWaiting, o.configuration.Limits.MaxWaitingPerDomain = onDemand, most, most
			log := w.withSizes()
			hold := absent("a.test", "ca.test; accounturi=https://ca.test/acct/1")
			settle := func(reason acmepersist.Reason) {
				for i := range domains {
					h := *hold
					h.Domain, h.Reason = fmt.Sprintf("n%d.test", i), reason
					h.Record.Name = "_validation-persist." + h.Domain
					if w.entryOf(o, h.Domain) != nil {
						w.change(o, h.Domain, func(e *entry) { e.retryAt = time.Time{} })
					}
					_ = w.attempt(t.Context(), o, h.Domain, &h)
					if i%100 == 99 {
						time.Sleep(2 * time.Second) // all of them take some minutes
					}
				}
				time.Sleep(time.Minute)
				synctest.Wait()
			}
			settle(acmepersist.ReasonAbsent)
			t.Logf("on demand %v, at the start: %v, %d octets at WARN and above", onDemand, log.lines, log.octets)
			if log.lines["info"]+log.lines["warn"] > 2*mostInFull || log.octets > 50_000 {
				t.Errorf("on demand %v, at a start: %v, %d octets at WARN and above", onDemand, log.lines, log.octets)
			}
			if onDemand != (log.lines["warn"] == 0) {
				t.Errorf("on demand %v: %d warnings", onDemand, log.lines["warn"])
			}
			domains = most / 10
			settle(acmepersist.ReasonCADown)
			for i := domains; i < most; i++ {
				w.change(o, fmt.Sprintf("n%d.test", i), (*entry).remove)
			}
			time.Sleep(8 * time.Hour) // they are announced again after one and five
			synctest.Wait()
			t.Logf("on demand %v, after a down CA and eight hours: %v, %d octets", onDemand, log.lines, log.octets)
			if log.lines["info"]+log.lines["warn"]+log.lines["error"] > 15*mostInFull || log.octets > 200_000 {
				t.Errorf("on demand %v, after a down CA and eight hours: %v, %d octets at WARN and above", onDemand, log.lines, log.octets)
			}
		})
	}
}

// An hour in which nothing changes, with a poll a minute and ten reloads, costs no entry.
func TestAnHourWithoutChange(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		o := w.configure("a")
		holds := map[string]*acmepersist.Hold{
			"absent.test": absent("absent.test", "v"), "caa.test": waiting("caa.test", acmepersist.ReasonCAA), "limited.test": waiting("limited.test", acmepersist.ReasonRateLimited),
		}
		for domain, h := range holds {
			_ = w.attempt(t.Context(), o, domain, h)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		log := w.withSizes()
		for i := range 58 {
			e := w.entryOf(o, "absent.test")
			seen := e.report()
			seen.When = time.Now()
			e.observed(seen)
			if i%6 == 0 {
				next := w.configure("a")
				for domain, h := range holds {
					_ = w.attempt(t.Context(), next, domain, h)
				}
				w.end(o)
				o = next
			}
			time.Sleep(time.Minute)
			synctest.Wait()
		}
		if len(log.lines) != 0 {
			t.Errorf("an hour has cost %v", log.lines)
		}
		w.end(o)
	})
}
