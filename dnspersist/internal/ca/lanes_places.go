package ca

import (
	"math"
	"slices"
	"time"
)

// placeKey is whose place it is.
type placeKey struct{ account, domain string }

// listKey is a list of places that go by one order. Those that need no room in an order window are in the lists without
// one, and those of failing registered domains are apart, for a thousand of them may wait for few lanes of their own.
type listKey struct {
	window           *window
	isNew, isFailing bool
}

func (w *laneWait) place() placeKey { return placeKey{w.request.Account, w.request.Domain} }

func (w *laneWait) list() listKey {
	key := listKey{w.window, w.isNew(), w.isListedFailing}
	if w.request.HasOrder {
		key.window = nil
	}
	return key
}

// leavePlace keeps the place of an attempt that goes, for so long. If there are too many, the last one is dropped.
func (c *lanes) leavePlace(w *laneWait, now time.Time, keep time.Duration) {
	if i := slices.Index(c.present, w); i >= 0 {
		c.present = slices.Delete(c.present, i, i+1)
	}
	if former := c.places[w.place()]; former != nil { // of another configuration
		c.drop(former)
	}
	if c.all.isClosed {
		return
	}
	w.dropAt = now.Add(keep)
	c.places[w.place()] = w
	if len(c.places) > mostPlaces {
		last := w
		for _, list := range c.listed {
			if end := list[len(list)-1]; compareFixed(last, end) < 0 {
				last = end
			}
		}
		c.drop(last)
	}
}

// drop drops a place.
func (c *lanes) drop(w *laneWait) {
	if c.places[w.place()] == w {
		delete(c.places, w.place())
		c.unlist(w)
		if i := slices.Index(c.called, w); i >= 0 {
			c.called = slices.Delete(c.called, i, i+1)
		}
	}
}

// list has a place called when its turn is near, unless it was dropped.
func (c *lanes) list(w *laneWait, onTurn func()) {
	if c.places[w.place()] != w {
		return
	}
	c.unlist(w)
	w.onTurn, w.isListedFailing = onTurn, c.isFailing(w)
	list := c.listed[w.list()]
	if i, found := slices.BinarySearchFunc(list, w, compareFixed); !found {
		c.listed[w.list()] = slices.Insert(list, i, w)
	}
}

func (c *lanes) unlist(w *laneWait) {
	list := c.listed[w.list()]
	i, found := slices.BinarySearchFunc(list, w, compareFixed)
	if !found || list[i] != w {
		return
	}
	if list = slices.Delete(list, i, i+1); len(list) == 0 {
		delete(c.listed, w.list())
	} else {
		c.listed[w.list()] = list
	}
}

// relist puts the places of a registered domain into other lists when it begins to fail, or ends to.
func (c *lanes) relist(domain string) {
	var its []*laneWait
	for _, list := range c.listed {
		for _, w := range list {
			if w.domain == domain {
				its = append(its, w)
			}
		}
	}
	for _, w := range its {
		c.list(w, w.onTurn)
	}
}

// sweep drops the places of those who were called and have not come, and now and then those that nobody was called for.
func (c *lanes) sweep(now time.Time) {
	for len(c.called) > 0 && (c.all.isClosed || now.Sub(c.called[0].calledAt) > calledFor) {
		c.drop(c.called[0])
	}
	if !c.all.isClosed && now.Sub(c.sweptAt) < sweepEvery {
		return
	}
	c.sweptAt = now
	for _, w := range c.places {
		if c.all.isClosed || now.After(w.dropAt) {
			c.drop(w)
		}
	}
}

// call calls those next who have gone, where fewer are on their way than lanes will be free soon. None is kept free
// for them: who does not come has lost its place.
func (c *lanes) call(now time.Time) {
	c.sweep(now)
	if len(c.listed) > 0 {
		coming := coming{first: make(map[*window]int), passedOver: make(map[*window]int)}
		for _, w := range slices.Concat(c.present, c.called) {
			coming.count(c, w, now)
		}
		for w := c.nextPlace(coming, now); w != nil; w = c.nextPlace(coming, now) {
			coming.count(c, w, now)
			w.calledAt = now
			c.unlist(w)
			c.called = append(c.called, w)
			go w.onTurn()
		}
	}
	c.arm(now)
}

// coming counts those on their way to a lane, who wait or were called. Own are those who can have the lane of their
// registered domain only. The others are counted by their order window: those who are passed over keep nobody else from
// being called.
type coming struct {
	own, all, allPassedOver int
	first, passedOver       map[*window]int
}

func (n *coming) count(c *lanes, w *laneWait, now time.Time) {
	byWindow, all := n.first, &n.all
	if c.isPassedOver(w, now) {
		byWindow, all = n.passedOver, &n.allPassedOver
	}
	byWindow[w.window]++
	if c.isFailing(w) {
		all = &n.own
	}
	*all++
}

// nextPlace is the one to call next, nil if enough are on their way.
func (c *lanes) nextPlace(on coming, now time.Time) (next *laneWait) {
	lanes := min(c.width.lanes, c.most)
	mayOthers, mayOwn := on.all < callAhead*lanes, on.own < c.mostOwn(lanes)
	if !mayOthers && !mayOwn {
		return nil
	}
	for key, list := range c.listed {
		room := math.Inf(1)
		if key.window != nil {
			room = key.window.left(now.Add(soon)) - float64(on.first[key.window]) - 1
		}
		if room < 0 || key.isFailing && !mayOwn || !key.isFailing && !mayOthers {
			continue
		}
		roomLast := room - float64(on.passedOver[key.window])
		for _, w := range list {
			hasUsedShare := key.window != nil && key.window.hasUsedShare(w.domain, now)
			d := c.domains[w.domain]
			switch {
			case key.isFailing && d != nil && d.inUse > 0:
				continue
			case hasUsedShare && (roomLast < 0 || !key.isFailing && on.all+on.allPassedOver >= callAhead*lanes):
				continue
			}
			if next == nil || c.compare(w, next, now) < 0 {
				next = w
			}
			if !hasUsedShare {
				break // those behind it come later
			}
		}
	}
	return next
}

// arm comes back when there is room in a window for who waits, and each second while somebody is to be called.
func (c *lanes) arm(now time.Time) {
	wait := time.Duration(-1)
	if len(c.places) > 0 {
		wait = sweepEvery
	}
	if len(c.listed)+len(c.called) > 0 {
		wait = time.Second
	}
	for _, w := range c.present {
		if w.hasRoom(now) {
			continue // a lane that becomes free is enough
		}
		if next := min(w.window.until(now), time.Second); wait < 0 || next < wait {
			wait = next
		}
	}
	switch {
	case wait < 0:
		if c.timer != nil {
			c.timer.Stop()
		}
	case c.timer != nil:
		c.timer.Reset(wait)
	default:
		c.timer = time.AfterFunc(wait, func() {
			c.all.mu.Lock()
			defer c.all.mu.Unlock()
			c.grant(time.Now())
		})
	}
}
