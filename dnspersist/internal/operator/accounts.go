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

// Probe asks the CAs whether and how they offer the challenge.
func (o *Operator) Probe(ctx context.Context, ca string) (reply ProbeReply, err error) {
	issuers, err := o.issuers(ca)
	if err != nil {
		return reply, err
	}
	issuers = distinct(issuers, func(iss *acmepersist.Issuer) string { return iss.CA })
	reply.CAs, reply.Failed, err = ofEach(ctx, issuers, (*acmepersist.Issuer).Probe)
	return reply, err
}

// Accounts returns the bound accounts, with their status at the CA. Where none is bound yet there is
// nothing to return.
func (o *Operator) Accounts(ctx context.Context, ca string) (reply AccountReply, err error) {
	issuers, err := o.accounts(ca)
	if err != nil {
		return reply, err
	}
	reply.Accounts, reply.Failed, err = ofEach(ctx, issuers, (*acmepersist.Issuer).AccountStatus)
	return reply, err
}

// Register binds an account for each issuer, or of one CA, where there is none.
func (o *Operator) Register(ctx context.Context, ca string) ([]Failure, error) {
	issuers, err := o.issuers(ca)
	if err != nil {
		return nil, err
	}
	_, failed, err := ofEach(ctx, issuers, (*acmepersist.Issuer).Account)
	return failed, err
}

// ofEach asks for something of each issuer. An issuer without an account has nothing.
func ofEach[T any](ctx context.Context, issuers []*acmepersist.Issuer, ask func(*acmepersist.Issuer, context.Context) (T, error)) ([]T, []Failure, error) {
	all := []T{}
	var failed failures
	for _, iss := range issuers {
		one, err := ask(iss, ctx)
		if errors.Is(err, acmepersist.ErrNoAccount) {
			continue
		}
		if err == nil {
			all = append(all, one)
		}
		failed.add(iss.CA, nil, err)
	}
	some, err := failed.end(ctx)
	return all, some, err
}

// SameAccounts is an error if a running Caddy uses another account than the storage of this
// configuration has: whoever changes or backs up this one would mean that one.
func (o *Operator) SameAccounts(ctx context.Context, running []acmepersist.AccountState) error {
	issuers, err := o.issuers("")
	if err != nil {
		return err
	}
	for _, iss := range issuers {
		var theirs []string
		for _, a := range running {
			if a.CA == iss.CA {
				theirs = append(theirs, a.URL)
			}
		}
		if len(theirs) == 0 {
			continue
		}
		known, found, err := iss.KnownAccount(ctx)
		if err != nil {
			return err
		}
		if found && slices.Contains(theirs, known.URL) {
			continue
		}
		has := "has none"
		if found {
			has = "has " + known.URL
		}
		return fmt.Errorf("the Caddy that runs uses the account %s at %s, and the storage of this command (%s) %s: run the command as the user that Caddy runs as, or name that Caddy's configuration, or another one that is meant, with --config",
			strings.Join(theirs, ", "), iss.CA, StorageName(iss.Storage), has)
	}
	return nil
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
	issuers, err := o.issuers("")
	for _, iss := range issuers {
		files, ok := iss.Storage.(*certmagic.FileStorage)
		if !ok {
			continue
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
	}
	return err
}
