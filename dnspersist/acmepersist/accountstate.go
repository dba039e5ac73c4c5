package acmepersist

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

// StatusUnknown is the status of an account that the CA does not accept.
const StatusUnknown = "unknown"

// AccountState is what there is to know of the bound account, but its keys.
type AccountState struct {
	Account
	// EarlierThumbprints are those of former keys, the latest first.
	EarlierThumbprints []string `json:"earlier_thumbprints,omitempty"`
	// StorageKey is where the binding lies: the file to back up.
	StorageKey string `json:"storage_key"`
	// PendingRollover is true if RollKey was cut short.
	PendingRollover bool `json:"pending_rollover"`
	// RolledAt is when the key was last changed.
	RolledAt time.Time `json:"rolled_at,omitzero"`
	// DeactivatingAt and DeactivatedAt are when DeactivateAccount asked the CA and when
	// that was done.
	DeactivatingAt time.Time `json:"deactivating_at,omitzero"`
	DeactivatedAt  time.Time `json:"deactivated_at,omitzero"`
	// IssuerDomainNames, Dialect and AccountHashPrefix are what records are made with beside
	// the account, as far as it is known without an order. They are empty where the CA was not
	// asked.
	IssuerDomainNames []string       `json:"issuer_domain_names,omitempty"`
	Dialect           record.Dialect `json:"dialect,omitempty"`
	AccountHashPrefix string         `json:"account_hash_prefix,omitempty"`
	// Status is what the CA says: valid, deactivated or StatusUnknown, with the Problem.
	// It is empty where the CA was not asked.
	Status  string `json:"status,omitempty"`
	Problem string `json:"problem,omitempty"`
}

func (b boundAccount) state() AccountState {
	return AccountState{
		Account: b.public(), EarlierThumbprints: b.EarlierThumbprints, StorageKey: b.at, PendingRollover: b.NextKeyPEM != "",
		RolledAt: b.RolledAt, DeactivatingAt: b.DeactivatingAt, DeactivatedAt: b.DeactivatedAt,
	}
}

// KnownAccount returns the bound account as it is in storage; false if none is bound. It
// binds and registers nothing and asks nobody.
func (iss *Issuer) KnownAccount(ctx context.Context) (AccountState, bool, error) {
	bound, found, err := iss.offline().knownBinding(ctx)
	if err != nil || !found {
		return AccountState{}, false, err
	}
	return bound.state(), true, nil
}

// AccountStatus is KnownAccount with what the CA says of the account to a POST-as-GET of
// exactly its URL. It changes nothing. With an error that is not the CA's word about the
// account, the state is what storage says.
func (iss *Issuer) AccountStatus(ctx context.Context) (AccountState, error) {
	bound, err := iss.offline().mustKnow(ctx)
	if err != nil {
		return AccountState{}, fmt.Errorf("asking for the account: %w", err)
	}
	state := bound.state()
	s, err := iss.open(ctx)
	if err != nil {
		return state, err
	}
	o, err := s.iss.ca.LoadOffer(ctx)
	if err != nil {
		return state, err
	}
	if t, err := s.Terms(o); err == nil {
		state.IssuerDomainNames, state.Dialect, state.AccountHashPrefix = t.Names, t.Dialect, t.Prefix
	}
	account, err := s.accountOf(bound)
	if err != nil {
		return state, fmt.Errorf("account %s: %w", bound.URL, err)
	}
	status, err := s.askAccount(ctx, account)
	var problem acme.Problem
	switch {
	case err == nil && status == acme.StatusValid && walltime.Since(bound.DeactivatedAt).Abs() < ca.RolledLately:
		// the CA has confirmed it, and not all its frontends know yet
		state.Status = acme.StatusDeactivated
		return state, nil
	case err == nil:
		state.Status = status
		return state, nil
	case !errors.As(err, &problem) || s.IsBusy() || ca.IsRateLimited(err):
		return state, err
	}
	if bound.NextKeyPEM != "" {
		next, keyErr := decodeKey(bound.NextKeyPEM, "the next key of the account")
		if keyErr != nil {
			return state, keyErr
		}
		if known, askErr := s.knows(ctx, bound.URL, next, ca.MaxRetries); askErr == nil && known {
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
