package account

import (
	"context"
	"errors"
	"fmt"

	"github.com/mholt/acmez/v3/acme"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

// Known returns the bound account as it is in storage; false if none is bound. It
// binds and registers nothing and asks nobody.
func (h *Holder) Known(ctx context.Context) (State, bool, error) {
	bound, found, err := h.known(ctx)
	if err != nil || !found {
		return State{}, false, err
	}
	return bound.state(), true, nil
}

// MustKnow is Known where one is needed: else the error wraps ErrNoAccount and says how to bind one.
func (h *Holder) MustKnow(ctx context.Context) (State, error) {
	bound, err := h.mustKnow(ctx)
	return bound.state(), err
}

// Status is Known with what the CA says of the account to a POST-as-GET of
// exactly its URL. It changes nothing. With an error that is not the CA's answer about the
// account, the state is what storage says.
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
	case err == nil && status == acme.StatusValid && walltime.Since(bound.DeactivatedAt).Abs() < ca.RolledLately:
		// the CA has confirmed it, and not all its frontends know yet
		state.Status = acme.StatusDeactivated
		return state, nil
	case err == nil:
		state.Status = status
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
	state.Status, state.Problem = StatusUnknown, err.Error()
	if ca.IsProblem(err, "unauthorized") {
		// to a request about nothing but the account it means one thing
		state.Status = acme.StatusDeactivated
	}
	return state, nil
}
