package dnspersist

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/caddyserver/certmagic"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
)

// SameAccounts is an error if a running Caddy uses another account than the storage of this
// configuration has: whoever changes or backs up this one would mean that one.
func (o *Offline) SameAccounts(ctx context.Context, running []acmepersist.AccountState) error {
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
			strings.Join(theirs, ", "), iss.CA, storageName(iss.Storage), has)
	})
}

// storageName tells a person which storage it is.
func storageName(storage certmagic.Storage) string {
	if s, ok := storage.(fmt.Stringer); ok {
		return s.String()
	}
	return fmt.Sprintf("%T", storage)
}

// CheckOwner is an error if the storage is a folder of another user: what is written there by
// this one could not be read by Caddy any more.
func (o *Offline) CheckOwner() error {
	for _, s := range o.settings {
		files, ok := s.storage.(*certmagic.FileStorage)
		if !ok {
			continue
		}
		// whose the storage is, Caddy's own folders in it say best
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
	return nil
}
