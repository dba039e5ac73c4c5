package acmepersist

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/site"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

// attempt is one way to the certificate of a domain.
type attempt struct {
	*session
	domain  string
	csr     *x509.CertificateRequest
	request Request
	// began is when it began: CertMagic had its lock then.
	began time.Time
	// facts is what decide goes by.
	facts facts
	// offer is what is known of the CA.
	offer ca.Offer
	// site is what is looked for, and gate what was seen there; nil before.
	site *siteSession
	gate *propagation.Gate
	// order, authz and challenge are those of the CA, once there is an order, and kept what storage has of it, zero if
	// nothing; resumed is true if it is that of an earlier attempt, which has asked for the validation.
	order acme.Order
	kept  state.Order
	// hasKept is true if storage has an order of the domain that may be of use.
	hasKept bool
	// isSlow is true once it is noted that the CA takes long over the validation.
	isSlow    bool
	authz     acme.Authorization
	challenge ca.Challenge
	resumed   bool
	// taken is true once the CA has taken a post of the challenge.
	taken bool
	// refusal is the error for the CA's no, written why the record could not be published, and caa what
	// forbids the certificate.
	refusal, unpublished, caa error
}

// begin opens an attempt: what needs no account and no order is known afterwards.
func (iss *Issuer) begin(ctx context.Context, csr *x509.CertificateRequest, domain string, req Request) (*attempt, error) {
	if req.Progress == nil {
		req.Progress = func(Phase) {}
	}
	a := &attempt{session: iss.sessionWith(nil), domain: domain, csr: csr, request: req, began: time.Now()}
	certificate := StoredCertificate(ctx, iss.Storage, IssuerKey(iss.CA), domain)
	a.facts = facts{looks: iss.Checker != nil, ratio: iss.RenewalWindowRatio, shortest: iss.MinAskInterval, certificate: certificate}
	s, err := iss.open(ctx)
	if err != nil {
		return a, err
	}
	s.requestKey, s.notAfter = keyOf(csr), a.facts.notAfter()
	a.session = s
	if a.offer, err = iss.ca.LoadOffer(ctx); err != nil {
		return a, err
	}
	if err := a.applyOffer(ctx); err != nil {
		return a, err
	}
	if seen := req.Seen; seen != nil {
		a.facts.firstYes = seen.FirstYes
	}
	vname, err := record.ValidationName(domain)
	if err != nil {
		return a, &site.UnsupportedNameError{Name: domain, Err: err}
	}
	a.facts.name, err = s.store.Name(ctx, vname)
	return a, err
}

// applyOffer takes from the offer what decide goes by.
func (a *attempt) applyOffer(ctx context.Context) error {
	renewal := a.facts.certificate != nil || a.iss.Renewal != nil && a.iss.Renewal(ctx, a.domain)
	err := a.Refusal(a.offer, renewal)
	var no *ca.NotOfferedError
	if errors.As(err, &no) {
		a.facts.notOffered, a.refusal = no.RetryAt, no
		return nil
	}
	if a.HasTerms(a.offer) {
		a.facts.terms = termsShown
	}
	return err
}

// note keeps in storage what decide wants noted, before the step that it is about.
func (a *attempt) note(ctx context.Context, c change) error {
	if c.isNone() {
		return nil
	}
	return a.store.UpdateName(ctx, a.facts.name.Name, func(n *state.Name) bool {
		c.noted(n, a.domain)
		a.facts.name = *n
		return true
	})
}

// bindAccount makes sure that there is an account.
func (a *attempt) bindAccount(ctx context.Context) error {
	if err := a.account.Bind(ctx); err != nil {
		return err
	}
	a.facts.bound = true
	if err := a.compareDirectory(ctx, ""); err != nil {
		a.logger.Warn("what the directory says was not noted", zap.String("ca", a.iss.CA), zap.Error(err))
	}
	// a plain name is noted with its first attempt: thousands that wait for their records are
	// not written to storage for that, and on demand anybody can ask for a name
	if !record.IsWildcard(a.domain) || a.iss.OnDemand {
		return nil
	}
	return a.store.UpdateName(ctx, a.facts.name.Name, func(n *state.Name) bool {
		added := n.AddIdentifier(a.domain)
		a.facts.name = *n
		return added
	})
}

// learnOffer learns from an order what the CA offers, one order at a time in the whole cluster, so that a
// thousand names cost one. A directory of the deployed drafts shows neither the challenge nor the issuer's
// names.
func (a *attempt) learnOffer(ctx context.Context) error {
	known := func() (bool, error) {
		var err error
		if a.offer, err = a.iss.ca.ReloadOffer(ctx); err != nil {
			return false, err
		}
		if err := a.applyOffer(ctx); err != nil {
			return false, err
		}
		return a.offer.IsYes() || !a.facts.notOffered.IsZero(), nil
	}
	a.facts.terms = termsHidden
	return a.store.Locked(ctx, "dns_persist_first_contact_"+state.Safe(IssuerKey(a.iss.CA)), known, func() error {
		// another node may have asked while we waited
		if ok, err := known(); ok || err != nil {
			return err
		}
		order, err := a.keptOrNewOrder(ctx)
		if err != nil {
			return err
		}
		authzs, err := a.authorizations(ctx, order)
		if err != nil {
			return err
		}
		for _, authz := range authzs {
			if _, ok := ca.FindChallenge(authz); authz.Status == acme.StatusPending && !ok {
				return a.notOffered(ctx)
			}
		}
		a.offer, err = a.iss.ca.LoadOffer(ctx)
		if err != nil {
			return err
		}
		return a.applyOffer(ctx)
	})
}

// laneRequest is what an order for a domain asks the lanes for.
func (s *session) laneRequest(domain string) ca.LaneRequest {
	return ca.LaneRequest{
		CA: s.iss.CA, Account: s.account.URL, Domain: domain, NotAfter: s.notAfter, Window: s.iss.Window, Most: s.iss.MaxParallelOrders, Longest: s.iss.InlineQueue,
		// beside other issuers a certificate would come from another CA for a queue at this one
		IsPatient: s.iss.NoWait && !s.iss.OnDemand,
	}
}

// enterLane waits for a lane to the CA. One that is down is not asked by everybody in turn: neither by those who come
// then, nor by those who are in the queue when it goes down.
func (a *attempt) enterLane(ctx context.Context) (err error) {
	asksForAll := a.iss.outage.isSure()
	if err := a.orDown(nil); err != nil {
		return err
	}
	r := a.laneRequest(a.domain)
	r.Since, r.IsDone = a.began, a.facts.order.stage == orderValid
	r.HasOrder = r.IsDone || a.order.Location != "" || a.hasKept
	a.lane, err = a.iss.Lanes.Enter(ctx, r)
	a.facts.inLane = err == nil
	if asksForAll && err == nil || ctx.Err() != nil {
		return err
	}
	return a.orDown(err)
}

// orDown is the Hold of an attempt that leaves the CA alone because it is down; else err.
func (a *attempt) orDown(err error) error {
	now := walltime.Now()
	wait := a.iss.outage.wait(a.facts.notAfter().Sub(now), now)
	if wait == 0 {
		return err
	}
	why := fmt.Errorf("the CA %s did not answer when it was last asked; %s is tried again at %s",
		a.iss.CA, a.domain, now.Add(wait).UTC().Format(time.RFC3339))
	return a.hold(ReasonCADown, now.Add(wait), errors.Join(why, err))
}

// validated has the lanes know how a validation has gone.
func (a *attempt) validated(v ca.Validation) {
	if lanes, why := a.iss.Lanes.Validated(a.laneRequest(a.domain), v); why != "" {
		a.logger.Debug("fewer lanes to the CA", zap.String("ca", a.iss.CA), zap.Int("lanes", lanes), zap.String("reason", why))
	}
}

// leaveLane gives the lane back, if there is one.
func (a *attempt) leaveLane() {
	if a.lane != nil {
		a.lane.Leave()
		a.lane, a.facts.inLane = nil, false
	}
}

// notOffered drops an order that our challenge cannot complete. That the CA does not offer it was learned
// from its authorization.
func (a *attempt) notOffered(ctx context.Context) (err error) {
	if err = a.store.Remove(ctx, a.store.OrderKey(a.domain)); err != nil {
		return err
	}
	if a.offer, err = a.iss.ca.LoadOffer(ctx); err != nil {
		return err
	}
	retry := a.offer.SeenAt.Add(a.iss.ca.NotOfferedRetry)
	a.facts.notOffered = retry
	a.refusal = &ca.NotOfferedError{CA: a.iss.CA, Offered: a.offer.OtherTypes, SeenAt: a.offer.SeenAt, RetryAt: retry}
	return nil
}

// holdAt makes the Hold that decide has decided on.
func (a *attempt) holdAt(ctx context.Context, s step) error {
	switch s.reason {
	case ReasonNotOffered:
		return a.hold(s.reason, s.until, a.refusal)
	case ReasonBudget:
		n := &a.facts.name
		return a.hold(s.reason, s.until, &BudgetError{Name: n.Name, Failed: len(n.Attempts), RetryAt: s.until, Answer: n.Answer})
	case ReasonProcessing:
		return a.hold(s.reason, s.until, &ProcessingError{
			Identifier: a.domain, CA: a.iss.CA, Since: a.facts.order.postedAt, RetryAt: s.until,
		})
	case ReasonCAA:
		return a.hold(s.reason, s.until, a.caa)
	case ReasonRejected:
		h := a.hold(s.reason, s.until, a.refusal)
		if !a.facts.isReady() && a.iss.Checker != nil && a.site != nil {
			var seen propagation.Report
			if a.facts.report != nil {
				seen = a.facts.report.Shortened(site.Weigh(a.site.Want))
			}
			a.site.Known = a.facts.name
			h.Watch = a.watch(propagation.NewGate(a.iss.Grace, a.iss.Settle), seen)
		}
		return h
	case ReasonPublish, "":
		return a.waiting(ctx, s)
	}
	return fmt.Errorf("%s has to wait for a reason without a text, %s: this is a bug, please report it", a.domain, s.reason)
}

// waiting is the Hold for a domain whose record is not there.
func (a *attempt) waiting(ctx context.Context, s step) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("looking for the record of %s: %w", a.domain, context.Cause(ctx))
	}
	w, report := a.site, *a.facts.report
	w.suspectLostStorage(report.Values)
	if err := w.Refine(report.Values, a.offer); err != nil {
		return err
	}
	report = a.gate.Report() // what is kept while the name waits
	due := a.facts.clock().due()
	err := &WaitingError{Identifier: a.domain, Record: w.Record, Report: report, Retry: due, Err: a.unpublished}
	if w.Foreign != "" {
		err.Err = &site.ForeignAliasError{Name: w.Record.Name, Alias: w.Foreign, Wanted: w.Delegated, Why: w.Why}
		if a.unpublished != nil {
			err.Err = fmt.Errorf("%w; %w", err.Err, a.unpublished)
		}
	}
	watch := a.watch(a.gate, report)
	err.Found = watch.Find(report)
	if s.reason == "" {
		s.reason = reasonOf(report, err.Found)
	}
	h := a.hold(s.reason, s.until, err)
	h.Watch = watch
	return h
}

// suspectLostStorage warns when a new account was registered although DNS shows
// that this name already trusts another one of the same CA.
func (w *siteSession) suspectLostStorage(values []string) {
	if !w.account.IsNew() {
		return
	}
	for _, v := range record.Evaluate(values, w.Want, walltime.Now()).Verdicts {
		if v.Code == record.CodeWrongAccount {
			w.logger.Error("storage lost? a new ACME account was registered, but DNS already names another one of this CA: restore its key, or publish the new record",
				zap.String("name", w.Record.Name), zap.String("published_account", v.Value.AccountURI), zap.String("registered_account", w.account.URL))
			return
		}
	}
}
