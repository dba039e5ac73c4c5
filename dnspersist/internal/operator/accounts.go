package operator

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/caddyserver/certmagic"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
)

// Probe asks the CAs whether and how they offer the challenge. One that does not answer is a
// PartialError beside the others.
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

// Accounts returns the bound accounts, with their status at the CA. Where none is bound
// yet there is nothing to return. One of which nothing is known is a PartialError beside the others.
func (o *Operator) Accounts(ctx context.Context, ca string) ([]acmepersist.AccountState, error) {
	all := []acmepersist.AccountState{}
	var failed failures
	err := o.eachAccount(ca, func(iss *acmepersist.Issuer) {
		state, err := iss.AccountStatus(ctx)
		if errors.Is(err, acmepersist.ErrNoAccount) {
			return
		}
		if err == nil {
			all = append(all, state)
		}
		failed.add(iss.CA, nil, err)
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

// SameAccounts is an error if a running Caddy uses another account than the storage of this
// configuration has: whoever changes or backs up this one would mean that one.
func (o *Operator) SameAccounts(ctx context.Context, running []acmepersist.AccountState) error {
	return o.each("", func(iss *acmepersist.Issuer) error {
		var theirs []string
		for _, a := range running {
			if a.CA == iss.CA {
				theirs = append(theirs, a.URL)
			}
		}
		if len(theirs) == 0 {
			return nil
		}
		known, found, err := iss.KnownAccount(ctx)
		if err != nil || found && slices.Contains(theirs, known.URL) {
			return err
		}
		has := "has none"
		if found {
			has = "has " + known.URL
		}
		return fmt.Errorf("the Caddy that runs uses the account %s at %s, and the storage of this command (%s) %s: run the command as the user that Caddy runs as, or name that Caddy's configuration, or another one that is meant, with --config",
			strings.Join(theirs, ", "), iss.CA, StorageName(iss.Storage), has)
	})
}

// sameAccount reports whether two issuers bind the same account.
func sameAccount(a, b *acmepersist.Issuer) bool {
	return a.CA == b.CA && a.AccountKeyPEM == b.AccountKeyPEM && a.AccountURL == b.AccountURL && StorageKey(a.Storage) == StorageKey(b.Storage)
}

// StorageKey tells storages apart, whatever their type.
func StorageKey(storage certmagic.Storage) string {
	if s, ok := storage.(fmt.Stringer); ok {
		return fmt.Sprintf("%T %s", storage, s)
	}
	return fmt.Sprintf("%T %p", storage, storage)
}

// StorageName is how a person knows a storage.
func StorageName(storage certmagic.Storage) string {
	if s, ok := storage.(fmt.Stringer); ok {
		return s.String()
	}
	return fmt.Sprintf("%T", storage)
}

// CheckOwner is an error if the storage is a folder of another user: what is written there by
// this one could not be read by Caddy any more.
func (o *Operator) CheckOwner() error {
	return o.each("", func(iss *acmepersist.Issuer) error {
		files, ok := iss.Storage.(*certmagic.FileStorage)
		if !ok {
			return nil
		}
		// whose the storage is, Caddy's own folders in it show best
		for _, folder := range []string{"dns_persist", "certificates", "acme", ""} {
			owner, known, foreign := ownerOf(filepath.Join(files.Path, folder))
			if foreign {
				return fmt.Errorf("the storage %s belongs to the user %s: run the command as that user (sudo -u %s caddy …), or Caddy could not read any more what it writes", files.Path, owner, owner)
			}
			if known {
				break
			}
		}
		return nil
	})
}
