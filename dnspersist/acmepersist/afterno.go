package acmepersist

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

// refusedRetry is how long a name waits that the CA has refused although DNS showed nothing
// wrong, where nothing else says when to ask again.
const refusedRetry = time.Minute

// RefusedError says that the CA has not validated a name.
type RefusedError struct {
	// Identifier is the name, Name its validation name.
	Identifier, Name string
	// Internal is true if that was a fault inside the CA, of which the record and DNS know
	// nothing.
	Internal bool
	// Err is what the CA said.
	Err error
}

func (e *RefusedError) Error() string {
	if e.Internal {
		return fmt.Sprintf("a fault inside the CA kept it from validating %s; neither the record at %s nor DNS is the cause, and it is asked again later: %v",
			e.Identifier, e.Name, e.Err)
	}
	return fmt.Sprintf("the CA did not validate %s by the record at %s: %v", e.Identifier, e.Name, e.Err)
}

func (e *RefusedError) Unwrap() error { return e.Err }

// afterNo parks a name that the CA has refused. If it was asked against the gate's advice,
// DNS is watched, so that it is asked at once when the record is complete; else only time
// helps. A certificate that runs out goes on asking.
func (a *attempt) afterNo(ctx context.Context, w wanted, seen propagation.Report, err error) error {
	if a.iss.Parker == nil || a.iss.Checker == nil || w.record.Name == "" {
		return err
	}
	known, stateErr := a.store.Name(ctx, w.record.Name)
	if stateErr != nil {
		return err
	}
	now := walltime.Now()
	p := Parking{
		Identifier: w.identifier, Record: w.record, Err: err,
		Retry: later(known.NextAttempt(), now.Add(refusedRetry)),
	}
	if a.job.certificate != nil {
		c := clock{certificate: a.job.certificate, ratio: a.iss.windowRatio(), lastAttempt: now, shortest: a.iss.MinAskInterval}
		if due := later(c.due(), known.NextAttempt()); seen.Status != propagation.StatusReady || due.Before(p.Retry) {
			p.Retry = due
		}
	}
	if seen.Status != propagation.StatusReady {
		p.Report = seen.Shortened(weigh(w.want)) // one that was ready would let the next attempt pass without a look
		p.Checker, p.Target, p.Gate = a.iss.Checker, a.target(w, known), propagation.NewGate(a.iss.Grace, a.iss.Settle)
	}
	return a.park(ctx, p)
}

// failedByCA makes the error for a validation that failed by a fault inside the CA. The CA counts
// it, so it costs an attempt; what is known of the values stays.
func (s *session) failedByCA(ctx context.Context, w wanted, reason error) error {
	err := s.store.UpdateName(ctx, w.record.Name, func(n *state.Name) bool {
		n.NotBefore = n.AskAgainAt(propagation.Report{}, s.iss.cacheCap(), walltime.Now())
		return true
	})
	return errors.Join(&RefusedError{Identifier: w.identifier, Name: w.record.Name, Internal: true, Err: reason}, err)
}

// refused reports whether err says that the CA has refused a name.
func refused(err error) bool {
	var no *RefusedError
	var disagrees *DisagreementError
	return errors.As(err, &no) || errors.As(err, &disagrees)
}
