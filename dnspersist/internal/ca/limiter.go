package ca

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// limiters are shared by all issuers of the process: a CA counts the orders of an
// account, not those of one configuration.
var limiters sync.Map // limiterKey -> *rate.Limiter

type limiterKey struct {
	ca, account string
	orders      int
	window      time.Duration
}

// SharedLimiter returns the Issuer.Limiter that allows a number of orders in a
// window, for each CA and account in this process. No goroutine is needed for it.
func SharedLimiter(ca string, orders int, window time.Duration) func(account string) *rate.Limiter {
	return func(account string) *rate.Limiter {
		key := limiterKey{ca, account, orders, window}
		fresh := rate.NewLimiter(rate.Every(window/time.Duration(orders)), orders)
		l, _ := limiters.LoadOrStore(key, fresh)
		return l.(*rate.Limiter)
	}
}
