package acmepersist

import (
	"context"
	"errors"

	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/site"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

// resumeOrder goes on with the kept order of the domain if the CA is at work on it, or has decided
// meanwhile: then what DNS shows now is not for us to judge.
func (a *attempt) resumeOrder(ctx context.Context) error {
	a.facts.order = new(orderFacts)
	kept, found, err := a.keptOrder(ctx, a.domain)
	if err != nil || !found || kept.PostedAt.IsZero() {
		return err
	}
	order, usable, err := a.resume(ctx, kept)
	switch {
	case err != nil:
		return err
	case usable && order.Status != acme.StatusPending:
		// an order that is ready, or more, has all that DNS could give it
		a.takeUp(ctx, kept, order, orderValid)
		return nil
	case !usable && order.Status != acme.StatusInvalid:
		return nil
	}
	authzs, err := a.authorizations(ctx, order)
	if err != nil {
		var problem acme.Problem
		if order.Status == acme.StatusInvalid && errors.As(err, &problem) && !ca.IsProblem(err, "accountDoesNotExist") && !ca.IsRateLimited(err) && !a.IsBusy() {
			return nil // the CA no longer tells why, and another order may do
		}
		return err
	}
	for _, authz := range authzs {
		a.authz = authz
		switch authz.Status {
		case acme.StatusValid:
			a.takeUp(ctx, kept, order, orderValid)
		case acme.StatusInvalid:
			// its answer is not lost because nobody waited for it
			a.takeUp(ctx, kept, order, orderRefused)
			return a.takeRefusal(ctx)
		case acme.StatusPending:
			c, is := ca.FindChallenge(authz)
			if !is || c.Status == acme.StatusPending && !a.isPosted(kept, c.URL) {
				return nil
			}
			a.takeUp(ctx, kept, order, orderPosted)
			a.taken, a.facts.order.postedAt = true, kept.PostedAt
			a.logger.Info("going on with the order that the CA is validating",
				zap.String("identifier", a.domain), zap.String("order", order.Location))
		}
	}
	return nil
}

// takeUp goes on with an order. What was looked for is worked out anew, as far as that can be done.
func (a *attempt) takeUp(ctx context.Context, kept state.Order, order acme.Order, stage orderStage) {
	a.order, a.resumed, a.facts.order.stage = order, true, stage
	if kept.Seen != nil {
		a.facts.report, a.facts.lookedAt = kept.Seen, walltime.Now()
	}
	var (
		t   ca.Terms
		err = errors.New("nothing is known of what the CA wants to see")
	)
	if c, ok, challengeErr := a.Challenge(ctx, a.authz, a.account.Identity); ok && challengeErr == nil {
		a.challenge, t, err = c, c.Terms, nil
	} else if a.HasTerms(a.offer) {
		t, err = a.Terms(a.offer)
	}
	if err == nil {
		a.site, err = a.session.site(ctx, a.domain, t)
	}
	if err != nil {
		a.logger.Debug("what the CA was asked for is not known any more", zap.String("identifier", a.domain), zap.Error(err))
	}
}

// isPosted reports whether the CA has taken a post of the challenge that it may still be at
// work on: some CAs leave it pending meanwhile.
func (s *session) isPosted(kept state.Order, challenge string) bool {
	return kept.Challenge == challenge && walltime.Since(kept.PostedAt) < s.iss.Timeout
}

// notePost keeps with the order that the CA has taken the post of the challenge, and what DNS
// showed before it.
func (a *attempt) notePost(ctx context.Context) error {
	kept, found, err := a.keptOrder(ctx, a.domain)
	if err != nil || !found {
		return err
	}
	if kept.Challenge == a.challenge.URL {
		a.facts.order.postedAt = kept.PostedAt
		return nil
	}
	kept.Challenge, kept.PostedAt = a.challenge.URL, a.facts.order.postedAt
	if a.facts.report != nil {
		seen := digested(a.facts.report.Shortened(site.Weigh(a.site.Want)))
		kept.Seen = &seen
	}
	return a.store.Save(ctx, a.store.OrderKey(a.domain), kept)
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
