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
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

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

// validate asks the CA to validate one pending authorization and waits for its
// word. A challenge is posted only while it is pending and until the CA has taken
// a post: some CAs leave it pending while they validate, and validate once more at
// each further post.
func (a *attempt) validate(ctx context.Context, authz acme.Authorization, c ca.Challenge, underway bool) error {
	w := a.want
	taken := underway || c.Status != acme.StatusPending
	since, began := walltime.Now(), time.Now()
	var counted time.Time
	if !taken {
		var err error
		if counted, err = a.countAttempt(ctx, w); err != nil {
			return err
		}
		a.logger.Info("asking the CA to validate",
			zap.String("identifier", w.identifier), zap.String("name", w.record.Name), zap.String("ca", a.iss.CA))
	}
	posts := 0
	var refusals []error // of posts, by the CA
	noted := false
	// so that neither the end of this attempt nor of the process costs an order
	note := func() (err error) {
		if taken && !noted {
			since, err = a.notePost(ctx, c.URL)
			noted = err == nil
		}
		return err
	}
	for interval := ca.MinInterval; ; {
		var err error
		if !taken && posts <= ca.MaxRetries {
			posts++
			taken, err = a.post(ctx, c, w)
			if no := (*postRefusedError)(nil); errors.As(err, &no) {
				refusals, err = append(refusals, err), nil
			}
			if err != nil {
				if ca.IsRateLimited(err) && posts == 1 {
					a.uncount(ctx, w, authz, counted)
				}
				return fmt.Errorf("asking the CA to validate %s: %w", w.identifier, err)
			}
		}
		if err := note(); err != nil {
			return err
		}
		if authz, err = a.readAuthorization(ctx, authz.Location); err != nil {
			return fmt.Errorf("waiting for the validation of %s: %w", w.identifier, err)
		}
		switch authz.Status {
		case acme.StatusValid:
			return a.remember(ctx, w, a.seen)
		case acme.StatusPending:
		default:
			return a.refused(ctx, authz, w, a.seen)
		}
		if fresh, ok := ca.FindChallenge(authz); ok {
			// the CA may have acted on a post whose answer was lost
			taken = taken || fresh.Status != acme.StatusPending
		}
		if err := note(); err != nil {
			return err
		}
		if n := len(refusals); !taken && n > 0 && (n > maxPostRefusals || time.Since(began) > a.patience()) {
			return fmt.Errorf("asking the CA to validate %s: %w", w.identifier, refusals[len(refusals)-1])
		}
		switch {
		case walltime.Since(since) > a.iss.timeout():
			err := fmt.Errorf("waiting for the validation of %s: the CA has not decided after %s, another order will be made", w.identifier, a.iss.timeout())
			return errors.Join(err, a.store.Remove(ctx, a.store.OrderKey(a.name)))
		case time.Since(began) > a.patience(), a.iss.Parker != nil && a.Interval(interval) > ca.MaxInlineWait:
			return a.putAside(ctx, w, since)
		}
		a.KeepLock(ctx, w.identifier)
		if err := ca.Sleep(ctx, a.Interval(interval)); err != nil {
			return fmt.Errorf("waiting for the validation of %s: %w", w.identifier, err)
		}
		interval = min(interval*2, 10*time.Second)
	}
}

// post asks for a validation. taken is true if the CA has said that it will
// validate; else this has waited as long as the CA wanted, and the authorization
// tells whether it acted all the same.
func (s *session) post(ctx context.Context, c ca.Challenge, w wanted) (taken bool, err error) {
	status, wait, err := s.account.Once(func(account acme.Account) error {
		_, err := s.ACME.InitiateChallenge(ctx, account, c.Challenge)
		return err
	})
	if err == nil || status >= 200 && status < 300 {
		return true, nil
	}
	s.logger.Debug("answer to the challenge", zap.String("identifier", w.identifier), zap.Error(err))
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

// countAttempt writes the attempt down before the CA is asked, so that a crash
// cannot make us ask for ever.
func (s *session) countAttempt(ctx context.Context, w wanted) (at time.Time, err error) {
	at = walltime.Now().UTC()
	return at, s.store.UpdateName(ctx, w.record.Name, func(n *state.Name) bool {
		n.AddIdentifier(w.identifier)
		n.CountAttempt(at)
		return true
	})
}

// uncount takes an attempt back that the CA has put off: nothing was validated, so it costs
// nothing of the budget. If that cannot be seen, it stays counted.
func (s *session) uncount(ctx context.Context, w wanted, authz acme.Authorization, at time.Time) {
	err := s.account.DoUpTo(ctx, "reading the authorization", 0, func(account acme.Account) (err error) {
		authz, err = s.ACME.GetAuthorization(ctx, account, authz.Location)
		return err
	})
	if err != nil {
		return
	}
	if c, ok := ca.FindChallenge(authz); !ok || c.Status != acme.StatusPending || authz.Status != acme.StatusPending {
		return
	}
	if err := s.store.UpdateName(ctx, w.record.Name, func(n *state.Name) bool {
		before := len(n.Attempts)
		n.Attempts = slices.DeleteFunc(n.Attempts, at.Equal)
		return len(n.Attempts) != before
	}); err != nil {
		s.logger.Warn("an attempt that the CA has put off stays counted", zap.String("identifier", w.identifier), zap.Error(err))
	}
}

// remember notes that the CA has accepted the record as it stands.
func (s *session) remember(ctx context.Context, w wanted, seen propagation.Report) error {
	return s.store.UpdateName(ctx, w.record.Name, func(n *state.Name) bool {
		n.AddIdentifier(w.identifier)
		n.Accept(seen.Values, w.want, s.account.URL, walltime.Now())
		return true
	})
}

// refused makes the error for an authorization that the CA has not given.
func (s *session) refused(ctx context.Context, authz acme.Authorization, w wanted, seen propagation.Report) error {
	var reason error = fmt.Errorf("the authorization is %s", authz.Status)
	problem := ""
	for _, c := range authz.Challenges {
		if c.Error != nil {
			reason = *c.Error
			problem = strings.TrimPrefix(c.Error.Type, acme.ProblemTypeNamespace)
		}
	}
	if w.record.Name == "" {
		name, err := record.ValidationName(w.identifier)
		if err != nil {
			return err
		}
		w.record.Name = name
	}
	if problem == "serverInternal" {
		return s.failedByCA(ctx, w, reason)
	}
	// the CA's word beats our model: what it refuses is no longer presumed good
	disagrees := disagrees(seen, w.want)
	var retry time.Time
	err := s.store.UpdateName(ctx, w.record.Name, func(n *state.Name) bool {
		n.Refuse(seen.Values, w.want, s.account.URL, problem, walltime.Now())
		if disagrees || problem == "dns" {
			retry = n.AskAgainAt(seen, s.iss.cacheCap(), walltime.Now())
			n.NotBefore = retry
		}
		return true
	})
	if disagrees {
		return errors.Join(&DisagreementError{
			Identifier: w.identifier, Name: w.record.Name, CA: s.iss.CA, Report: seen.Shortened(weigh(w.want)), RetryAt: retry, Err: reason, problem: problem,
		}, err)
	}
	return errors.Join(&RefusedError{Identifier: w.identifier, Name: w.record.Name, Err: reason}, err)
}
