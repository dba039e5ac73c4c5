package acmepersist

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/site"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

// Reason is why a domain has no certificate yet.
type Reason string

// Reasons to wait for the record, which DNS ends.
const (
	// ReasonAbsent: no server shows the record.
	ReasonAbsent Reason = "record_absent"
	// ReasonWrong: something is published, and it is not the record.
	ReasonWrong Reason = "record_wrong"
	// ReasonPartial: not every server shows the record.
	ReasonPartial Reason = "record_partial"
	// ReasonConfirming: every server shows the record, and has for too short a time to be sure.
	ReasonConfirming Reason = "record_confirming"
	// ReasonBlocked: DNS cannot be looked at.
	ReasonBlocked Reason = "dns_blocked"
	// ReasonPublish: the record could not be published by the DNS provider.
	ReasonPublish Reason = "publish"
	// ReasonEnding: the record by which a certificate is renewed ends soon. Nothing waits for it.
	ReasonEnding Reason = "record_ending"
)

// Reasons to wait for something else than the record.
const (
	// ReasonBudget: the CA has refused the name so often that asking again now would use up its limits.
	ReasonBudget Reason = "budget"
	// ReasonRateLimited: the CA has asked to be left alone.
	ReasonRateLimited Reason = "rate_limited"
	// ReasonNotOffered: the CA does not offer dns-persist-01.
	ReasonNotOffered Reason = "not_offered"
	// ReasonAccount: the account cannot be used.
	ReasonAccount Reason = "account"
	// ReasonAccountURI: the CA wants another account URI in the record than the account's.
	ReasonAccountURI Reason = "account_uri"
	// ReasonCAA: CAA records forbid the CA to issue.
	ReasonCAA Reason = "caa"
	// ReasonRejected: the CA has not validated the name.
	ReasonRejected Reason = "rejected"
	// ReasonProcessing: the CA has been asked and has not decided yet.
	ReasonProcessing Reason = "ca_processing"
	// ReasonQueued: the CA works on other domains, and this one is in the queue.
	ReasonQueued Reason = "queued"
	// ReasonCADown: the CA does not answer, or answers with errors of its own.
	ReasonCADown Reason = "ca_down"
	// ReasonUnsupported: the name can never be validated this way.
	ReasonUnsupported Reason = "unsupported"
)

// Reasons are all of them.
var Reasons = []Reason{
	ReasonAbsent, ReasonWrong, ReasonPartial, ReasonConfirming, ReasonBlocked, ReasonEnding, ReasonPublish, ReasonBudget, ReasonRateLimited,
	ReasonNotOffered, ReasonAccount, ReasonAccountURI, ReasonCAA, ReasonRejected, ReasonProcessing, ReasonQueued, ReasonCADown,
	ReasonUnsupported,
}

// Hold is the error for a domain that has to wait. It says why, and when an attempt is worth it again.
// Take it out of an error by errors.As; functions return error, never *Hold.
type Hold struct {
	Reason Reason
	// Domain is what the certificate is for.
	Domain string
	// CA is the directory URL, Account the account URL.
	CA, Account string
	// Record is what has to be published, as far as it is known. Also is what other frontends of the CA
	// may want to see, nil if they agree.
	Record site.Record
	Also   *site.Record
	// Until is when to try again at the latest; zero if only Watch can end the wait.
	Until time.Time
	// Watch is what to look for meanwhile, nil where the wait is not for DNS.
	Watch *Watch
	// NotAfter is the end of the certificate that is to be renewed, zero for a first one.
	NotAfter time.Time
	// Urgent is from when on that certificate counts as running out.
	Urgent time.Time
	// OnTurn has fn called, once and on a goroutine of its own, when the domain's turn is near: at once if it is
	// already. GiveUp gives the place in the queue up, for whoever does not come back. They are nil where the wait is
	// not for a turn.
	OnTurn func(fn func())
	GiveUp func()
	// Answer is what the CA has last refused the domain with; nil if it has not.
	Answer *Answer
	// Err is the whole story.
	Err error
}

// Answer is a CA's no. It is kept in storage: the log of that day may be gone.
type Answer = state.Answer

// IsRunningOut reports whether a certificate is lost soon if the wait goes on.
func (h *Hold) IsRunningOut(now time.Time) bool { return !h.Urgent.IsZero() && !now.Before(h.Urgent) }

// Watch is what has to appear in DNS.
type Watch struct {
	// Checker, Target and Gate go on where the attempt has stopped.
	Checker *propagation.Checker
	Target  propagation.Target
	Gate    *propagation.Gate
	// Report is what DNS showed last.
	Report propagation.Report
	// Find explains what DNS shows where none of it is the record. May be nil.
	Find func(propagation.Report) site.Finding
	// Moved reports whether the validation name leads to another place than the attempt has seen, at which
	// another attempt can publish. May be nil.
	Moved func(propagation.Report) bool
}

func (h *Hold) Error() string { return h.Err.Error() }

func (h *Hold) Unwrap() error { return h.Err }

// Due returns when another attempt is worth it if DNS shows that, at the latest, and why; zero if that
// is not known. A time that has come means now.
func (h *Hold) Due(r propagation.Report, now time.Time) (at time.Time, why string) {
	at, why = h.Until, "it is time to try again whatever DNS shows"
	if h.Watch == nil || h.Reason == ReasonCADown { // no record ends an outage
		return at, why
	}
	switch {
	case r.Status == propagation.StatusReady:
		return now, "the record is published on every server"
	case h.Watch.Moved != nil && h.Watch.Moved(r):
		return now, "its validation name leads to where the record can be published"
	case r.Status == propagation.StatusPartial && !r.FirstYes.IsZero() && h.NotAfter.IsZero():
		// a first certificate does not wait for ever for the last server
		if patient := r.FirstYes.Add(partialPatience); at.IsZero() || patient.Before(at) {
			return patient, "the record has been on some servers for long"
		}
	}
	return at, why
}

// Wait waits until another attempt is worth it, for programs that have nobody else to do so. It returns
// what DNS showed last, which Obtain is to be given as Request.Seen.
func (h *Hold) Wait(ctx context.Context) (seen *propagation.Report, err error) {
	if h.Watch == nil && h.Until.IsZero() {
		return nil, h // nothing ends it
	}
	turn := make(chan struct{})
	if h.OnTurn != nil {
		h.OnTurn(func() { close(turn) })
	}
	for began := time.Now(); ; {
		if h.Watch != nil {
			report := h.Watch.Checker.Check(ctx, h.Watch.Target, h.Watch.Gate)
			seen = &report
		}
		at := h.Until
		if seen != nil {
			at, _ = h.Due(*seen, walltime.Now())
		}
		if !at.IsZero() && !walltime.Now().Before(at) {
			return seen, nil
		}
		next := longestLook
		if seen != nil {
			next = min(max(time.Since(began)/10, defaultPollInterval), longestLook)
		}
		if !at.IsZero() {
			next = min(next, walltime.Until(at))
		}
		select {
		case <-turn:
			return seen, nil
		case <-time.After(max(next, 10*time.Millisecond)):
		case <-ctx.Done():
			if h.GiveUp != nil {
				h.GiveUp()
			}
			return seen, fmt.Errorf("waiting for %s: %w", h.Domain, context.Cause(ctx))
		}
	}
}

// hold makes the Hold of an attempt.
func (a *attempt) hold(reason Reason, until time.Time, err error) *Hold {
	h := &Hold{
		Reason: reason, Domain: a.domain, CA: a.iss.CA, Account: a.account.URL,
		Until: until, NotAfter: a.facts.notAfter(), Answer: a.facts.name.Answer, Err: err,
	}
	if a.facts.certificate != nil {
		h.Urgent = Urgent(a.facts.certificate, a.facts.ratio)
	}
	if order := a.facts.order; a.site != nil && (a.facts.confirmed || order != nil && order.stage != orderNone) {
		// nobody is shown a record for an account that the CA does not know
		h.Record, h.Also = a.site.Record, a.site.Also
	}
	return h
}

// watch is what a Hold waits for in DNS.
func (a *attempt) watch(gate *propagation.Gate, report propagation.Report) *Watch {
	w := a.site.clone()
	return &Watch{
		Checker: a.iss.Checker, Target: w.Target(), Gate: gate, Report: report,
		Find: func(r propagation.Report) site.Finding {
			at, _ := w.Record.AtEnd(r)
			return site.Find(at, w.Want, r)
		},
		Moved: w.Elsewhere(report),
	}
}

// asHold makes a Hold of an error that does not pass within a minute, so that nobody asks in vain
// meanwhile. Others are returned as they are.
func (a *attempt) asHold(err error) error {
	var (
		hold        *Hold
		notOffered  *ca.NotOfferedError
		unsupported *site.UnsupportedNameError
		account     *AccountError
		uri         *ca.AccountURIError
		limited     *ca.RateLimitedError
		down        *ca.DownError
		queued      *ca.QueuedError
	)
	now := walltime.Now()
	switch {
	case err == nil, errors.As(err, &hold):
		return err
	case errors.As(err, &unsupported):
		return a.hold(ReasonUnsupported, time.Time{}, err)
	case errors.As(err, &notOffered):
		return a.hold(ReasonNotOffered, notOffered.RetryAt, err)
	case errors.As(err, &limited):
		return a.hold(ReasonRateLimited, limited.RetryAt, err)
	case errors.As(err, &uri):
		return a.hold(ReasonAccountURI, now.Add(accountRetry), err)
	case errors.As(err, &account):
		return a.hold(ReasonAccount, now.Add(accountRetry), err)
	case errors.As(err, &queued):
		h := a.hold(ReasonQueued, queued.RetryAt, err)
		h.OnTurn, h.GiveUp = queued.OnTurn, queued.GiveUp
		return h
	case errors.Is(err, errOvertaken):
		return a.hold(ReasonProcessing, now.Add(overtakenRetry), err)
	case errors.As(err, &down):
		return a.hold(ReasonCADown, now.Add(afterDown(a.iss.outage.lasts(now), a.facts.notAfter().Sub(now))), err)
	}
	return err
}

// reasonOf is the reason to wait for a record of which DNS shows that.
func reasonOf(r propagation.Report, found site.Finding) Reason {
	switch r.Status {
	case propagation.StatusPartial:
		return ReasonPartial
	case propagation.StatusConfirming, propagation.StatusReady:
		return ReasonConfirming
	case propagation.StatusBlocked:
		return ReasonBlocked
	}
	if len(found.Values) > 0 {
		return ReasonWrong
	}
	return ReasonAbsent
}

// Seen is the Hold after DNS has shown something new.
func (h *Hold) Seen(r propagation.Report) *Hold {
	fresh, watch := *h, *h.Watch
	watch.Report = r
	fresh.Watch = &watch
	var found site.Finding
	if watch.Find != nil {
		found = watch.Find(r)
	}
	var w *WaitingError
	if errors.As(h.Err, &w) {
		now := *w
		now.Report, now.Found = r, found
		fresh.Err = &now
	}
	if fresh.Reason.IsRecord() && watch.Find != nil {
		fresh.Reason = reasonOf(r, found)
	}
	return &fresh
}

// IsRecord reports whether it is the record in DNS that is waited for.
func (r Reason) IsRecord() bool {
	switch r {
	case ReasonAbsent, ReasonWrong, ReasonPartial, ReasonConfirming, ReasonBlocked:
		return true
	}
	return false
}
