package acmepersist

import (
	"context"
	"fmt"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
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
func (s *session) putAside(ctx context.Context, w wanted, since time.Time, j job) error {
	wait := min(max(time.Since(since)/4, s.interval(minInterval)), longestProcessing)
	e := &ProcessingError{Identifier: w.identifier, CA: s.iss.CA, Since: since, RetryAt: time.Now().Add(wait)}
	return s.park(ctx, Parking{Identifier: w.identifier, Record: w.record, Retry: e.RetryAt, NotAfter: j.notAfter(), Err: e})
}

// underway returns the kept order of the names if the CA is at work on it, with its
// authorizations: then the gate has been passed, and what DNS shows now is not for us to
// judge.
func (s *session) underway(ctx context.Context, names []string) (order acme.Order, authzs []acme.Authorization, ok bool, err error) {
	held, found, err := s.heldOrder(ctx, names)
	if err != nil || !found || len(held.Posted) == 0 {
		return order, nil, false, err
	}
	order, usable, err := s.resume(ctx, held.URL)
	if err != nil || !usable || order.Status != acme.StatusPending {
		// an order that is ready has all that DNS could give it
		return order, nil, err == nil && usable, err
	}
	if authzs, err = s.authorizations(ctx, order); err != nil {
		return order, nil, false, err
	}
	for _, a := range authzs {
		switch a.Status {
		case acme.StatusValid:
		case acme.StatusPending:
			c, is := ourChallenge(a)
			if !is || c.Status == acme.StatusPending && !s.posted(held, c.URL) {
				return order, nil, false, nil
			}
			ok = true
		default:
			return order, nil, false, nil
		}
	}
	if ok {
		s.logger.Info("going on with the order that the CA is validating",
			zap.Strings("identifiers", names), zap.String("order", order.Location))
	}
	return order, authzs, ok, nil
}

// settle forgets the attempts at a name, for the CA has accepted it.
func (s *session) settle(ctx context.Context, identifier string) error {
	name, err := record.ValidationName(identifier)
	if err != nil {
		return err
	}
	return s.iss.names.update(ctx, s.store, name, func(n *nameState) bool {
		n.sees(identifier)
		n.satisfied(nil, record.Want{}, s.account.Location, time.Now())
		return true
	})
}

// posted reports whether the CA has taken a post of the challenge that it may still be at
// work on: some CAs leave it pending meanwhile.
func (s *session) posted(held heldOrder, challenge string) bool {
	at, ok := held.Posted[challenge]
	return ok && time.Since(at) < s.iss.timeout()
}

// notePost keeps with the order that the CA has taken the post of a challenge.
func (s *session) notePost(ctx context.Context, names []string, challenge string) (since time.Time, err error) {
	held, found, err := s.heldOrder(ctx, names)
	if err != nil || !found {
		return time.Now(), err
	}
	if at, ok := held.Posted[challenge]; ok {
		return at, nil
	}
	if held.Posted == nil {
		held.Posted = make(map[string]time.Time)
	}
	now := time.Now().UTC()
	held.Posted[challenge] = now
	return now, s.store.save(ctx, s.orderKey(names), held)
}
