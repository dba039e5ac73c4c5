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
	newFirst := c.turns%3 == 2
	return cmp.Or(
		first(!c.isPassedOver(a, now), !c.isPassedOver(b, now)),
		first(a.request.IsDone, b.request.IsDone),
		first(a.isNew() == newFirst, b.isNew() == newFirst),
		compareFixed(a, b),
	)
}

// compareFixed is what of the order never changes.
func compareFixed(a, b *laneWait) int {
	return cmp.Or(
		first(a.request.IsDone, b.request.IsDone),
		first(!a.isNew(), !b.isNew()),
		a.request.NotAfter.Compare(b.request.NotAfter),
		a.since.Compare(b.since),
		cmp.Compare(a.come, b.come),
	)
}

// first puts that before the other of which it is true.
func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

func (w *laneWait) isNew() bool { return w.request.NotAfter.IsZero() }

// limit is the width, and no more than any of those who wait or are in a lane has configured.
func (c *lanes) limit() int {
	most := DefaultMostLanes
	if len(c.present)+len(c.held) > 0 {
		most = 1 << 20
	}
	for _, w := range c.present {
		most = min(most, w.request.Most)
	}
	for _, n := range c.held {
		most = min(most, n.request.Most)
	}
	c.most = most
	return c.width.limit(most)
}

// grant gives free lanes to those who wait, calls those who have gone where few do, and comes back when time
// alone may change something.
func (c *lanes) grant(now time.Time) {
	limit := c.limit()
	for {
		next := -1
		for i, w := range c.present {
			if c.mayGo(w, limit, now) && (next < 0 || c.compare(w, c.present[next], now) < 0) {
				next = i
			}
		}
		if next < 0 {
			break
		}
		w := c.present[next]
		c.present = slices.Delete(c.present, next, next+1)
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
