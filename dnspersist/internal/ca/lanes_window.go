package ca

import "time"

// OrderWindow is how many orders of an account may be made in which time; zero for no bound.
type OrderWindow struct {
	Orders int
	Per    time.Duration
}

// interval is how long it takes until there is room for one more.
func (o OrderWindow) interval() time.Duration { return o.Per / time.Duration(max(o.Orders, 1)) }

// domainShare is the part of a window that a registered domain may use while others wait.
const domainShare = 20 // a twentieth

type windowKey struct {
	account string
	OrderWindow
}

// window is an OrderWindow of an account: a CA counts the orders of an account, not those of one configuration.
type window struct {
	OrderWindow
	room float64
	at   time.Time
	// orders are those of the last window, and byDomain how many each registered domain has made of them.
	orders   []windowOrder
	byDomain map[string]int
}

type windowOrder struct {
	domain string
	at     time.Time
}

// windowOf is the window for a request; nil without one.
func (c *lanes) windowOf(r LaneRequest) *window {
	if r.Window.Orders <= 0 || r.Window.Per <= 0 {
		return nil
	}
	key := windowKey{r.Account, r.Window}
	if c.windows[key] == nil {
		c.windows[key] = &window{OrderWindow: r.Window, room: float64(r.Window.Orders), at: time.Now(), byDomain: make(map[string]int)}
	}
	return c.windows[key]
}

// left is how many orders there is room for.
func (w *window) left(now time.Time) float64 {
	return min(w.room+float64(now.Sub(w.at))/float64(w.interval()), float64(w.Orders))
}

// until is how long it takes until there is room for an order.
func (w *window) until(now time.Time) time.Duration {
	return max(time.Duration((1-w.left(now))*float64(w.interval()))+time.Millisecond, 0)
}

// take takes the room for an order.
func (w *window) take(domain string, now time.Time) {
	w.room, w.at = w.left(now)-1, now
	w.orders = append(w.orders, windowOrder{domain, now})
	w.byDomain[domain]++
	w.sweep(now)
}

// giveBack gives it back.
func (w *window) giveBack(domain string, now time.Time) {
	w.room, w.at = w.left(now)+1, now
	for i := len(w.orders) - 1; i >= 0; i-- {
		if w.orders[i].domain == domain {
			w.orders = append(w.orders[:i], w.orders[i+1:]...)
			w.uncount(domain)
			return
		}
	}
}

func (w *window) sweep(now time.Time) {
	i := 0
	for ; i < len(w.orders) && now.Sub(w.orders[i].at) >= w.Per; i++ {
		w.uncount(w.orders[i].domain)
	}
	w.orders = w.orders[i:]
}

func (w *window) uncount(domain string) {
	if w.byDomain[domain]--; w.byDomain[domain] <= 0 {
		delete(w.byDomain, domain)
	}
}

// hasUsedShare reports whether a registered domain has used as much of the window as it may while others wait.
func (w *window) hasUsedShare(domain string, now time.Time) bool {
	w.sweep(now)
	return w.byDomain[domain] >= max(w.Orders/domainShare, 1)
}

// OrdersLeft is how many orders a window lets through now: of the account that has used up the most, if the CA has
// several.
func (l *Lanes) OrdersLeft(directory string, o OrderWindow) float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	left := float64(o.Orders)
	if c := l.cas[directory]; c != nil {
		for key, w := range c.windows {
			if key.OrderWindow == o {
				left = min(left, w.left(time.Now()))
			}
		}
	}
	return max(left, 0)
}
