package dnspersist

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
)

// each calls fn for the issuers, one for each CA and configuration, of one CA only if ca is
// not empty.
func (o *Operator) each(ca string, fn func(*acmepersist.Issuer) error) error {
	found := false
	seen := make(map[string]bool)
	for _, iss := range o.plan().Issuers() {
		if key := o.identity(iss); ca != "" && iss.CA != ca || seen[key] {
			continue
		} else {
			seen[key] = true
		}
		active, err := o.acme(iss)
		if err != nil {
			continue // nothing is issued with it
		}
		found = true
		if err := fn(active); err != nil {
			return err
		}
	}
	switch {
	case found:
		return nil
	case ca != "":
		return fmt.Errorf("no dns_persist issuer of the configuration uses the CA %s, but %s", ca, strings.Join(o.CAs(), ", "))
	}
	return ErrNotConfigured
}

// Probe tells what the CAs say of the challenge. One that says nothing is a PartialError beside
// the others.
func (o *Operator) Probe(ctx context.Context, ca string) ([]acmepersist.Probe, error) {
	var all []acmepersist.Probe
	var failed failures
	seen := make(map[string]bool)
	err := o.each(ca, func(iss *acmepersist.Issuer) error {
		if seen[iss.CA] {
			return nil
		}
		seen[iss.CA] = true
		p, err := iss.Probe(ctx)
		if err == nil {
			all = append(all, p)
		}
		failed.add(iss.CA, nil, err)
		return nil
	})
	if err == nil {
		err = failed.end(ctx)
	}
	return all, err
}

// One returns the issuer of the configuration for commands that change something: the only
// one, or that of the given CA.
func (o *Operator) One(ca string) (*acmepersist.Issuer, error) {
	var all []*acmepersist.Issuer
	err := o.each(ca, func(iss *acmepersist.Issuer) error {
		if !slices.ContainsFunc(all, func(other *acmepersist.Issuer) bool { return sameAccount(iss, other) }) {
			all = append(all, iss)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(all) > 1 {
		if len(o.CAs()) > 1 && ca == "" {
			return nil, fmt.Errorf("the configuration uses several CAs, choose one with --ca: %s", strings.Join(o.CAs(), ", "))
		}
		return nil, fmt.Errorf("the configuration uses several accounts at %s (storage, account_key or account_url differ): use a configuration with one", all[0].CA)
	}
	return all[0], nil
}

// sameAccount reports whether two issuers bind the same account.
func sameAccount(a, b *acmepersist.Issuer) bool {
	return a.CA == b.CA && a.AccountKeyPEM == b.AccountKeyPEM && a.AccountURL == b.AccountURL && storageKey(a.Storage) == storageKey(b.Storage)
}

// For returns the issuer that serves a name, the first of its policy.
func (o *Operator) For(name string) (*acmepersist.Issuer, error) {
	_, order, err := o.names([]string{name})
	if err != nil {
		return nil, err
	}
	return o.acme(order[0])
}

// Accounts tells of the bound accounts, with their status at the CA. Where none is bound
// yet there is nothing to tell. One that cannot be told of is a PartialError beside the others.
func (o *Operator) Accounts(ctx context.Context, ca string) ([]acmepersist.AccountState, error) {
	all := []acmepersist.AccountState{}
	var seen []*acmepersist.Issuer
	var failed failures
	err := o.each(ca, func(iss *acmepersist.Issuer) error {
		if slices.ContainsFunc(seen, func(other *acmepersist.Issuer) bool { return sameAccount(iss, other) }) {
			return nil
		}
		seen = append(seen, iss)
		state, err := iss.AccountStatus(ctx)
		if errors.Is(err, acmepersist.ErrNoAccount) {
			return nil
		}
		if err == nil {
			all = append(all, state)
		}
		failed.add(iss.CA, nil, err)
		return nil
	})
	if err == nil {
		err = failed.end(ctx)
	}
	return all, err
}

// Register binds an account for each issuer, or of one CA, where there is none. A CA at
// which that fails is a PartialError, and the others have theirs.
func (o *Operator) Register(ctx context.Context, ca string) error {
	var failed failures
	err := o.each(ca, func(iss *acmepersist.Issuer) error {
		_, err := iss.Account(ctx)
		failed.add(iss.CA, nil, err)
		return nil
	})
	if err == nil {
		err = failed.end(ctx)
	}
	return err
}
