package account

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

// checkFresh is how long an account check (section 4.5 of the draft) is good for.
const checkFresh = time.Hour

// Check asks the CA for the account with a POST-as-GET of exactly its URL
// and wants to see it valid. Nothing is shown to anybody for publishing before:
// it is the only defence against a substituted account URL.
func (b *Book) Check(ctx context.Context) error {
	if b.memory.hasChecked(b.URL, b.Thumbprint) {
		return nil
	}
	// a start with thousands of names asks once
	select {
	case b.checking <- struct{}{}:
		defer func() { <-b.checking }()
	case <-ctx.Done():
		return fmt.Errorf("checking the ACME account: %w", context.Cause(ctx))
	}
	if b.memory.hasChecked(b.URL, b.Thumbprint) {
		return nil
	}
	var status string
	err := b.Do(ctx, "checking the ACME account", func(account acme.Account) (err error) {
		status, err = statusOf(ctx, b.client, account)
		return err
	})
	if err != nil {
		return b.Problem(ctx, explained(err, b.account))
	}
	if status != acme.StatusValid {
		return b.lost(ctx, fmt.Errorf("its status at the CA is %q, not valid", status))
	}
	b.memory.passed(b.URL, b.Thumbprint)
	return nil
}

// Problem makes an Error of the CA's answer that it does not accept our account; other errors pass.
func (b *Book) Problem(ctx context.Context, err error) error {
	if ca.IsProblem(err, "accountDoesNotExist") {
		return b.lost(ctx, fmt.Errorf("the CA does not know it: %w", err))
	}
	if ca.IsProblem(err, "unauthorized") && b.looksDeactivated(ctx) {
		return b.lost(ctx, fmt.Errorf("the CA does not accept it, it may be deactivated: %w", err))
	}
	return err
}

// looksDeactivated asks for the account itself: `unauthorized` can mean many
// things, but for a request about nothing but the account only one.
func (b *Book) looksDeactivated(ctx context.Context) bool {
	status, err := statusOf(ctx, b.client, b.account)
	if err != nil {
		return ca.IsProblem(err, "unauthorized", "accountDoesNotExist")
	}
	return status != acme.StatusValid
}

// lost makes the error for an account that is gone, and forgets what was
// cached about it, so that a restored CA is noticed at the next attempt. If the account's
// key was changed meanwhile it is not gone.
func (b *Book) lost(ctx context.Context, reason error) error {
	b.memory.forget()
	stored, changed := b.changedKey(ctx, reason)
	if changed != nil {
		return changed
	}
	if at := stored.endedAt(); !at.IsZero() {
		return stored.ended(reason)
	}
	return &Error{
		CA: b.CA.URL, URL: b.URL, Names: b.store.ValidationNames(ctx), Err: reason, thumbprint: b.Thumbprint,
	}
}

// orChanged looks in storage whether the CA's refusal is about a key that is the
// account's no more. Other errors pass.
func (b *Book) orChanged(ctx context.Context, err error) error {
	// CAs differ in what they answer to a signature by a former key
	if b.URL == "" || !ca.IsProblem(err, "unauthorized", "malformed", "accountDoesNotExist") {
		return err
	}
	_, changed := b.changedKey(ctx, err)
	return cmp.Or(changed, err)
}

// changedKey compares the key that is used with the one in storage, after a rollover that may
// be pending has been resolved. It returns what is stored, and an error that can be tried
// again if the keys differ or that cannot be found out.
func (b *Book) changedKey(ctx context.Context, reason error) (binding, error) {
	stored, found, err := b.known(ctx)
	if err != nil || !found {
		return binding{}, nil //nolint:nilerr // then the reason counts
	}
	if stored, err = b.resolveLocked(ctx, stored, askNextSoon); err != nil {
		return stored, fmt.Errorf("a key rollover of the ACME account %s at %s is pending and could not be resolved (%w), after: %s",
			stored.URL, b.CA.URL, err, reason.Error())
	}
	key, err := stored.signer()
	if err != nil {
		return stored, nil //nolint:nilerr // then the reason counts
	}
	thumbprint, err := thumbprintOf(key)
	if err != nil || thumbprint == b.Thumbprint {
		return stored, nil //nolint:nilerr // then the reason counts
	}
	b.memory.forget()
	return stored, &KeyChangedError{
		CA: b.CA.URL, URL: stored.URL, Thumbprint: thumbprint,
		OldURL: b.URL, OldThumbprint: b.Thumbprint, Err: reason,
	}
}

// Checker returns what a Solver needs as CheckAccount: it asks the CA for the account with a
// POST-as-GET of exactly its URL, follows no redirect, and wants to see it valid (section 4.5 of
// draft -02). That the CA has confirmed it is good for an hour.
func Checker(client *acme.Client, account acme.Account) func(context.Context) error {
	plain := *cmp.Or(client.HTTPClient, http.DefaultClient)
	plain.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	plain.Transport = ca.Guard(plain.Transport, client.Directory)
	asking := &acme.Client{Directory: client.Directory, HTTPClient: &plain, UserAgent: client.UserAgent, Logger: client.Logger}
	var mu sync.Mutex
	var checked time.Time
	return func(ctx context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		if !checked.IsZero() && time.Since(checked) < checkFresh {
			return nil
		}
		// acmez has no plain POST-as-GET; the getter of authorizations is one
		answer, err := asking.GetAuthorization(ctx, account, account.Location)
		if err != nil {
			return &Error{CA: client.Directory, URL: account.Location, Err: err}
		}
		if answer.Status != acme.StatusValid {
			return &Error{CA: client.Directory, URL: account.Location, Err: fmt.Errorf("its status at the CA is %q, not valid", answer.Status)}
		}
		checked = time.Now()
		return nil
	}
}

// Known returns the bound account as it is in storage; false if none is bound. It
// binds and registers nothing and asks nobody.
func (h *Holder) Known(ctx context.Context) (State, bool, error) {
	bound, found, err := h.known(ctx)
	if err != nil || !found {
		return State{}, false, err
	}
	return bound.state(), true, nil
}

// MustKnow is Known where one is needed: else the error wraps ErrNoAccount and explains how to bind one.
func (h *Holder) MustKnow(ctx context.Context) (State, error) {
	bound, err := h.mustKnow(ctx)
	return bound.state(), err
}

// Status is Known with what the CA answers about the account to a POST-as-GET of
// exactly its URL. It changes nothing. With an error that is not the CA's answer about the
// account, the state is what storage has.
func (h *Holder) Status(ctx context.Context) (State, error) {
	bound, err := h.mustKnow(ctx)
	if err != nil {
		return State{}, fmt.Errorf("asking for the account: %w", err)
	}
	state := bound.state()
	b, err := h.open(ctx)
	if err != nil {
		return state, err
	}
	o, err := h.CA.LoadOffer(ctx)
	if err != nil {
		return state, err
	}
	if t, err := b.client.Terms(o); err == nil {
		state.IssuerDomainNames, state.Dialect, state.AccountHashPrefix = t.Names, t.Dialect, t.Prefix
	}
	account, err := b.signsWith(bound)
	if err != nil {
		return state, fmt.Errorf("account %s: %w", bound.URL, err)
	}
	status, err := ask(ctx, b.client, account)
	var problem acme.Problem
	switch {
	case err == nil:
		state.Status = status
		if status == acme.StatusValid && walltime.Since(bound.DeactivatedAt).Abs() < ca.RolledLately {
			// the CA has confirmed it, and not all its frontends know yet
			state.Status = acme.StatusDeactivated
		}
		return state, nil
	case !errors.As(err, &problem) || b.client.IsBusy() || ca.IsRateLimited(err):
		return state, err
	}
	if bound.NextKeyPEM != "" {
		next, keyErr := decodeKey(bound.NextKeyPEM, "the next key of the account")
		if keyErr != nil {
			return state, keyErr
		}
		if known, askErr := knows(ctx, b.client, bound.URL, next, ca.MaxRetries); askErr == nil && known {
			state.Status = acme.StatusValid
			state.Problem = "the CA knows the new key of the rollover that was cut short: roll the key again to finish it, or let the next certificate do it"
			return state, nil
		}
	}
	state.Status, state.Problem = "unknown", err.Error()
	if ca.IsProblem(err, "unauthorized") {
		// to a request about nothing but the account it means one thing
		state.Status = acme.StatusDeactivated
	}
	return state, nil
}
