package acmepersist

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

const (
	// inlineProcessing is how long an attempt waits for a CA that takes its time over a
	// validation, before it is parked with its order.
	inlineProcessing = time.Minute
	// inlineWithoutParker is how long it waits where nobody takes the name over.
	inlineWithoutParker = 5 * time.Minute
	// longestProcessing is the longest time between two looks at such an order.
	longestProcessing = 10 * time.Minute
	// finalizePatience is how long an attempt waits after finalize: the key is known to
	// this attempt alone, so this wait cannot be parked.
	finalizePatience = 10 * time.Minute
)

// ProcessingError says that the CA has been asked and has not decided yet. The order is
// kept and looked at again, also after a restart.
type ProcessingError struct {
	// Identifier is the name that is being validated.
	Identifier string
	// CA is the directory URL.
	CA string
	// Since is when the CA was asked, RetryAt when it is looked at again.
	Since, RetryAt time.Time
}

func (e *ProcessingError) Error() string {
	return fmt.Sprintf("ca_processing: %s has been validating %s since %s and has not decided; its order is kept and looked at again after %s",
		e.CA, e.Identifier, e.Since.UTC().Format(time.RFC3339), e.RetryAt.UTC().Format(time.RFC3339))
}

// patience is how long this attempt waits for a validation.
func (s *session) patience() time.Duration {
	if s.iss.Parker == nil {
		return orDefault(s.iss.Timeout, inlineWithoutParker)
	}
	return min(s.iss.timeout(), orDefault(s.iss.InlineProcessing, inlineProcessing))
}

// putAside parks a name whose CA has not decided, with its order.
func (s *session) putAside(ctx context.Context, w wanted, since time.Time) error {
	wait := min(max(walltime.Since(since)/4, s.Interval(ca.MinInterval)), longestProcessing)
	e := &ProcessingError{Identifier: w.identifier, CA: s.iss.CA, Since: since, RetryAt: walltime.Now().Add(wait)}
	return s.park(ctx, Parking{Identifier: w.identifier, Record: w.record, Retry: e.RetryAt, Err: e})
}

// underway returns the kept order of the names if the CA is at work on it, or has said no
// meanwhile, with its authorizations: then the gate has been passed, and what DNS shows now is
// not for us to judge.
func (a *attempt) underway(ctx context.Context) (order acme.Order, authzs []acme.Authorization, ok bool, err error) {
	kept, found, err := a.keptOrder(ctx, a.name)
	if err != nil || !found || kept.PostedAt.IsZero() {
		return order, nil, false, err
	}
	order, usable, err := a.resume(ctx, kept)
	switch {
	case err != nil:
		return order, nil, false, err
	case usable && order.Status != acme.StatusPending:
		// an order that is ready, or more, has all that DNS could give it
		a.see(kept)
		return order, nil, true, nil
	case !usable && order.Status != acme.StatusInvalid:
		return order, nil, false, nil
	}
	if authzs, err = a.authorizations(ctx, order); err != nil {
		var problem acme.Problem
		if order.Status == acme.StatusInvalid && errors.As(err, &problem) && !ca.IsProblem(err, "accountDoesNotExist") && !ca.IsRateLimited(err) && !a.IsBusy() {
			// the CA no longer tells why, and another order may do
			return order, nil, false, nil
		}
		return order, nil, false, err
	}
	for _, authz := range authzs {
		switch authz.Status {
		case acme.StatusValid:
		case acme.StatusInvalid:
			// its word is not lost because nobody waited for it
			ok = true
		case acme.StatusPending:
			c, is := ca.FindChallenge(authz)
			if !is || c.Status == acme.StatusPending && !a.posted(kept, c.URL) {
				return order, nil, false, nil
			}
			ok = true
		default:
			return order, nil, false, nil
		}
	}
	if ok {
		a.see(kept)
		a.logger.Info("going on with the order that the CA is validating",
			zap.String("identifier", a.name), zap.String("order", order.Location))
	}
	return order, authzs, ok, nil
}

// settle notes that the CA has accepted what stood at a name when it was asked.
func (a *attempt) settle(ctx context.Context) error {
	if a.worked {
		return a.remember(ctx, a.want, a.seen)
	}
	name, err := record.ValidationName(a.name)
	if err != nil {
		return err
	}
	var want record.Want
	seen := a.seen
	if t, err := a.Terms(a.offer); err == nil && a.HasTerms(a.offer) {
		want = a.hashedWant(t, a.name)
	} else {
		seen.Values = nil // nothing to hold them against
	}
	return a.remember(ctx, wanted{identifier: a.name, record: Record{Name: name}, want: want}, seen)
}

// posted reports whether the CA has taken a post of the challenge that it may still be at
// work on: some CAs leave it pending meanwhile.
func (s *session) posted(kept state.Order, challenge string) bool {
	return kept.Challenge == challenge && walltime.Since(kept.PostedAt) < s.iss.timeout()
}

// notePost keeps with the order that the CA has taken the post of a challenge, and what DNS
// showed before it.
func (a *attempt) notePost(ctx context.Context, challenge string) (since time.Time, err error) {
	kept, found, err := a.keptOrder(ctx, a.name)
	if err != nil || !found {
		return walltime.Now(), err
	}
	if kept.Challenge == challenge {
		return kept.PostedAt, nil
	}
	kept.Challenge, kept.PostedAt = challenge, walltime.Now().UTC()
	if a.looked {
		seen := digested(a.seen.Shortened(weigh(a.want.want)))
		kept.Seen = &seen
	}
	return kept.PostedAt, a.store.Save(ctx, a.store.OrderKey(a.name), kept)
}

// see takes from a kept order what DNS showed when the CA was asked.
func (a *attempt) see(kept state.Order) {
	if kept.Seen != nil {
		a.seen = *kept.Seen
	}
}

// digested is what the CA's word will be held against, and no more.
func digested(r propagation.Report) propagation.Report {
	short := propagation.Report{Name: r.Name, Zone: r.Zone, Mode: r.Mode, Status: r.Status, When: r.When, Values: r.Values}
	for _, s := range r.Servers {
		short.Servers = append(short.Servers, propagation.ServerReport{
			Zone: s.Zone, Name: s.Name, Host: s.Host, Verdict: s.Verdict, TTL: s.TTL, NegativeTTL: s.NegativeTTL,
		})
	}
	return short
}
