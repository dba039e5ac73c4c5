package acmepersist

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
)

// fillsLanes has others in all lanes to the CA, until the returned function is called.
func (r *trial) fillsLanes() (leave func()) {
	r.t.Helper()
	var lanes []*ca.Lane
	for i := 0; ; i++ {
		if inUse, limit := r.Lanes.State(fakeDirectory); inUse > 0 && inUse >= limit {
			break
		}
		lane, err := r.Lanes.Enter(r.t.Context(), ca.LaneRequest{CA: fakeDirectory, Domain: fmt.Sprintf("other%d.example", i)})
		if err != nil {
			r.t.Fatal(err)
		}
		lanes = append(lanes, lane)
	}
	return func() {
		for _, lane := range lanes {
			lane.Leave()
		}
	}
}

func TestQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		r.knowsTheCA()
		r.dns.set(wwwName, wwwValue)
		leave := r.fillsLanes()
		began := time.Now()
		hold := r.holds(ReasonQueued)
		if took := time.Since(began); took < 20*time.Second || took > 21*time.Second {
			t.Errorf("it has queued for %s", took)
		}
		r.asked("")
		r.waits(hold, 5*time.Minute+time.Second)
		called := make(chan bool, 1)
		hold.OnTurn(func() { called <- true })
		<-called
		leave()
		r.succeeds()
		if inUse, _ := r.Lanes.State(fakeDirectory); inUse != 0 {
			t.Errorf("%d lanes are in use afterwards", inUse)
		}
	})
}

// A program without Caddy waits for its turn, and whoever gives up lets those behind it go.
func TestWaitingForATurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t, func(c *Config) { c.Window = OrderWindow{Orders: 2, Per: time.Hour} })
		r.knowsTheCA()
		r.dns.set(wwwName, wwwValue)
		r.succeeds() // the second order
		used := time.Now()
		var holds []*Hold
		for _, domain := range []string{"a.example.test", "b.example.test"} {
			r.wants(domain)
			r.dns.set("_validation-persist."+domain, wwwValue)
			holds = append(holds, r.holds(ReasonQueued))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := holds[0].Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the error is %v", err)
		}
		if _, err := holds[1].Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if after := time.Since(used); after < 29*time.Minute || after > 30*time.Minute {
			t.Errorf("its turn comes after %s", after)
		}
		r.succeeds()
	})
}

// A lane is given back while the CA takes its time, and an order that it has validated meanwhile is kept whatever the queue
// for the certificate is.
func TestLaneIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		r.knowsTheCA()
		r.dns.set(wwwName, wwwValue)
		r.ca.verdict = "pending"
		done := make(chan error)
		go func() { done <- r.obtain(Request{}) }()
		time.Sleep(2 * time.Second)
		if inUse, _ := r.Lanes.State(fakeDirectory); inUse != 1 {
			t.Errorf("%d lanes are in use while the CA validates", inUse)
		}
		time.Sleep(6 * time.Second)
		if inUse, _ := r.Lanes.State(fakeDirectory); inUse != 0 {
			t.Errorf("%d lanes are in use while the CA takes its time", inUse)
		}
		leave := r.fillsLanes()
		r.ca.mu.Lock()
		r.ca.verdict = "valid"
		r.ca.mu.Unlock()
		r.isHold(<-done, ReasonQueued)
		if kept, found := r.kept(); !found || kept.PostedAt.IsZero() {
			t.Errorf("kept is %+v", kept)
		}
		leave()
		r.ca.asked()
		r.succeeds()
		if asked := r.ca.asked(); strings.Contains(asked, "new-order") || strings.Contains(asked, "challenge") {
			t.Errorf("the CA was asked for %s", asked)
		}
	})
}

// Nobody holds a lane for the order window, an order that is kept needs no room in it, and one that was not made gives its
// room back.
func TestOrderWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t, func(c *Config) { c.Window = OrderWindow{Orders: 2, Per: 48 * time.Hour} })
		r.asksInVain() // two orders, one is kept
		r.wants("other.example.test")
		r.dns.set("_validation-persist.other.example.test", wwwValue)
		hold := r.holds(ReasonQueued)
		if !strings.Contains(hold.Error(), "rate_limit lets no more orders through than 2 in 48h0m0s") {
			t.Errorf("the error is %v", hold)
		}
		if inUse, _ := r.Lanes.State(fakeDirectory); inUse != 0 {
			t.Errorf("%d lanes are in use", inUse)
		}
		r.ca.verdict = "valid"
		r.wants("www.example.test")
		r.succeeds()
	})
}

// A CA that is down is asked by one attempt a minute, not by everybody in turn, and those in the queue wait for it and
// not for their turn.
func TestQueueAtACAThatIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		r.knowsTheCA()
		r.dns.set(wwwName, wwwValue)
		leave := r.fillsLanes()
		ended := make(chan error, 1)
		go func() { ended <- r.obtain(Request{}) }()
		time.Sleep(time.Second)
		began := time.Now()
		down := &ca.DownError{CA: fakeDirectory, Err: errors.New("out of order")}
		for range sureFailures {
			if r.outage.wait(0, began) > 0 {
				t.Error("a failure that may be about one domain keeps others from asking")
			}
			r.outage.note(down, false, began)
		}
		leave()
		r.isHold(<-ended, ReasonCADown)
		if inUse, _ := r.Lanes.State(fakeDirectory); inUse != 0 {
			t.Errorf("%d lanes are in use", inUse)
		}
		for now := began; now.Sub(began) < 10*time.Minute; now = now.Add(time.Second) {
			left := time.Duration(0)
			if now.Sub(began) > 5*time.Minute {
				left = 4 * time.Minute
			}
			if r.outage.wait(left, now) > 0 {
				continue
			}
			if wait := r.outage.wait(left, now); wait == 0 || wait > time.Minute {
				t.Errorf("beside one who finds out whether it is still down another waits for %s", wait)
			}
			if r.outage.note(down, false, now); now.Sub(began) < time.Minute {
				t.Errorf("it is asked after %s already", now.Sub(began))
			}
		}
		leave = r.fillsLanes()
		hold := r.holds(ReasonCADown)
		if hold.OnTurn != nil {
			t.Error("it waits for its turn")
		}
		r.asked("")
		leave()
	})
}
