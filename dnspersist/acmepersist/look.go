package acmepersist

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/publish"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

// look looks for the record, and waits for it as long as an attempt may where some servers show it.
func (a *attempt) look(ctx context.Context) error {
	a.request.Progress(PhaseLooking)
	if a.site == nil {
		t, err := a.Terms(a.offer)
		if err != nil {
			return err
		}
		if err := a.workOut(ctx, t); err != nil {
			return err
		}
	}
	if seen := a.request.Seen; seen != nil && seen.Status == propagation.StatusReady {
		a.request.Seen = nil // it counts once
		return a.saw(ctx, *seen)
	}
	if a.gate == nil {
		a.gate = propagation.NewGate(a.iss.Grace, a.iss.Settle)
	}
	report := a.iss.Checker.Check(ctx, a.target(), a.gate)
	return a.saw(ctx, a.waitInline(ctx, report))
}

// target is what is looked for: of a renewal's record, which the CA has accepted before, one look is enough.
func (a *attempt) target() propagation.Target {
	t, known, account, isWildcard := a.site.Target(), a.facts.name, a.account.URL, a.site.Want.Wildcard
	t.Known = func(values []string) bool { return known.HasAccepted(values, account, isWildcard) }
	return t
}

// workOut works out the record, and ends what earlier attempts have begun at its place.
func (a *attempt) workOut(ctx context.Context, t ca.Terms) (err error) {
	if a.site, err = a.session.site(ctx, a.domain, t); err != nil {
		return err
	}
	a.gate = nil
	if a.iss.Checker == nil || !publishes(a.iss.Publishing) {
		return nil
	}
	return a.site.endWrites(ctx)
}

// saw takes what a look has shown. An alias may lead to another place, and change the record.
func (a *attempt) saw(ctx context.Context, r propagation.Report) error {
	err := a.site.Follow(ctx, a.iss.Checker, r)
	if ctx.Err() != nil {
		return fmt.Errorf("looking for the record of %s: %w", a.domain, context.Cause(ctx))
	}
	if err != nil {
		return err
	}
	w := a.site
	lacking := r.Status == propagation.StatusAbsent ||
		w.Delegated != "" && r.Status == propagation.StatusPartial // perhaps of the CNAME alone
	a.facts.report, a.facts.lookedAt = &r, walltime.Now()
	a.facts.writable = publishes(a.iss.Publishing) && lacking && w.Disputed == nil && !w.IsOwnersTurn(r)
	return nil
}

// waitInline looks again while at least one server shows the record, for as long
// as one attempt may take and the certificate can wait.
func (a *attempt) waitInline(ctx context.Context, r propagation.Report) propagation.Report {
	if a.iss.NoWait {
		return r
	}
	start, clockAtStart := time.Now(), walltime.Now()
	c := a.facts.clock()
	for r.Status == propagation.StatusPartial || r.Status == propagation.StatusConfirming {
		waited := time.Since(start)
		left := a.iss.PropagationTimeout - waited
		if end := c.waitUntil(r.Status == propagation.StatusConfirming, clockAtStart); !end.IsZero() {
			left = min(left, walltime.Until(end))
		}
		if left <= 0 {
			return r
		}
		a.KeepLock(ctx, a.domain)
		if ca.Sleep(ctx, min(nextLook(r, waited, a.iss.PollInterval), left)) != nil {
			return r
		}
		r = a.iss.Checker.Check(ctx, a.target(), a.gate)
	}
	return r
}

// nextLook is how long to wait until the next look: a tenth of what was waited, and
// not beyond the moment at which the record may be ready by itself.
func nextLook(r propagation.Report, waited, shortest time.Duration) time.Duration {
	interval := min(max(waited/10, shortest), 5*time.Second)
	if !r.LookAgainAt.IsZero() {
		interval = min(interval, max(time.Until(r.LookAgainAt), 10*time.Millisecond))
	}
	return interval
}

// publishRecord has the record published. What becomes of it is a fact, not an error: the name is watched
// all the same, for somebody may publish it.
func (a *attempt) publishRecord(ctx context.Context) error {
	a.request.Progress(PhasePublishing)
	a.facts.written = new(writeFacts)
	err := a.site.publishMissing(ctx, a.facts.report.Values, a.offer)
	name := a.site.Record.Place()
	var (
		before *publish.WrittenBeforeError
		bound  *publish.BoundError
		failed *publish.Error
	)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("publishing the record of %s: %w", a.domain, context.Cause(ctx))
	case err == nil:
		a.facts.report = nil // to be looked at anew
		return nil
	case errors.As(err, &before):
		a.logger.Warn("the record was written once and is gone or was changed since; it is not written again",
			zap.String("domain", a.domain), zap.String("name", name), zap.Time("written_at", before.At), zap.String("reason", before.Error()))
		return nil
	case errors.Is(err, publish.ErrInBackground): // what was sent to the provider may be on its way already; it is noted
	case errors.As(err, &bound):
		a.logger.Debug("a record is not written on demand yet", zap.String("domain", a.domain), zap.Error(err))
	default:
		a.logger.Error("the record could not be published; it may be published by hand meanwhile",
			zap.String("domain", a.domain), zap.String("name", name), zap.Error(err))
	}
	if errors.As(err, &failed) {
		a.unpublished, a.facts.written.retryAt = err, failed.RetryAt
	}
	return nil
}

// CAAError says that CAA records (RFC 8659) forbid the CA to issue. Nothing was asked
// of the CA.
type CAAError struct {
	// Identifier is the name that the certificate is for, At where the records are.
	Identifier, At string
	// CA is the directory URL.
	CA string
	// Reason says which record forbids it.
	Reason string
	// Issuer is the CA's issuer domain name.
	Issuer string
}

// Do is the record to add.
func (e *CAAError) Do() string {
	tag := "issue"
	if record.IsWildcard(e.Identifier) {
		tag = "issuewild"
	}
	return fmt.Sprintf("add a CAA record at %s that allows the CA: 0 %s %q", e.At, tag, e.Issuer)
}

func (e *CAAError) Error() string {
	return fmt.Sprintf("the CAA records at %s forbid %s to issue for %s: %s; nothing was asked of the CA",
		e.At, e.CA, e.Identifier, e.Reason)
}

// lookForCAA looks whether the CA may issue for the name at all: it would refuse, and
// count it. Resolvers that cannot tell veto nothing.
func (a *attempt) lookForCAA(ctx context.Context) (*caaFacts, error) {
	if a.site == nil { // nobody looks for the record
		t, err := a.Terms(a.offer)
		if err == nil {
			err = a.workOut(ctx, t)
		}
		if err != nil {
			return nil, err
		}
	}
	if a.iss.CAAChecker == nil {
		return new(caaFacts), nil
	}
	var since time.Time // what is kept will do, unless the CA has refused after it was asked for
	if refusal := a.facts.name.Answer; refusal != nil {
		since = refusal.At
	}
	began := time.Now()
	verdict, at := a.site.evaluateCAA(ctx, since)
	if verdict.Outlook == record.OutlookBad {
		// somebody may have corrected them, and have us try again for that
		verdict, at = a.site.evaluateCAA(ctx, began)
	}
	switch verdict.Outlook {
	case record.OutlookGood:
		return new(caaFacts), nil
	case record.OutlookDepends:
		a.logger.Warn("not every CA reads the CAA records as allowing it to issue; asking all the same",
			zap.String("domain", a.domain), zap.String("at", at), zap.String("ca", a.iss.CA), zap.String("reason", verdict.Reason))
		return new(caaFacts), nil
	}
	a.caa = a.site.newCAAError(verdict, at)
	return &caaFacts{forbid: true}, nil
}

// newCAAError is what CAA records forbid.
func (w *siteSession) newCAAError(verdict record.CAAVerdict, at string) *CAAError {
	return &CAAError{Identifier: w.Identifier, At: at, CA: w.iss.CA, Reason: verdict.Reason, Issuer: w.Directory.Meta.Identities()[0]}
}

// CodeCAADepends says that CAs differ in what the CAA records allow.
const CodeCAADepends propagation.Code = "caa_depends"

// evaluateCAA predicts what the CA makes of the name's CAA records, and tells where they are. What was asked for since
// the given time is not asked for again.
func (w *siteSession) evaluateCAA(ctx context.Context, since time.Time) (verdict record.CAAVerdict, at string) {
	good := record.CAAVerdict{Outlook: record.OutlookGood}
	if len(w.Directory.Meta.Identities()) == 0 {
		return good, "" // a CA that names no identities does not look at CAA (draft -02 section 3.2)
	}
	found, at, err := w.iss.CAAChecker.CAA(ctx, record.Base(w.Identifier), since)
	if err != nil {
		w.logger.Debug("CAA records are not known", zap.String("domain", w.Identifier), zap.Error(err))
		return good, ""
	}
	var list []record.CAA
	for _, r := range found {
		list = append(list, record.CAA{Flags: r.Flag, Tag: r.Tag, Value: r.Value})
	}
	names := append(w.Directory.Meta.Identities(), w.Terms.Names...)
	return record.EvaluateCAA(list, record.CAARequest{
		IssuerDomainNames: names, Wildcard: w.Want.Wildcard, Method: ca.ChallengeType, AccountURL: w.account.URL,
	}), at
}
