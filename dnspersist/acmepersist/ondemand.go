package acmepersist

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/fair"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// ownersTurn reports whether a record is not written yet because the owner of the domain has to act
// first. Whoever opens a connection chooses the names of on-demand TLS: that its CNAME leads to us is
// the owner's word. A name in a zone of the provider's has no CNAME, there the permission is the sign.
func (s *session) ownersTurn(w wanted, r propagation.Report) bool {
	return s.iss.OnDemand && w.target != "" && s.iss.Delegation.leadsTo(r.Alias(), w.identifier) != w.target
}

const (
	// recordsAgain is when it is seen again whether there is room for another record.
	recordsAgain = time.Hour
	// mostPaces bounds how many registered domains are remembered: one that has not written for an
	// hour is forgotten, which changes nothing.
	mostPaces = 10_000
)

// writePace bounds how many records are written on demand for the names of a registered domain. It is the
// process's, for a reload must not begin anew.
type writePace struct {
	mu      sync.Mutex
	domains map[string]*rate.Limiter
}

var onDemandWrites writePace

// take returns how long the next write of a domain has to wait, zero if it may go on.
func (p *writePace) take(domain string, perHour int, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.domains == nil {
		p.domains = make(map[string]*rate.Limiter)
	}
	if len(p.domains) >= mostPaces {
		for d, l := range p.domains {
			if l.TokensAt(now) >= float64(l.Burst()) {
				delete(p.domains, d)
			}
		}
	}
	l := p.domains[domain]
	if l == nil {
		l = rate.NewLimiter(0, 0)
		p.domains[domain] = l
	}
	if l.Burst() != perHour {
		*l = *rate.NewLimiter(rate.Limit(float64(perHour)/time.Hour.Seconds()), perHour)
	}
	r := l.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait > 0 {
		r.CancelAt(now)
	}
	return wait
}

// WriteBoundError says that a record is not written on demand yet, as there are so many.
type WriteBoundError struct {
	// Option is what bounds it.
	Option string
	// Domain is the registered domain that has used up its part; empty if all have.
	Domain string
}

func (e *WriteBoundError) Error() string {
	whose := "on demand"
	if e.Domain != "" {
		whose += " for names of " + e.Domain
	}
	return fmt.Sprintf("as many records as %s allows were written %s: let the permission (ask) list exact names, or raise the option", e.Option, whose)
}

// mayWrite holds a write on demand against its bounds. The name is watched all the same.
func (s *session) mayWrite(ctx context.Context, w wanted) error {
	if !s.iss.OnDemand {
		return nil
	}
	if most := s.iss.MaxRecords; most > 0 {
		keys, err := s.store.Storage.List(ctx, s.store.Key("published"), false)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("listing what was written: %w", err)
		}
		if len(keys) >= most {
			return &PublishError{Name: w.record.Place(), RetryAt: time.Now().Add(recordsAgain), Err: &WriteBoundError{Option: "max_records"}}
		}
	}
	if most := s.iss.WritesPerHour; most > 0 {
		domain := fair.Domain(record.Base(w.identifier))
		if wait := onDemandWrites.take(s.iss.CA+" "+domain, most, time.Now()); wait > 0 {
			return &PublishError{Name: w.record.Place(), RetryAt: time.Now().Add(wait), Err: &WriteBoundError{Option: "writes_per_hour", Domain: domain}}
		}
	}
	return nil
}
