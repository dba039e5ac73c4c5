package ca

import (
	"cmp"
	"slices"
	"time"
)

// hasRoom reports whether the order window lets who waits through.
func (w *laneWait) hasRoom(now time.Time) bool {
	return w.window == nil || w.request.HasOrder || w.window.left(now) >= 1
}

// isFailing reports whether who waits can have the lane of its registered domain only.
func (c *lanes) isFailing(w *laneWait) bool {
	d := c.domains[w.domain]
	return d != nil && d.isFailing
}

// isPassedOver reports whether others go first: the registered domain has used its share of the window, or fails.
// Each eighth turn is one of those that fail as well, for they may have been set right.
func (c *lanes) isPassedOver(w *laneWait, now time.Time) bool {
	if w.window == nil || w.request.HasOrder {
		return false
	}
	return w.window.hasUsedShare(w.domain, now) || c.isFailing(w) && c.turns%8 != 7
}

// mayGo reports whether there is a lane for who waits.
func (c *lanes) mayGo(w *laneWait, most int, now time.Time) bool {
	switch {
	case !w.hasRoom(now):
		return false
	case c.isFailing(w):
		return c.domains[w.domain].inUse == 0 && c.own < c.mostOwn(most)
	}
	return len(c.held)-c.own < most
}

// mostOwn is how many registered domains may be in a lane of their own at once: all of them, which cost nothing,
// could be as much as the CA bears.
func (c *lanes) mostOwn(most int) int { return max(most/4, 1) }

// compare puts those who wait in the order in which they go.
func (c *lanes) compare(a, b *laneWait, now time.Time) int {
	first := func(a, b bool) int { // whom it is true of
		switch {
		case a == b:
			return 0
		case a:
			return -1
		}
		return 1
	}
	isNew := func(w *laneWait) bool { return w.request.NotAfter.IsZero() }
	newFirst := c.turns%3 == 2
	return cmp.Or(
		first(!c.isPassedOver(a, now), !c.isPassedOver(b, now)),
		first(a.request.IsDone, b.request.IsDone),
		first(isNew(a) == newFirst, isNew(b) == newFirst),
		a.request.NotAfter.Compare(b.request.NotAfter),
		cmp.Compare(a.come, b.come),
	)
}

// next returns who goes next of those that may, nil if nobody does.
func (c *lanes) next(may func(*laneWait) bool, now time.Time) (next *laneWait) {
	for _, w := range c.waits {
		if may(w) && (next == nil || c.compare(w, next, now) < 0) {
			next = w
		}
	}
	return next
}

// limit is the width, and no more than any of those who wait or are in a lane has configured.
func (c *lanes) limit() int {
	most := DefaultMostLanes
	if len(c.waits)+len(c.held) > 0 {
		most = 1 << 20
	}
	for _, w := range c.waits {
		if !w.isGone {
			most = min(most, w.request.Most)
		}
	}
	for _, n := range c.held {
		most = min(most, n.request.Most)
	}
	c.most = most
	return c.width.limit(most)
}

// grant gives free lanes to those who wait, calls those who have gone where few do, and comes back when time alone
// may change something.
func (c *lanes) grant(now time.Time) {
	limit := c.limit()
	for {
		w := c.next(func(w *laneWait) bool { return !w.isGone && c.mayGo(w, limit, now) }, now)
		if w == nil {
			break
		}
		c.drop(w)
		c.turns++
		n := &Lane{ca: c, request: w.request, domain: w.domain, window: w.window}
		if c.isFailing(w) {
			n.own = c.domains[w.domain]
			n.own.inUse++
			c.own++
		}
		if n.window != nil && !w.request.HasOrder {
			n.window.take(n.domain, now)
			n.hasRoom = true
		}
		c.held = append(c.held, n)
		w.lane = n
		close(w.granted)
	}
	c.width.short = c.width.short || len(c.held)-c.own >= limit
	c.call(now)
}

// call calls those next who have gone, where fewer are on their way than lanes will be free soon. None is kept free
// for them: who does not come has lost its place.
func (c *lanes) call(now time.Time) {
	c.waits = slices.DeleteFunc(c.waits, func(w *laneWait) bool {
		return w.isGone && (c.all.isClosed || now.After(w.dropAt) || !w.calledAt.IsZero() && now.Sub(w.calledAt) > calledFor)
	})
	limit := c.width.lanes
	var coming, own int // who waits, or was called, but for those passed over
	byWindow := make(map[*window]int)
	places := 0
	for _, w := range c.waits {
		switch isComing := !w.isGone || !w.calledAt.IsZero(); {
		case !isComing:
			places++
		case c.isFailing(w):
			own++
		case !c.isPassedOver(w, now):
			coming++
			byWindow[w.window]++
		}
	}
	for ; places > 0; places-- {
		w := c.next(func(w *laneWait) bool {
			switch {
			case !w.isGone || !w.calledAt.IsZero() || w.onTurn == nil:
				return false
			case w.window != nil && !w.request.HasOrder && w.window.left(now.Add(soon)) < float64(byWindow[w.window]+1):
				return false
			case c.isFailing(w):
				return own < c.mostOwn(limit) && c.domains[w.domain].inUse == 0
			}
			return coming < callAhead*limit
		}, now)
		if w == nil {
			break
		}
		if c.isFailing(w) {
			own++
		} else {
			coming++
		}
		byWindow[w.window]++
		w.calledAt = now
		go w.onTurn()
	}
	c.arm(now)
}

// arm comes back when there is room in a window for who waits, and each second while anybody has a place.
func (c *lanes) arm(now time.Time) {
	wait := time.Duration(-1)
	for _, w := range c.waits {
		next := time.Second
		if !w.isGone {
			if w.hasRoom(now) {
				continue // a lane that becomes free is enough
			}
			next = min(w.window.until(now), time.Second)
		}
		if wait < 0 || next < wait {
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
