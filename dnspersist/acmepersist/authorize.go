package acmepersist

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
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

// makeOrder makes the order, or takes up the one that is kept.
func (a *attempt) makeOrder(ctx context.Context) (err error) {
	a.request.Progress(PhaseOrdering)
	if a.facts.looks && a.facts.report != nil && !a.facts.isReady() {
		a.logger.Warn("the certificate cannot wait for DNS any longer; asking the CA although not every server has the record",
			zap.String("domain", a.domain), zap.String("name", a.site.Record.Name), zap.String("dns", a.facts.report.Summary()))
	}
	if err := a.checkOvertaken(ctx); err != nil {
		return err
	}
	if a.order, err = a.keptOrNewOrder(ctx); err != nil {
		return err
	}
	a.facts.order.stage = orderValid // unless an authorization says otherwise
	if a.order.Status != acme.StatusPending {
		return nil
	}
	authzs, err := a.authorizations(ctx, a.order)
	if err != nil {
		return err
	}
	for _, authz := range authzs {
		a.authz = authz
		if err := a.openAuthorization(ctx); err != nil {
			return err
		}
	}
	return nil
}

// openAuthorization takes what an authorization of the order says.
func (a *attempt) openAuthorization(ctx context.Context) error {
	switch a.authz.Status {
	case acme.StatusValid:
		return nil
	case acme.StatusPending:
	default:
		a.facts.order.stage = orderRefused
		return a.takeRefusal(ctx)
	}
	c, ok, err := a.Challenge(ctx, a.authz, a.account.Identity)
	if err != nil {
		return err
	}
	if !ok {
		return a.notOffered(ctx)
	}
	a.challenge = c
	a.facts.order.stage = orderOpen
	if c.Status != acme.StatusPending {
		a.taken, a.facts.order.stage, a.facts.order.postedAt = true, orderPosted, walltime.Now().UTC()
	}
	return a.applyChallenge(ctx)
}

// applyChallenge holds what was looked for against the real challenge: if that wants something
// else, and what is published cannot satisfy it, the record it wants is looked for.
func (a *attempt) applyChallenge(ctx context.Context) error {
	t := a.challenge.Terms
	if a.iss.IssuerDomainName != "" {
		t.Names = []string{a.iss.IssuerDomainName}
	}
	a.facts.terms = termsShown
	if a.site != nil {
		if t.Equal(a.site.Terms) {
			return nil
		}
		// what is noted of the CA's answer is noted of what it was asked for
		a.site.Terms, a.site.Want = t, t.Requirement(a.domain, a.account.Identity)
		if !a.facts.looks || a.facts.order.stage == orderPosted {
			return nil
		}
		if ok, _ := a.facts.name.Satisfies(a.facts.report.Values, a.site.Want, a.account.URL); ok {
			return nil
		}
	}
	a.offer.Dialect, a.offer.IssuerDomainNames = a.challenge.Terms.Dialect, a.challenge.Terms.Names
	a.request.Seen, a.facts.report, a.facts.written = nil, nil, nil
	return a.workOut(ctx, t)
}

// askToValidate asks the CA to validate the domain. The challenge is posted only while it is pending and
// until the CA has taken a post: some CAs leave it pending while they validate, and validate once more at
// each further post. The attempt has been counted, at the given time.
func (a *attempt) askToValidate(ctx context.Context, counted time.Time) error {
	a.logger.Info("asking the CA to validate",
		zap.String("domain", a.domain), zap.String("name", a.site.Record.Name), zap.String("ca", a.iss.CA))
	if a.facts.looks && !a.facts.isReady() {
		a.iss.Observer.Happened(EventAskedEarly)
	}
	a.facts.order.postedAt = walltime.Now().UTC()
	began, refusals := time.Now(), 0
	for posts := 1; ; posts++ {
		taken, err := a.post(ctx, a.challenge)
		no := (*postRefusedError)(nil)
		if errors.As(err, &no) {
			refusals++
		} else if err != nil {
			if ca.IsRateLimited(err) && posts == 1 {
				a.uncount(ctx, a.facts.name.Name, a.authz.Location, counted)
			}
			return fmt.Errorf("asking the CA to validate %s: %w", a.domain, err)
		}
		if !taken {
			// it may have acted on a post whose answer was lost
			if a.authz, err = a.readAuthorization(ctx, a.authz.Location); err != nil {
				return fmt.Errorf("waiting for the validation of %s: %w", a.domain, err)
			}
			fresh, ok := ca.FindChallenge(a.authz)
			taken = a.authz.Status != acme.StatusPending || ok && fresh.Status != acme.StatusPending
		}
		if taken || posts > ca.MaxRetries {
			a.facts.order.stage, a.taken = orderPosted, taken
			return nil
		}
		if refusals > maxPostRefusals || no != nil && time.Since(began) > a.iss.InlineProcessing {
			return fmt.Errorf("asking the CA to validate %s: %w", a.domain, no)
		}
		a.KeepLock(ctx, a.domain)
		if err := ca.Sleep(ctx, a.Interval(posts-1)); err != nil {
			return fmt.Errorf("waiting for the validation of %s: %w", a.domain, err)
		}
	}
}

// awaitValidation waits until the CA has decided, as long as an attempt may.
func (a *attempt) awaitValidation(ctx context.Context) (err error) {
	began := time.Now()
	for looks := 0; ; looks++ {
		if a.authz, err = a.readAuthorization(ctx, a.authz.Location); err != nil {
			return a.orNoted(ctx, fmt.Errorf("waiting for the validation of %s: %w", a.domain, err))
		}
		switch a.authz.Status {
		case acme.StatusValid:
			a.facts.order.stage = orderValid
			a.validated(ca.ValidationGood)
			return a.remember(ctx)
		case acme.StatusPending:
			fresh, ok := ca.FindChallenge(a.authz)
			a.taken = a.taken || ok && fresh.Status != acme.StatusPending
		default:
			a.facts.order.stage = orderRefused
			return a.takeRefusal(ctx)
		}
		// a CA that decides at once is noted to have been asked when the order is finalized
		if err := a.orNoted(ctx, nil); err != nil {
			return err
		}
		if walltime.Since(a.facts.order.postedAt) > a.iss.Timeout {
			a.iss.Observer.Happened(EventUndecided)
			err := fmt.Errorf("waiting for the validation of %s: the CA has not decided after %s, another order will be made", a.domain, a.iss.Timeout)
			return errors.Join(err, a.store.Remove(ctx, a.store.OrderKey(a.domain)))
		}
		a.letOthersBy(time.Since(began))
		pause := a.Interval(looks)
		if time.Since(began) > a.iss.InlineProcessing || pause > ca.MaxInlineWait {
			a.facts.order.stage, a.facts.order.wait = orderProcessing, max(a.Interval(0), ca.MinInterval)
			return nil
		}
		a.KeepLock(ctx, a.domain)
		if err := ca.Sleep(ctx, pause); err != nil {
			return fmt.Errorf("waiting for the validation of %s: %w", a.domain, err)
		}
	}
}

// letOthersBy gives the lane back to a CA that has been at work on the validation for that long: its order is noted. That
// the servers of the domain may be the cause is noted after more of it.
func (a *attempt) letOthersBy(took time.Duration) {
	if took > ca.LaneHold {
		a.leaveLane()
	}
	if took > ca.SlowValidation && !a.isSlow {
		a.isSlow = true
		a.validated(ca.ValidationSlow)
	}
}

// orNoted notes that the CA has taken the post, so that neither the end of this attempt nor of the process costs an
// order, whatever err the attempt ends with.
func (a *attempt) orNoted(ctx context.Context, err error) error {
	if noteErr := a.notePost(context.WithoutCancel(ctx)); noteErr != nil {
		return errors.Join(err, noteErr)
	}
	return err
}

// takeRefusal notes that the CA has refused, and drops the order, which is of no more use.
func (a *attempt) takeRefusal(ctx context.Context) error {
	a.refusal = errors.Join(a.refused(ctx), a.store.Remove(ctx, a.store.OrderKey(a.domain)))
	name, err := a.store.Name(ctx, a.facts.name.Name)
	if err != nil {
		return a.refusal
	}
	a.facts.name = name
	return nil
}

// remember notes that the CA has accepted the record as it was seen.
func (a *attempt) remember(ctx context.Context) error {
	var values []string
	var want record.Requirement
	if a.site != nil {
		if want = a.site.Want; a.facts.report != nil {
			values = a.facts.report.Values
		}
	}
	return a.store.UpdateName(ctx, a.facts.name.Name, func(n *state.Name) bool {
		n.AddIdentifier(a.domain)
		n.Accept(values, want, a.account.URL, walltime.Now())
		if len(values) > 0 {
			n.EndsAt = endOf(record.Evaluate(values, want, walltime.Now()))
		}
		return true
	})
}

// uncount takes an attempt back that the CA has put off: nothing was validated, so it costs
// nothing of the budget. If that cannot be seen, it stays counted.
func (s *session) uncount(ctx context.Context, name, authorization string, at time.Time) {
	var authz acme.Authorization
	err := s.account.DoUpTo(ctx, "reading the authorization", 0, func(account acme.Account) (err error) {
		authz, err = s.ACME.GetAuthorization(ctx, account, authorization)
		return err
	})
	if err != nil {
		return
	}
	if c, ok := ca.FindChallenge(authz); !ok || c.Status != acme.StatusPending || authz.Status != acme.StatusPending {
		return
	}
	if err := s.store.UpdateName(ctx, name, func(n *state.Name) bool {
		before := len(n.Attempts)
		n.Attempts = slices.DeleteFunc(n.Attempts, at.Equal)
		return len(n.Attempts) != before
	}); err != nil {
		s.logger.Warn("an attempt that the CA has put off stays counted", zap.String("name", name), zap.Error(err))
	}
}

// authorizations reads those of an order and learns from them.
func (s *session) authorizations(ctx context.Context, order acme.Order) ([]acme.Authorization, error) {
	var all []acme.Authorization
	for _, url := range order.Authorizations {
		authz, err := s.readAuthorization(ctx, url)
		if err != nil {
			return nil, err
		}
		if err := s.Learn(ctx, authz, s.account.Identity); err != nil {
			return nil, err
		}
		all = append(all, authz)
	}
	return all, nil
}

func (s *session) readAuthorization(ctx context.Context, url string) (authz acme.Authorization, err error) {
	err = s.account.Do(ctx, "reading the authorization", func(account acme.Account) (err error) {
		authz, err = s.ACME.GetAuthorization(ctx, account, url)
		return err
	})
	return authz, err
}

// post asks for a validation. taken is true if the CA has said that it will
// validate; else this has waited as long as the CA wanted, and the authorization
// tells whether it acted all the same.
func (s *session) post(ctx context.Context, c ca.Challenge) (taken bool, err error) {
	status, wait, err := s.account.Once("asking for the validation", func(account acme.Account) error {
		_, err := s.ACME.InitiateChallenge(ctx, account, c.Challenge)
		return err
	})
	if err == nil || status >= 200 && status < 300 {
		return true, nil
	}
	s.logger.Debug("answer to the challenge", zap.String("challenge", c.URL), zap.Error(err))
	if s.IsBusy() && s.IsLimited(err, wait, 0) {
		return false, s.RateLimit(err, wait)
	}
	if slept := ca.Sleep(ctx, max(wait, ca.MinInterval)); slept != nil {
		return false, slept
	}
	if status >= 400 && status < 500 && !s.IsBusy() {
		return false, &postRefusedError{err}
	}
	return false, nil
}

// maxPostRefusals is how often a post is made again that the CA has refused. That takes some ten
// seconds, for after a change of the account's key a CA may know the old one for five.
const maxPostRefusals = 3

// postRefusedError is a CA that does not take the post of a challenge.
type postRefusedError struct{ err error }

func (e *postRefusedError) Error() string { return e.err.Error() }

func (e *postRefusedError) Unwrap() error { return e.err }

// refused makes the error for an authorization that the CA has not given, and notes what it means.
func (a *attempt) refused(ctx context.Context) error {
	var reason error = fmt.Errorf("the authorization is %s", a.authz.Status)
	problem := ""
	for _, c := range a.authz.Challenges {
		if c.Error != nil {
			reason = *c.Error
			problem = strings.TrimPrefix(c.Error.Type, acme.ProblemTypeNamespace)
		}
	}
	var seen propagation.Report
	if a.facts.report != nil {
		seen = *a.facts.report
	}
	var want record.Requirement
	if a.site != nil {
		want = a.site.Want
	}
	name, isInternal := a.facts.name.Name, problem == "serverInternal"
	switch {
	case isInternal:
	case problem == "dns" || problem == "connection":
		a.validated(ca.ValidationTimeout)
	default:
		a.validated(ca.ValidationBad)
	}
	if isInternal {
		a.iss.Observer.Happened(EventCAFault)
	} else {
		a.iss.Observer.Happened(EventRefused)
	}
	// the CA's answer beats our model: what it refuses is no longer presumed good
	disagrees := !isInternal && disagrees(seen, want)
	var retry time.Time
	err := a.store.UpdateName(ctx, name, func(n *state.Name) bool {
		n.Answered(reason, walltime.Now())
		if isInternal {
			// the CA counts it, so it costs an attempt; what is known of the values stays
			n.NotBefore = n.AskAgainAt(propagation.Report{}, max(a.iss.CacheCap, 0), walltime.Now())
			return true
		}
		n.Refuse(seen.Values, want, a.account.URL, problem, walltime.Now())
		if disagrees || problem == "dns" {
			retry = n.AskAgainAt(seen, max(a.iss.CacheCap, 0), walltime.Now())
			n.NotBefore = retry
		}
		return true
	})
	if disagrees {
		return errors.Join(&DisagreementError{
			Identifier: a.domain, Name: name, CA: a.iss.CA, Report: seen.Shortened(site.Weigh(want)), RetryAt: retry, Err: reason, problem: problem,
		}, err)
	}
	return errors.Join(&RefusedError{Identifier: a.domain, Name: name, Internal: isInternal, Err: reason}, err)
}
