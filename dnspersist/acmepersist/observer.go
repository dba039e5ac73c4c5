package acmepersist

import (
	"context"
	"errors"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

// Observer is told what an Issuer does and finds, for whoever counts it or passes it on. Its methods must not
// block, and may be called at the same time.
type Observer interface {
	// Happened is called for each event.
	Happened(Event)
	// Issued is called with the time from when an attempt the record is known to be complete to the certificate.
	Issued(took time.Duration)
	// Records is called now and then with what was last seen of the published records, of those for domains
	// on demand and of the others by themselves.
	Records(onDemand bool, seen Records)
	// Noticed is called with what somebody may have to know, also if it is no news.
	Noticed(Notice)
}

// Records is what the looks at records by which certificates are renewed have found, those of other nodes
// included.
type Records struct {
	// Ends is when the first of them ends; zero if none does.
	Ends time.Time
	// NotReady is how many are not as they should be, by what was found.
	NotReady map[propagation.Status]int
	// Faults are what is wrong with them, each by itself, and with those that end soon.
	Faults []RecordFault
}

// NotReady is what may be found of a record that is not as it should be.
var NotReady = []propagation.Status{propagation.StatusAbsent, propagation.StatusPartial, propagation.StatusBlocked}

// Event is something that an Issuer does, or learns.
type Event int

// Events of an order, each for one request that was made for it.
const (
	// EventOrderMade: the CA has made an order.
	EventOrderMade Event = iota
	// EventOrderRefused: it has refused to.
	EventOrderRefused
	// EventOrderLimited: it has asked to wait.
	EventOrderLimited
	// EventOrderFailed: it did not answer, or not usefully.
	EventOrderFailed
)

// Events of a validation.
const (
	// EventValid: the CA has validated the domain, and the order is finalized.
	EventValid Event = iota + EventOrderFailed + 1
	// EventRefused: it has looked, and refused.
	EventRefused
	// EventCAFault: a fault of its own has ended the validation.
	EventCAFault
	// EventUndecided: it has not decided for so long that another order is made.
	EventUndecided
	// EventAskedEarly: it was asked to validate before the record was known to be complete.
	EventAskedEarly
)

// Events of the account and the CA.
const (
	// EventAccountUsable: the CA has accepted the account.
	EventAccountUsable Event = iota + EventAskedEarly + 1
	// EventAccountLost: the account cannot be used.
	EventAccountLost
	// EventCAAnswered: the CA has answered.
	EventCAAnswered
	// EventCADown: it has not, or with errors of its own.
	EventCADown
)

// noObserver is where nobody counts.
type noObserver struct{}

func (noObserver) Happened(Event)        {}
func (noObserver) Issued(time.Duration)  {}
func (noObserver) Records(bool, Records) {}
func (noObserver) Noticed(Notice)        {}

// orderEvent is what has come of a request for an order.
func orderEvent(err error) Event {
	var problem acme.Problem
	var down *ca.DownError
	switch {
	case err == nil:
		return EventOrderMade
	case ca.IsRateLimited(err):
		return EventOrderLimited
	case errors.As(err, &problem) && !errors.As(err, &down):
		return EventOrderRefused
	}
	return EventOrderFailed
}

// reached notes what a conversation that has ended with err shows of the CA and the account. answered is
// true if the CA has answered; account is the URL of the account that it has accepted, empty if it has not.
func (iss *Issuer) reached(err error, answered bool, account string) {
	iss.outage.note(err, answered, walltime.Now())
	var down *ca.DownError
	switch {
	case errors.As(err, &down):
		iss.Observer.Happened(EventCADown)
	case answered:
		iss.Observer.Happened(EventCAAnswered)
	}
	var lost *AccountError
	switch {
	case errors.As(err, &lost):
		iss.Observer.Happened(EventAccountLost)
		iss.Observer.Noticed(Notice{Kind: NoticeAccountLost, CA: iss.CA, Account: lost.URL, Err: lost.Err, Names: lost.Names})
	case account != "":
		iss.Observer.Happened(EventAccountUsable)
		iss.Observer.Noticed(Notice{Kind: NoticeAccountUsable, CA: iss.CA, Account: account})
	}
}

// confirmAccount has the CA confirm the account, and notes what that shows: nothing where the CA has done so lately.
func (s *session) confirmAccount(ctx context.Context) error {
	err := s.account.Check(ctx)
	accepted := ""
	if err == nil && s.HasAnswered() {
		accepted = s.account.URL
	}
	s.iss.reached(err, s.HasAnswered(), accepted)
	return err
}

// completeSince is since when the record is known to be complete; zero if it is not.
func (f facts) completeSince() time.Time {
	switch r := f.report; {
	case !f.isReady():
		return time.Time{}
	case r.Since.IsZero(): // of an order that was kept
		return r.When
	default:
		return r.Since
	}
}
