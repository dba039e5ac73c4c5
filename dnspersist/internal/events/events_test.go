package events

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/parking"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

const testCA = "https://ca.test/dir"

// world is a center whose registry is the test.
type world struct {
	*Center
	notify func(domain string, now []parking.Status)

	mu  sync.Mutex
	got []map[string]any // with the name as "event"
}

// Subscribe implements Registry.
func (w *world) Subscribe(notify func(domain string, now []parking.Status)) (cancel func()) {
	w.notify = notify
	return func() { w.notify = nil }
}

// emit is a configuration's.
func (w *world) emit(name string, data map[string]any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	data["event"] = name
	w.got = append(w.got, data)
}

// inBubble runs a test by a clock of its own, with a center whose end is awaited.
func inBubble(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := new(world)
		w.Center = New(w)
		defer w.Close()
		test(t, w)
	})
}

// want takes what was emitted for a while, and compares it: each event with its domains, and the code and
// count if it has any.
func (w *world) want(t *testing.T, after time.Duration, want ...string) {
	t.Helper()
	time.Sleep(after)
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	var got []string
	for _, d := range w.got {
		text := strings.TrimPrefix(d["event"].(string), "dns_persist_")
		if domains, ok := d["domains"].([]string); ok {
			text += " " + strings.Join(domains, ",")
		}
		for _, key := range []string{"code", "count"} {
			if value, ok := d[key]; ok {
				text += fmt.Sprint(" ", key, "=", value)
			}
		}
		got = append(got, text)
	}
	w.got = nil
	if !slices.Equal(got, want) {
		t.Errorf("emitted are\n\t%s\nwanted are\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// waiting is the status of a domain that waits for its record.
func waiting(domain string, reason acmepersist.Reason) parking.Status {
	base := strings.TrimPrefix(domain, "*.")
	s := parking.Status{
		Domain: domain, CA: testCA, Account: testCA + "/1", Phase: parking.PhaseWaiting, Reason: reason, Since: time.Now(),
		Record: acmepersist.Record{Name: "_validation-persist." + base, Value: "ca.test; accounturi=" + testCA + "/1"},
		Report: &propagation.Report{Name: "_validation-persist." + base, Zone: base, Status: propagation.StatusAbsent},
	}
	switch reason {
	case acmepersist.ReasonPartial:
		s.Report.Status = propagation.StatusPartial
	case acmepersist.ReasonBlocked:
		s.Report.Status = propagation.StatusBlocked
	case acmepersist.ReasonConfirming:
		s.Report.Status = propagation.StatusReady
	}
	return s
}

// show is a change of where a domain is.
func (w *world) show(domain string, reasons ...acmepersist.Reason) {
	for _, reason := range reasons {
		w.notify(domain, []parking.Status{waiting(domain, reason)})
	}
}

func (w *world) serve(domain string) {
	w.notify(domain, nil) // the wait has ended
	w.notify(domain, []parking.Status{{Domain: domain, CA: testCA, Phase: parking.PhaseServed, Issuer: acmepersist.IssuerKey(testCA)}})
}

const (
	absent   = acmepersist.ReasonAbsent
	wrong    = acmepersist.ReasonWrong
	partial  = acmepersist.ReasonPartial
	complete = acmepersist.ReasonConfirming // with a report that is ready
	blocked  = acmepersist.ReasonBlocked
	soon     = defaultWindow + time.Second
	redText  = "\x1b[31m"
)

// A record that is needed, wrong and then complete is one event each, whatever comes between.
func TestOneEventAState(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		defer w.Start(w.emit, 0)()
		w.show("a.test", absent, absent, blocked, partial, absent)
		w.want(t, soon, "record_needed a.test code=record_absent")
		w.show("a.test", wrong, partial, wrong)
		w.want(t, soon, "record_wrong a.test code=record_wrong")
		w.show("a.test", partial, complete, complete)
		w.want(t, soon, "record_complete a.test")
		w.serve("a.test")
		w.want(t, soon)
		// months later
		w.show("a.test", complete)
		w.serve("a.test")
		w.want(t, soon)
		w.show("a.test", absent)
		w.want(t, soon, "record_needed a.test code=record_absent")
		w.serve("a.test") // asked for early, because its certificate ran out
		w.want(t, soon, "record_complete a.test")
	})
}

// A domain and its wildcard share a record: one event names both, and it is complete when it is good for both.
func TestDomainAndWildcard(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		defer w.Start(w.emit, 0)()
		w.show("a.test", absent)
		time.Sleep(time.Second)
		w.show("*.a.test", absent)
		w.want(t, soon, "record_needed *.a.test,a.test code=record_absent")
		w.show("a.test", complete) // it lacks policy=wildcard
		w.show("*.a.test", wrong)
		w.want(t, soon, "record_wrong *.a.test code=record_wrong")
		w.serve("a.test")
		w.want(t, soon)
		w.show("*.a.test", complete)
		w.want(t, soon, "record_complete *.a.test")
	})
}

// A domain that comes to need another record has that asked for, and the former one is no matter any more.
func TestOtherRecord(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		defer w.Start(w.emit, 0)()
		w.show("a.test", absent)
		other := waiting("a.test", absent)
		other.Record.Value += "; policy=wildcard"
		w.notify("a.test", []parking.Status{other})
		w.want(t, soon, "record_needed a.test code=record_absent", "record_needed a.test code=record_absent")
		w.serve("a.test")
		w.want(t, soon, "record_complete a.test")
	})
}

// Nothing is lost before the first configuration runs, over reloads, and while none runs; and nothing comes twice.
func TestReloads(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.show("a.test", absent)
		w.want(t, time.Hour)
		stop := w.Start(w.emit, 0)
		w.want(t, soon, "record_needed a.test code=record_absent")
		var want []string
		for i := range 10 {
			domain := fmt.Sprintf("%d.test", i)
			w.show(domain, absent)
			want = append(want, "record_needed "+domain+" code=record_absent")
			next := w.Start(w.emit, 0)
			stop()
			stop() // whatever Caddy does
			stop = next
			w.notify("a.test", nil) // a wait that begins again
			w.show("a.test", absent)
		}
		w.want(t, soon, want...)
		stop()
		w.show("a.test", wrong)
		w.want(t, soon)
		defer w.Start(w.emit, 0)()
		w.want(t, soon, "record_wrong a.test code=record_wrong")
	})
}

// While no configuration has a handler nothing is kept, and the first that has one again learns of all that wait,
// whatever was reported before.
func TestRest(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		defer w.Start(w.emit, 0)()
		w.show("a.test", absent)
		w.want(t, soon, "record_needed a.test code=record_absent")
		w.Rest()
		if w.notify != nil || w.tracker != nil || w.queue != nil {
			t.Error("it goes on taking note")
		}
		w.Notice(acmepersist.Notice{Kind: acmepersist.NoticeCAChanged})
		defer w.Start(w.emit, 0)()
		w.show("a.test", absent)
		w.want(t, soon, "record_needed a.test code=record_absent")
	})
}

// A handler that hangs holds up neither the registry nor the end of its configuration, nor the next one's.
func TestHandlerThatHangs(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		hang := make(chan struct{})
		defer close(hang)
		began := time.Now()
		stop := w.Start(func(string, map[string]any) { <-hang }, 0)
		w.show("a.test", absent)
		time.Sleep(soon)
		for i := range 2 * mostWaiting {
			w.show(fmt.Sprintf("%d.test", i), absent)
		}
		if took := time.Since(began); took != soon {
			t.Errorf("it took %s", took)
		}
		if len(w.queue) > mostWaiting {
			t.Errorf("%d events wait", len(w.queue))
		}
		defer w.Start(w.emit, 0)()
		began = time.Now()
		stop()
		if took := time.Since(began); took != stopWithin {
			t.Errorf("the end took %s", took)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		w.mu.Lock()
		defer w.mu.Unlock()
		total := 0
		for _, d := range w.got {
			if n, ok := d["count"].(int); ok {
				total += n
			} else {
				total++
			}
		}
		if total != 2*mostWaiting {
			t.Errorf("%d of %d events are reported", total, 2*mostWaiting)
		}
	})
}

// Ten thousand records are at most thirty events a minute, and every one of them is counted.
func TestRate(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		var mu sync.Mutex
		var times []time.Time
		total := 0
		defer w.Start(func(_ string, data map[string]any) {
			mu.Lock()
			defer mu.Unlock()
			times = append(times, time.Now())
			if n, ok := data["count"].(int); ok {
				total += n
				if len(data["domains"].([]string)) > mostDomains {
					t.Errorf("it has %d domains", len(data["domains"].([]string)))
				}
			} else {
				total++
			}
		}, 0)()
		for i := range 10000 {
			w.show(fmt.Sprintf("%d.test", i), absent)
			if i%100 == 0 {
				time.Sleep(3 * time.Second)
			}
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if total != 10000 {
			t.Errorf("%d of 10000 are reported", total)
		}
		for i := range times {
			if last := i + mostPerMinute; last < len(times) && times[last].Sub(times[i]) < time.Minute {
				t.Fatalf("%d events within %s", mostPerMinute+1, times[last].Sub(times[i]))
			}
		}
		if len(times) < mostAlone+2 {
			t.Errorf("only %d events", len(times))
		}
	})
}

// The event that is one too many in a minute comes later and has all that it would have had.
func TestOneTooMany(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		defer w.Start(w.emit, 0)()
		for i := range mostAlone + 1 {
			w.show(fmt.Sprintf("%02d.test", i), wrong)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		last := w.got[len(w.got)-1]
		if len(w.got) != mostAlone+1 || last["domain"] != fmt.Sprintf("%02d.test", mostAlone) || last["name"] == nil || last["since"] == nil || last["count"] != nil {
			t.Errorf("%d events, the last is %v", len(w.got), last)
		}
	})
}

// A record that changes all the time is six events an hour, and the last of them has its state.
func TestFlapping(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		defer w.Start(w.emit, 0)()
		for range 10 {
			w.show("a.test", absent, complete)
			time.Sleep(time.Minute)
		}
		w.show("a.test", wrong)
		var want []string
		for range 3 {
			want = append(want, "record_needed a.test code=record_absent", "record_complete a.test")
		}
		w.want(t, soon, want...)
		w.want(t, time.Hour, "record_wrong a.test code=record_wrong count=15")
		w.want(t, 24*time.Hour)
	})
}

// Of domains that strangers have asked for there is a number, once a minute.
func TestOnDemand(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		defer w.Start(w.emit, 0)()
		for i := range 100 {
			s := waiting(fmt.Sprintf("%03d.tenant.test", i), absent)
			s.IsOnDemand = true
			w.notify(s.Domain, []parking.Status{s})
			w.notify(s.Domain, []parking.Status{s})
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(w.got) != 1 || w.got[0]["count"] != 100 || len(w.got[0]["domains"].([]string)) != mostDomains || w.got[0]["on_demand"] != true {
			t.Errorf("got %v", w.got)
		}
		w.got = nil
		s := waiting("one.tenant.test", absent)
		s.IsOnDemand = true
		w.notify(s.Domain, []parking.Status{s})
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(w.got) != 1 || w.got[0]["value"] != s.Record.Value || w.got[0]["do"] == "" || w.got[0]["count"] != nil || w.got[0]["on_demand"] != true {
			t.Errorf("for one domain got %v", w.got)
		}
		w.got = nil
		w.notify(s.Domain, nil)
		for i := range 100 {
			w.notify(fmt.Sprintf("%03d.tenant.test", i), nil)
		}
		if len(w.tracker.records) > 0 || len(w.tracker.byDomain) > 0 {
			t.Error("what is not waited for any more is remembered")
		}
		w.want(t, time.Hour)
	})
}

// Records that nobody waits for are forgotten in time.
func TestForgetting(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		defer w.Start(w.emit, 0)()
		for i := range 100 {
			domain := fmt.Sprintf("%d.test", i)
			w.show(domain, absent)
			w.notify(domain, nil)
		}
		time.Sleep(rememberFor + sweepEvery)
		w.show("a.test", absent)
		if len(w.tracker.records) != 1 || len(w.tracker.byDomain) != 1 {
			t.Errorf("%d records of %d domains are remembered", len(w.tracker.records), len(w.tracker.byDomain))
		}
	})
}

// What issuers find is an event each time it is news.
func TestNotices(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		defer w.Start(w.emit, 0)()
		n := acmepersist.Notice{
			CA: testCA, Account: testCA + "/1", Domains: []string{"a.test"}, Record: waiting("a.test", absent).Record,
			Report: *waiting("a.test", absent).Report, NeededBy: time.Now().Add(10 * 24 * time.Hour),
		}
		notice := func(kind acmepersist.NoticeKind, change func(n *acmepersist.Notice)) {
			n := n
			n.Kind = kind
			if change != nil {
				change(&n)
			}
			w.Notice(n)
		}
		notice(acmepersist.NoticeFound, nil)
		w.want(t, soon)
		notice(acmepersist.NoticeGone, nil)
		notice(acmepersist.NoticeGone, nil)
		w.show("a.test", absent) // the renewal finds the same
		w.want(t, soon, "record_gone a.test code=record_absent")
		notice(acmepersist.NoticeFound, nil) // the renewal will find it too, or not
		w.want(t, soon)
		w.notify("a.test", nil)
		notice(acmepersist.NoticeFound, nil)
		w.want(t, soon, "record_complete a.test")
		ends := time.Now().Add(50 * time.Hour)
		for range 3 {
			notice(acmepersist.NoticeEnding, func(n *acmepersist.Notice) { n.Ends, n.Value = ends, "old" })
		}
		notice(acmepersist.NoticePublished, func(n *acmepersist.Notice) { n.Zone = "a.test" })
		w.want(t, soon, "record_ending a.test", "record_published a.test")
		notice(acmepersist.NoticeCAChanged, func(n *acmepersist.Notice) { n.Domains, n.Changes = nil, []string{"a", "b"} })
		lost := func(n *acmepersist.Notice) {
			n.Domains, n.Err, n.Names = nil, errors.New("gone"), []string{"_validation-persist.a.test"}
		}
		notice(acmepersist.NoticeAccountLost, lost)
		notice(acmepersist.NoticeAccountLost, lost)
		w.want(t, soon, "ca_changed", "account_lost count=1")
		notice(acmepersist.NoticeAccountUsable, nil)
		notice(acmepersist.NoticeAccountLost, lost)
		w.want(t, soon, "account_lost count=1")
		notice(acmepersist.NoticeFound, func(n *acmepersist.Notice) { // it was missing when another process looked
			n.WasMissing, n.Record.Name, n.Domains = true, "_validation-persist.b.test", []string{"b.test"}
		})
		w.want(t, soon, "record_complete b.test")
	})
}

// The daily look finds what is good for a domain, and its wildcard still waits for the record that both share: that
// is not complete, and what is wrong with it is not reported again.
func TestFoundForTheDomainOnly(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		defer w.Start(w.emit, 0)()
		w.show("*.a.test", wrong)
		w.want(t, soon, "record_wrong *.a.test code=record_wrong")
		look := func(kind acmepersist.NoticeKind, domains ...string) {
			w.Notice(acmepersist.Notice{Kind: kind, CA: testCA, Domains: domains, Record: waiting("a.test", wrong).Record})
		}
		for range 3 {
			look(acmepersist.NoticeFound, "a.test")
			time.Sleep(24 * time.Hour)
			w.show("*.a.test", partial, wrong)
		}
		w.want(t, soon)
		look(acmepersist.NoticeGone, "a.test") // the wildcard's is still worse
		look(acmepersist.NoticeFound, "a.test")
		w.want(t, soon)
		look(acmepersist.NoticeGone, "a.test")
		w.show("*.a.test", complete)
		w.want(t, soon, "record_gone a.test code=record_absent")
		w.serve("*.a.test")
		w.want(t, soon)
		look(acmepersist.NoticeGone, "a.test", "*.a.test")
		w.serve("a.test") // the CA has seen it, but not for the wildcard
		w.want(t, soon)
		look(acmepersist.NoticeFound, "a.test") // the wildcard is not renewed any more
		w.want(t, soon, "record_complete a.test")
	})
}

// A record that is gone is one event, however long nobody publishes it again, and whatever else comes.
func TestGoneForDays(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		defer w.Start(w.emit, 0)()
		notice := func(kind acmepersist.NoticeKind, domain string) {
			w.Notice(acmepersist.Notice{Kind: kind, CA: testCA, Domains: []string{domain}, Record: waiting(domain, wrong).Record})
		}
		want := []string{"record_gone a.test code=record_absent"}
		for _, after := range []time.Duration{25 * time.Hour, 25 * time.Hour, 10 * 24 * time.Hour} {
			notice(acmepersist.NoticeGone, "a.test")
			w.want(t, after, want...)
			notice(acmepersist.NoticePublished, "b.test") // any other makes room
			want = []string{"record_published b.test"}
		}
		notice(acmepersist.NoticeFound, "a.test")
		w.want(t, soon, append(want, "record_complete a.test")...)
	})
}

// Data are plain, bounded and escaped, whatever others have written.
func TestData(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		defer w.Start(w.emit, 0)()
		long := redText + strings.Repeat("x", 10000)
		n := acmepersist.Notice{
			Kind: acmepersist.NoticeGone, CA: testCA, Account: long, Domains: []string{"a.test"}, Record: waiting("a.test", absent).Record,
			Report: propagation.Report{Status: propagation.StatusAbsent, Reason: long, Zone: "a.test", Name: "_validation-persist.a.test"},
		}
		n.Finding.Do = long
		for range 100 {
			n.Finding.Values = append(n.Finding.Values, acmepersist.ValueVerdict{Value: long, Reason: long})
		}
		w.Notice(n)
		n = acmepersist.Notice{Kind: acmepersist.NoticeAccountLost, CA: testCA, Err: errors.New(long)}
		for range 100 {
			n.Names = append(n.Names, long)
		}
		w.Notice(n)
		n = acmepersist.Notice{Kind: acmepersist.NoticeCAChanged, CA: testCA, Changes: n.Names}
		w.Notice(n)
		time.Sleep(soon)
		synctest.Wait()
		if len(w.got) != 3 {
			t.Fatalf("got %d events", len(w.got))
		}
		for _, d := range w.got {
			encoded, err := json.Marshal(d)
			if err != nil || strings.Contains(string(encoded), `\u001b`) || len(encoded) > 64<<10 {
				t.Errorf("%d octets, %v: %.300s", len(encoded), err, encoded)
			}
			var back map[string]any
			if err := json.Unmarshal(encoded, &back); err != nil || len(back) != len(d) {
				t.Error(err)
			}
			for key, value := range d {
				switch reflect.TypeOf(value).Kind() {
				case reflect.String, reflect.Int, reflect.Bool, reflect.Slice:
				default:
					t.Errorf("%s is a %T", key, value)
				}
			}
		}
		gone := w.got[0]
		if gone["host"] != "_validation-persist" || gone["name"] != "_validation-persist.a.test" || gone["ttl"] != 3600 || gone["type"] != "TXT" {
			t.Errorf("the record is %v", gone)
		}
	})
}

// A record may change while an event about it is emitted: run by the race detector.
func TestRecordChangesWhileEmitted(t *testing.T) {
	w := new(world)
	w.Center = New(w)
	defer w.Close()
	emitted := make(chan string, mostPerMinute)
	defer w.Start(func(_ string, data map[string]any) { emitted <- data["account"].(string) }, time.Nanosecond)()
	for i := range mostAlone {
		s := waiting(fmt.Sprintf("%d.test", i), absent)
		for len(emitted) <= i { // it is emitted meanwhile
			w.notify(s.Domain, []parking.Status{s})
		}
	}
}
