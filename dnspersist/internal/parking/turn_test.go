package parking

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// turns is a queue to a CA. As there its lock is held while it takes note of who is to be called.
type turns struct {
	lock   chan struct{}
	called map[string]func()
}

func newTurns() *turns { return &turns{make(chan struct{}, 1), make(map[string]func())} }

// queued is a Hold of a domain that has queued for long.
func (q *turns) queued(domain string) *acmepersist.Hold {
	h := held(domain, time.Now().Add(time.Hour))
	h.Reason = acmepersist.ReasonQueued
	h.OnTurn = func(fn func()) {
		q.lock <- struct{}{}
		defer func() { <-q.lock }()
		q.called[domain] = fn
	}
	return h
}

// call has it a domain's turn.
func (q *turns) call(domain string) { go q.called[domain]() }

// Who queues is answered from memory until its turn has come, and is then retried at once, once.
func TestTurnComes(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		o, q := w.configure("a", "a.test"), newTurns()
		defer w.end(o)
		_ = w.attempt(t.Context(), o, "a.test", q.queued("a.test"))
		for range 10 {
			time.Sleep(time.Minute)
			if err := w.attempt(t.Context(), o, "a.test", nil); !errors.Is(err, errWait) || o.retries() != 0 {
				t.Fatalf("before its turn it is answered with %v and retried %d times", err, o.retries())
			}
		}
		q.call("a.test")
		if synctest.Wait(); o.retries() != 1 {
			t.Fatalf("when its turn has come it is retried %d times", o.retries())
		}
		a, err := w.Begin(t.Context(), o, "a.test")
		if err != nil {
			t.Fatalf("the attempt of the retry is answered with %v", err)
		}
		a.Settle(t.Context(), nil)
		if len(w.Snapshot()) != 0 {
			t.Errorf("with its certificate it is still known: %+v", w.Snapshot())
		}
	})
}

// A turn that comes while the domain is busy is not lost: who is at work is let through, and if that comes to nothing the
// domain is retried.
func TestTurnComesWhileTheDomainIsBusy(t *testing.T) {
	for what, busy := range map[string]func(e *entry){
		"retried": func(e *entry) { e.busyUntil = time.Now().Add(10 * time.Second) },
		"at work": func(e *entry) {
			e.atWork++
			time.AfterFunc(10*time.Second, func() {
				e.registry.mu.Lock()
				defer e.registry.unlock()
				e.atWork--
			})
		},
	} {
		inBubble(t, func(t *testing.T, w *world) {
			o, q := w.configure("a", "a.test"), newTurns()
			defer w.end(o)
			_ = w.attempt(t.Context(), o, "a.test", q.queued("a.test"))
			w.change(o, "a.test", busy)
			q.call("a.test")
			if synctest.Wait(); o.retries() != 0 {
				t.Errorf("%s: a second job is begun beside the first one", what)
			}
			a, err := w.Begin(t.Context(), o, "a.test")
			if err != nil {
				t.Fatalf("%s: the attempt is answered with %v after its turn has come", what, err)
			}
			a.Settle(canceled(t.Context()), context.Canceled)
			time.Sleep(2 * untroubled)
			if synctest.Wait(); o.retries() != 1 {
				t.Errorf("%s: it is retried %d times", what, o.retries())
			}
		})
	}
}

func canceled(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	return ctx
}

// A turn is that of the Hold with which it was waited for.
func TestTurnOfAFormerHold(t *testing.T) {
	for what, next := range map[string]func(w *world, q *turns) error{
		"its record has gone": func(*world, *turns) error { return missing("a.test", "v") },
		"the CA is down": func(*world, *turns) error {
			h := held("a.test", time.Now().Add(time.Hour))
			h.Reason = acmepersist.ReasonCADown
			return h
		},
		"it queues anew":         func(_ *world, q *turns) error { return q.queued("a.test") },
		"the attempt fails":      func(*world, *turns) error { return errors.New("HTTP 500") },
		"it has a certificate":   func(*world, *turns) error { return nil },
		"the registry is closed": func(w *world, _ *turns) error { w.Close(); return nil },
	} {
		synctest.Test(t, func(t *testing.T) {
			w, q := newWorld(t), newTurns()
			defer w.Close()
			o := w.configure("a", "a.test")
			defer w.end(o)
			_ = w.attempt(t.Context(), o, "a.test", q.queued("a.test"))
			former := q.called["a.test"]
			w.change(o, "a.test", func(e *entry) { e.retryAt = time.Time{} })
			_ = w.attempt(t.Context(), o, "a.test", next(w, q))
			former()
			if synctest.Wait(); o.retries() != 0 {
				t.Errorf("%s: it is retried", what)
			}
			if e := w.entryOf(o, "a.test"); e != nil && !e.retryAt.After(time.Now()) && e.hold.Reason != acmepersist.ReasonAbsent {
				t.Errorf("%s: it is not waited for any more", what)
			}
		})
	}
}

// A reload leaves those that queue where they are, and a turn that comes while no configuration lives is not lost.
func TestTurnOutlivesReloads(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		first, q := w.configure("a", "a.test", "b.test"), newTurns()
		_ = w.attempt(t.Context(), first, "a.test", q.queued("a.test"))
		_ = w.attempt(t.Context(), first, "b.test", q.queued("b.test"))
		w.end(first)
		q.call("b.test")
		synctest.Wait()
		next := w.configure("a", "a.test", "b.test")
		defer w.end(next)
		if err := w.attempt(t.Context(), next, "a.test", nil); !errors.Is(err, errWait) {
			t.Errorf("before its turn a reload has it answered with %v", err)
		}
		if err := w.attempt(t.Context(), next, "b.test", nil); err != nil {
			t.Errorf("after its turn it is answered with %v", err)
		}
		q.call("a.test")
		if synctest.Wait(); first.retries() != 0 || next.retries() != 1 {
			t.Errorf("it is retried %d times through the ended configuration, and %d times through the one that lives", first.retries(), next.retries())
		}
	})
}

// Nothing is left of a domain that nobody wants any more, whenever its turn comes.
func TestTurnOfADomainThatIsGone(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		o, q := w.configure("a", "a.test"), newTurns()
		_ = w.attempt(t.Context(), o, "a.test", q.queued("a.test"))
		w.end(o)
		time.Sleep(orphanFor + time.Second)
		q.call("a.test")
		synctest.Wait()
		w.mu.Lock()
		defer w.unlock()
		if len(w.entries) != 0 || len(w.byDomain) != 0 || len(w.lines) != 0 || o.retries() != 0 {
			t.Errorf("left are %d entries, %d domains and %d lines; it is retried %d times", len(w.entries), len(w.byDomain), len(w.lines), o.retries())
		}
	})
}

// Of a thousand whose turns come at once few are begun, in the order in which they began to wait; and those that are
// held anew at once while their job is still ending leave the line as they have found it.
func TestManyTurnsComeAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		o, q := w.configure("a"), newTurns()
		defer w.end(o)
		const many = 1000
		for i := range many {
			_ = w.attempt(t.Context(), o, fmt.Sprintf("d%03d.test", i), q.queued(fmt.Sprintf("d%03d.test", i)))
			time.Sleep(time.Millisecond)
		}
		onTheWay, most, order := 0, 0, []string(nil)
		o.obtain = func(domain string) (bool, error) {
			o.mu.Lock()
			onTheWay++
			most = max(most, onTheWay)
			isFirst := !slices.Contains(order, domain)
			if isFirst {
				order = append(order, domain)
			}
			o.mu.Unlock()
			defer func() {
				o.mu.Lock()
				onTheWay--
				o.mu.Unlock()
			}()
			time.Sleep(100 * time.Millisecond)
			if !isFirst {
				_ = w.attempt(t.Context(), o, domain, nil)
				return true, nil
			}
			h := q.queued(domain)
			h.OnTurn = func(fn func()) { go fn() } // its turn has come meanwhile
			err := w.attempt(t.Context(), o, domain, h)
			time.Sleep(time.Millisecond) // the job is still ending
			return false, err
		}
		for domain := range q.called {
			q.call(domain)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(w.Snapshot()); n != 0 || o.retries() != 2*many {
			t.Errorf("%d still wait after %d retries", n, o.retries())
		}
		if most > 2*mostOnTheWay { // those whose job is ending are beside them
			t.Errorf("%d are on the way at once", most)
		}
		for at, domain := range order {
			var i int
			if _, err := fmt.Sscanf(domain, "d%d.test", &i); err != nil {
				t.Fatal(err)
			}
			if i < at-2*mostOnTheWay || at >= mostOnTheWay && i > at+2*mostOnTheWay {
				t.Errorf("%s is begun as number %d", domain, at)
			}
		}
		w.mu.Lock()
		defer w.unlock()
		if l := w.lines[testCA]; l.onTheWay != 0 || len(l.waiting) != 0 {
			t.Errorf("the line is left with %+v", l)
		}
	})
}

// The queue has a lock of its own, and whoever holds it may wait for the registry: it is never called with the registry's.
func TestTurnsLockHoldsNothingUp(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		o := w.configure("a", "a.test")
		defer w.end(o)
		hold, isCalled := newTurns().queued("a.test"), false
		hold.OnTurn = func(fn func()) {
			if !w.mu.TryLock() {
				t.Fatal("the registry's lock is held while the queue is asked")
			}
			w.mu.Unlock()
			fn()
			isCalled = true
		}
		if _ = w.attempt(t.Context(), o, "a.test", hold); !isCalled {
			t.Error("the queue is not asked")
		}
	})
}

// A fleet comes through one slow lane: who has queued for long holds no job meanwhile, none is forgotten or asked for
// twice, and the lane is hardly ever empty, whether or not a reload comes, and with it most are wanted no more.
func TestFleetThroughOneLane(t *testing.T) {
	const many, validation = 300, 2 * time.Second
	for what, tc := range map[string]struct {
		reload bool
		wanted int // after the reload
	}{"": {wanted: many}, "a reload": {true, many}, "a reload after which few are wanted": {true, 60}} {
		inBubble(t, func(t *testing.T, w *world) {
			f := &fleet{world: w, lanes: ca.NewLanes(), validation: validation}
			defer f.lanes.Close()
			o := f.configure(t)
			began := time.Now()
			for i := range many { // as CertMagic's jobs at the start
				go func() { _, _ = o.obtain(fmt.Sprintf("d%d.test", many-i)) }()
			}
			time.Sleep(25 * time.Second)
			if tc.reload {
				former := o
				o = f.configure(t)
				for i := range tc.wanted {
					go func() { _, _ = o.obtain(fmt.Sprintf("d%d.test", i+1)) }()
				}
				synctest.Wait()
				w.end(former)
			}
			defer func() { w.end(o) }()
			for ; len(w.Snapshot()) > 0; time.Sleep(time.Second) {
				if n := f.jobs.Load(); n > mostOnTheWay+1 {
					t.Errorf("%s: after %s %d hold a job", what, time.Since(began), n)
				}
				if time.Since(began) > 2*many*validation {
					t.Fatalf("%s: %d still wait after %s", what, len(w.Snapshot()), time.Since(began))
				}
			}
			took, alone := time.Since(began), time.Duration(tc.wanted)*validation
			if tc.wanted < many {
				alone += orphanFor
			}
			if n := int(f.orders.Load()); n < tc.wanted || n > many || took > alone*12/10 {
				t.Errorf("%s: %d orders in %s, the lane alone takes %s", what, n, took, alone)
			}
		})
	}
}

// fleet are domains that go through one lane.
type fleet struct {
	*world
	lanes        *ca.Lanes
	validation   time.Duration
	jobs, orders atomic.Int32
	done         sync.Map // the domains that have a certificate
}

// configure starts a configuration whose attempts go as those of an issuer do.
func (f *fleet) configure(t *testing.T) *owner {
	o := f.world.configure("a")
	o.obtain = func(domain string) (bool, error) {
		f.jobs.Add(1)
		defer f.jobs.Add(-1)
		if _, isDone := f.done.Load(domain); isDone {
			return true, nil
		}
		a, err := f.Begin(t.Context(), o, domain)
		if err != nil {
			return false, err
		}
		lane, err := f.lanes.Enter(t.Context(), ca.LaneRequest{CA: testCA, Account: "1", Domain: domain, Most: 1})
		var queued *ca.QueuedError
		if errors.As(err, &queued) {
			err = &acmepersist.Hold{
				Reason: acmepersist.ReasonQueued, Domain: domain, CA: testCA, Until: queued.RetryAt, OnTurn: queued.OnTurn, GiveUp: queued.GiveUp,
				Err: err,
			}
			a.Settle(t.Context(), err)
			return false, err
		}
		a.Progress(acmepersist.PhaseOrdering)
		if _, isDone := f.done.Load(domain); !isDone {
			f.orders.Add(1)
			time.Sleep(f.validation)
			f.done.Store(domain, nil)
		}
		lane.Leave()
		a.Settle(t.Context(), nil)
		return true, nil
	}
	return o
}

// What queues is not announced, DNS is not asked for it, and the log has it at level INFO, many of them as a number.
func TestQueuedDomainIsQuiet(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		o, q := w.configure("a"), newTurns()
		defer w.end(o)
		for i := range 100 {
			domain := fmt.Sprintf("d%d.test", i)
			_ = w.attempt(t.Context(), o, domain, missing(domain, "v"))
			w.show(o, domain, propagation.StatusReady)
		}
		o.work.Wait()
		w.logs.TakeAll()
		for i := range 100 {
			domain := fmt.Sprintf("d%d.test", i)
			_ = w.attempt(t.Context(), o, domain, q.queued(domain))
			w.change(o, domain, func(e *entry) {
				if e.stopWatch != nil || e.asked != nil {
					t.Errorf("%s is watched or announced", domain)
				}
			})
		}
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		for _, entry := range w.logs.All() {
			if entry.Level > 0 {
				t.Errorf("the log has %s: %s", entry.Level, entry.Message)
			}
		}
		if n := w.logs.Len(); n < mostInFull || n > mostInFull+3 {
			t.Errorf("the log has %d entries", n)
		}
	})
}

// Nobody who opens connections displaces a domain on demand that queues: its owner has published the record.
func TestGuestThatQueuesStays(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		o, q := w.configure("a"), newTurns()
		defer w.end(o)
		o.onDemand = true
		_ = w.attempt(t.Context(), o, "a.crowd.example", q.queued("a.crowd.example"))
		for i := range 5 {
			_ = w.attempt(t.Context(), o, fmt.Sprintf("n%d.crowd.example", i), missing(fmt.Sprintf("n%d.crowd.example", i), "v"))
		}
		if !w.Waits(o, "a.crowd.example") {
			t.Error("it has made room")
		}
	})
}
