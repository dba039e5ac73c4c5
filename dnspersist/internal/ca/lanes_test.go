package ca

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

const lanesCA = "https://ca.test/dir"

// wants is a request for a lane, of a renewal that ends after so many days, or of a first certificate if there are none.
func wants(domain string, days int) LaneRequest {
	r := LaneRequest{CA: lanesCA, Account: "account", Domain: domain}
	if days > 0 {
		r.NotAfter = time.Now().Add(time.Duration(days) * 24 * time.Hour)
	}
	return r
}

// queue has attempts wait for lanes, and notes in which order they are granted one.
type queue struct {
	*Lanes
	t       *testing.T
	mu      sync.Mutex
	granted []string
	lanes   map[string]*Lane
	queued  map[string]*QueuedError
}

func newQueue(t *testing.T) *queue {
	return &queue{Lanes: NewLanes(), t: t, lanes: make(map[string]*Lane), queued: make(map[string]*QueuedError)}
}

// enter has an attempt come.
func (q *queue) enter(r LaneRequest) {
	go func() {
		lane, err := q.Enter(q.t.Context(), r)
		q.mu.Lock()
		defer q.mu.Unlock()
		var queued *QueuedError
		if errors.As(err, &queued) {
			q.queued[r.Domain] = queued
		} else if err == nil {
			q.granted, q.lanes[r.Domain] = append(q.granted, r.Domain), lane
		}
	}()
	synctest.Wait()
}

// fill takes all lanes.
func (q *queue) fill() {
	for i := range firstWidth {
		q.enter(wants(fmt.Sprintf("filled%d.example", i), 0))
	}
	q.granted = nil
}

// leaves has one give its lane back.
func (q *queue) leaves(domain string) {
	q.t.Helper()
	lane := q.lanes[domain]
	if lane == nil {
		q.t.Fatalf("%s is in no lane", domain)
	}
	lane.Leave()
	synctest.Wait()
}

// The end of the certificate decides, and of three that are granted a lane one has no certificate yet.
func TestOrderOfLanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t)
		q.fill()
		for _, r := range []LaneRequest{
			wants("new1.example", 0), wants("late.example", 30), wants("new2.example", 0), wants("soon.example", 3),
			wants("later.example", 40), wants("new3.example", 0), wants("first.example", 1),
		} {
			q.enter(r)
		}
		done := wants("done.example", 0)
		done.IsDone, done.HasOrder = true, true
		q.enter(done)
		next := "filled0.example"
		for range 8 {
			q.leaves(next)
			next = q.granted[len(q.granted)-1]
		}
		want := []string{
			"done.example", "new1.example", "first.example", "soon.example", "new2.example", "late.example", "later.example", "new3.example",
		}
		if !slices.Equal(q.granted, want) {
			t.Errorf("granted were %v, want %v", q.granted, want)
		}
		q.Close()
	})
}

// Who queues for long goes, is called when its turn is near, and has its place when it comes back.
func TestPlaceInTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t)
		q.fill()
		const many = 40
		for i := range many {
			q.enter(wants(fmt.Sprintf("site%02d.example", i), 0))
		}
		time.Sleep(longestQueue)
		synctest.Wait()
		if len(q.queued) != many {
			t.Fatalf("%d have gone, want %d", len(q.queued), many)
		}
		called := make(chan string, many)
		for domain, queued := range q.queued {
			queued.OnTurn(func() { called <- domain })
		}
		synctest.Wait()
		if n := len(called); n != callAhead*firstWidth {
			t.Errorf("%d are called, want %d", n, callAhead*firstWidth)
		}
		q.enter(wants("newcomer.example", 0))
		q.enter(wants("site00.example", 0)) // comes back
		q.leaves("filled0.example")
		q.leaves("filled1.example")
		if want := []string{"site00.example", "newcomer.example"}; !slices.Equal(q.granted, want) {
			t.Errorf("granted were %v, want %v", q.granted, want)
		}
		time.Sleep(4 * calledFor) // those who were called do not come: others are
		synctest.Wait()
		if n := len(called); n < many-1 { // all but who has come back, which may have been called
			t.Errorf("%d were called in all, want %d", n, many-1)
		}
		late := false
		q.queued["site01.example"].OnTurn(func() { late = true })
		if synctest.Wait(); !late {
			t.Error("who asks after its turn is not called")
		}
		time.Sleep(2 * queuedMost)
		synctest.Wait()
		if c := q.cas[lanesCA]; len(c.present)+len(c.places)+len(c.listed)+len(c.called) != 0 {
			t.Errorf("places are kept: %+v", c)
		}
		q.Close()
	})
}

func TestLaneIsNotWaitedForAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t)
		q.fill()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := q.Enter(ctx, wants("a.example", 0)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the error is %v", err)
		}
		if n := len(q.cas[lanesCA].present); n != 0 {
			t.Errorf("%d wait", n)
		}
		patient := wants("b.example", 0)
		patient.IsPatient = true
		q.enter(patient)
		time.Sleep(time.Hour)
		q.leaves("filled0.example")
		if !slices.Equal(q.granted, []string{"b.example"}) {
			t.Errorf("granted were %v", q.granted)
		}
		q.Close()
	})
}

// Names of a registered domain that fails do not wait for its one lane, but are called one after another.
func TestNamesOfAFailingDomainDoNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t)
		q.Validated(wants("a.failing.example", 0), ValidationBad)
		q.enter(wants("a.failing.example", 0))
		q.enter(wants("b.failing.example", 0))
		if !slices.Equal(q.granted, []string{"a.failing.example"}) || q.queued["b.failing.example"] == nil {
			t.Fatalf("granted were %v, queued are %v", q.granted, q.queued)
		}
		isCalled := false
		q.queued["b.failing.example"].OnTurn(func() { isCalled = true })
		if synctest.Wait(); isCalled {
			t.Error("the next one is called while the lane is in use")
		}
		q.leaves("a.failing.example")
		if synctest.Wait(); !isCalled {
			t.Error("the next one is not called")
		}
		q.Close()
	})
}

// The smallest configured number counts of those who wait or are in a lane.
func TestMostLanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t)
		one := wants("one.example", 0)
		one.Most = 1
		q.enter(one)
		q.enter(wants("other.example", 0))
		if !slices.Equal(q.granted, []string{"one.example"}) {
			t.Errorf("granted were %v", q.granted)
		}
		q.leaves("one.example")
		if !slices.Equal(q.granted, []string{"one.example", "other.example"}) {
			t.Errorf("granted were %v", q.granted)
		}
		q.Close()
	})
}

// windowed is a request under a window of 20 orders in 20 s.
func windowed(domain string) LaneRequest {
	r := wants(domain, 0)
	r.Window = OrderWindow{Orders: 20, Per: 20 * time.Second}
	return r
}

// One owner who wants all of the window has a twentieth of it while others wait, and all of it while nobody does.
func TestShareOfTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t)
		go func() { // orders are made at once
			for range 2000 {
				time.Sleep(10 * time.Millisecond)
				q.mu.Lock()
				for domain, lane := range q.lanes {
					lane.Order()
					lane.Leave()
					delete(q.lanes, domain)
				}
				q.mu.Unlock()
			}
		}()
		for i := range 30 {
			q.enter(windowed(fmt.Sprintf("www%d.hog.example", i)))
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := len(q.granted); n < 20 || n > 23 {
			t.Errorf("%d of 30 were granted a lane while nobody else waited, want the 20 of the window", n)
		}
		q.granted = nil
		for i := range 5 {
			q.enter(windowed(fmt.Sprintf("site%d.example", i)))
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		for _, domain := range q.granted[:min(5, len(q.granted))] {
			if domain[:3] == "www" {
				t.Errorf("granted were %v, want the others first", q.granted)
				break
			}
		}
		if inUse, _ := q.State(lanesCA); inUse > 0 {
			t.Errorf("%d lanes are held for the window", inUse)
		}
		time.Sleep(15 * time.Second)
		q.Close()
	})
}

// Who waits for the window holds no lane and is told so; an order that was not made leaves its room to the next one.
func TestRoomInTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t)
		w := OrderWindow{Orders: 1, Per: time.Hour}
		one, two, kept := wants("one.example", 0), wants("two.example", 0), wants("kept.example", 0)
		one.Window, two.Window, kept.Window, kept.HasOrder = w, w, w, true
		two.IsPatient = true
		q.enter(one)
		q.enter(two)
		q.enter(kept)
		if want := []string{"one.example", "kept.example"}; !slices.Equal(q.granted, want) || q.OrdersLeft(lanesCA, w) != 0 {
			t.Errorf("granted were %v, %v orders are left", q.granted, q.OrdersLeft(lanesCA, w))
		}
		q.leaves("one.example") // without an order
		if want := []string{"one.example", "kept.example", "two.example"}; !slices.Equal(q.granted, want) {
			t.Errorf("granted were %v", q.granted)
		}
		q.lanes["two.example"].Order()
		q.leaves("two.example")
		three := wants("three.example", 0)
		three.Window = w
		began := time.Now()
		_, err := q.Enter(t.Context(), three)
		if took := time.Since(began); took > 0 {
			t.Errorf("it has waited for %s where there is no room for an hour", took)
		}
		var queued *QueuedError
		if !errors.As(err, &queued) || queued.Window != w || time.Until(queued.RetryAt) < 59*time.Minute {
			t.Errorf("the error is %v", err)
		}
		q.Close()
	})
}

// A tenant with a thousand registered domains, all of which time out for the CA only, takes the lanes from others for
// seconds, once, and narrows them not at all.
func TestHostileDomains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lanes := NewLanes()
		var failures sync.WaitGroup
		for i := range 1000 {
			failures.Go(func() {
				for range 3 { // each again after a minute
					r := wants(fmt.Sprintf("bad%d.example", i), 0)
					r.IsPatient = true
					lane, err := lanes.Enter(t.Context(), r)
					if err != nil {
						return
					}
					time.Sleep(LaneHold)
					lane.Leave()
					time.Sleep(30 * time.Second)
					lanes.Validated(r, ValidationTimeout)
					time.Sleep(time.Minute)
				}
			})
		}
		synctest.Wait()
		longest := func(days int, from int) (longest time.Duration) {
			for i := range 50 {
				began := time.Now()
				r := wants(fmt.Sprintf("good%d.example", from+i), days)
				r.IsPatient = true
				lane, err := lanes.Enter(t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				longest = max(longest, time.Since(began))
				time.Sleep(100 * time.Millisecond)
				lanes.Validated(r, ValidationGood)
				lane.Leave()
				time.Sleep(time.Second)
			}
			return longest
		}
		if wait := longest(30, 0); wait > 2*LaneHold {
			t.Errorf("a renewal has waited for %s beside them", wait)
		}
		time.Sleep(20 * time.Minute) // each has failed once, with the least width
		if wait := longest(0, 100); wait > 0 {
			t.Errorf("a first certificate has waited for %s once it was known of each", wait)
		}
		if _, width := lanes.State(lanesCA); width != firstWidth {
			t.Errorf("there are %d lanes", width)
		}
		failures.Wait()
		if inUse, _ := lanes.State(lanesCA); inUse != 0 {
			t.Errorf("%d lanes are in use", inUse)
		}
		lanes.Close()
	})
}

// Time-outs narrow where three registered domains have them that were good before.
func TestTimeoutsNarrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lanes := NewLanes()
		lanes.to(lanesCA).width.lanes = 32
		for i := range 10 {
			lanes.Validated(wants(fmt.Sprintf("bad%d.example", i), 0), ValidationTimeout)
			lanes.Validated(wants(fmt.Sprintf("www%d.one.example", i), 30), ValidationTimeout)
		}
		if _, width := lanes.State(lanesCA); width != 32 {
			t.Errorf("there are %d lanes", width)
		}
		for i := range 2 {
			lanes.Validated(wants(fmt.Sprintf("good%d.example", i), 30), ValidationTimeout)
		}
		if _, width := lanes.State(lanesCA); width != 16 {
			t.Errorf("there are %d lanes, want half of 32", width)
		}
	})
}

// What is remembered is bounded, for others choose their domains.
func TestLanesForget(t *testing.T) {
	lanes := NewLanes()
	for i := range 2 * mostDomains {
		lanes.Validated(LaneRequest{CA: lanesCA, Domain: fmt.Sprintf("site%d.example", i)}, ValidationBad)
	}
	if n := len(lanes.cas[lanesCA].domains); n > mostDomains {
		t.Errorf("%d registered domains are remembered", n)
	}
}

// Who ends while it waits, as with a configuration, leaves its place to the attempt that comes after it.
func TestPlaceOutlivesReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t)
		q.fill()
		ctx, reload := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			_, err := q.Enter(ctx, wants("first.example", 0))
			ended <- err
		}()
		synctest.Wait()
		q.enter(wants("second.example", 0))
		reload()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the error is %v", err)
		}
		time.Sleep(time.Second)
		q.enter(wants("first.example", 0))
		q.leaves("filled0.example")
		if !slices.Equal(q.granted, []string{"first.example"}) {
			t.Errorf("granted were %v", q.granted)
		}
		time.Sleep(2 * time.Minute)
		q.Close()
	})
}

// Who began first goes first, though it has given its lane back meanwhile for another look at DNS.
func TestFirstToBeginGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t)
		q.fill()
		again := wants("again.example", 0)
		again.Since = time.Now()
		time.Sleep(time.Second)
		q.enter(wants("other.example", 0))
		q.enter(again)
		q.leaves("filled0.example")
		if !slices.Equal(q.granted, []string{"again.example"}) {
			t.Errorf("granted were %v", q.granted)
		}
		time.Sleep(time.Minute)
		q.Close()
	})
}

// Places are bounded, and the last in the order has none: whoever makes many takes no renewal's.
func TestPlacesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lanes := NewLanes()
		place(lanes, 0, mostPlaces, 0)
		place(lanes, mostPlaces, 2, 30)
		place(lanes, mostPlaces+2, 1, 0)
		c := lanes.cas[lanesCA]
		if n := len(c.places); n != mostPlaces {
			t.Errorf("%d places are kept", n)
		}
		for domain, want := range map[string]bool{
			"site0.example": true, fmt.Sprintf("site%d.example", mostPlaces-3): true, fmt.Sprintf("site%d.example", mostPlaces-1): false,
			fmt.Sprintf("site%d.example", mostPlaces): true, fmt.Sprintf("site%d.example", mostPlaces+2): false,
		} {
			if got := c.places[placeKey{"account", domain}] != nil; got != want {
				t.Errorf("that %s has a place is %t, want %t", domain, got, want)
			}
		}
		lanes.Close()
	})
}

// place has many domains leave places, from a number on.
func place(lanes *Lanes, from, many, days int) {
	lanes.mu.Lock()
	defer lanes.mu.Unlock()
	c := lanes.to(lanesCA)
	for i := range many {
		now := time.Now()
		w := c.join(wants(fmt.Sprintf("site%d.example", from+i), days), now)
		c.leavePlace(w, now, time.Hour)
		c.list(w, func() {})
	}
}

// Of a registered domain that has used its share of the window no more are called than there is room for, however often
// that is looked at.
func TestNoMoreAreCalledThanTheWindowHasRoomFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lanes := NewLanes()
		r := windowed("www.hog.example")
		r.Window = OrderWindow{Orders: 20, Per: 200 * time.Second}
		for i := range 20 {
			r.Domain = fmt.Sprintf("www%d.hog.example", i)
			lane, err := lanes.Enter(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			lane.Order()
			lane.Leave()
		}
		var calls atomic.Int32
		for i := range 100 {
			r.Domain = fmt.Sprintf("more%d.hog.example", i)
			lanes.mu.Lock()
			c, now := lanes.to(lanesCA), time.Now()
			w := c.join(r, now)
			c.leavePlace(w, now, time.Hour)
			c.list(w, func() { calls.Add(1) })
			c.call(now)
			lanes.mu.Unlock()
		}
		time.Sleep(31 * time.Second) // there is room for one in ten
		synctest.Wait()
		if n := calls.Load(); n < 2 || n > 5 {
			t.Errorf("%d are called", n)
		}
		lanes.Close()
	})
}

// Whatever attempts do, and whenever they end, no lane is lost, and nobody is remembered in the end.
func TestNothingIsLeft(t *testing.T) {
	for seed := range uint64(10) {
		synctest.Test(t, func(t *testing.T) {
			lanes := NewLanes()
			var work sync.WaitGroup
			var attempt func(r *rand.Rand, i, tries int)
			attempt = func(r *rand.Rand, i, tries int) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(r.Int64N(int64(40*time.Second))))
				defer cancel()
				request := wants(fmt.Sprintf("www.site%d.example", i%30), r.IntN(3)*10)
				request.IsPatient, request.HasOrder, request.IsDone = r.IntN(4) == 0, r.IntN(4) == 0, r.IntN(8) == 0
				if i%2 == 0 {
					request.Window = OrderWindow{Orders: 40, Per: time.Minute}
				}
				lane, err := lanes.Enter(ctx, request)
				var queued *QueuedError
				if errors.As(err, &queued) && tries > 0 && r.IntN(4) > 0 {
					work.Add(1)
					var once sync.Once
					again := func() { once.Do(func() { defer work.Done(); attempt(r, i, tries-1) }) }
					queued.OnTurn(again)
					time.AfterFunc(queuedMost, again)
				}
				if err != nil {
					return
				}
				time.Sleep(time.Duration(r.Int64N(int64(4 * time.Second))))
				if r.IntN(3) > 0 {
					lane.Order()
				}
				lanes.Validated(request, Validation(r.IntN(4)))
				lane.Leave()
				lane.Leave()
			}
			for i := range 300 {
				r := rand.New(rand.NewPCG(seed, uint64(i)))
				work.Go(func() {
					time.Sleep(time.Duration(r.Int64N(int64(time.Minute))))
					attempt(r, i, 3)
				})
			}
			work.Wait()
			lanes.Close()
			synctest.Wait()
			c := lanes.cas[lanesCA]
			if len(c.held)+len(c.present)+len(c.places)+len(c.listed)+len(c.called) != 0 || c.own != 0 {
				t.Errorf("seed %d: left are %+v", seed, c)
			}
			for domain, d := range c.domains {
				if d.inUse != 0 {
					t.Errorf("seed %d: %s has %d lanes of its own", seed, domain, d.inUse)
				}
			}
			time.Sleep(time.Hour)
			for key := range c.windows {
				if left := lanes.OrdersLeft(lanesCA, key.OrderWindow); left != float64(key.Orders) {
					t.Errorf("seed %d: %v orders are left of %d", seed, left, key.Orders)
				}
			}
		})
	}
}

func BenchmarkEnterBesidePlaces(b *testing.B) {
	lanes := NewLanes()
	defer lanes.Close()
	place(lanes, 0, mostPlaces/2, 30)
	place(lanes, mostPlaces/2, mostPlaces/2, 0)
	for i := 0; b.Loop(); i++ {
		lane, err := lanes.Enter(b.Context(), wants(fmt.Sprintf("www%d.example", i), 0))
		if err != nil {
			b.Fatal(err)
		}
		lane.Leave()
	}
}
