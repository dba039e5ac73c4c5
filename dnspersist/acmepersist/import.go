package acmepersist

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
)

// What ImportAccount has done.
const (
	// ImportNew says that the account was bound where none was.
	ImportNew = "imported"
	// ImportAlready says that the account was bound with this key already.
	ImportAlready = "already"
	// ImportNewer says that the account was bound with a key that it no longer has.
	ImportNewer = "replaced an earlier key"
)

// ImportResult is what ImportAccount has done.
type ImportResult struct {
	AccountState
	// Outcome is one of the Import constants.
	Outcome string `json:"outcome"`
}

// ImportAccount binds an account that ExportAccount has written. Before anything is stored
// the CA is asked for exactly this account with exactly this key. It never takes the place
// of another account, and never brings a former key back; a rollover that was pending when
// the account was exported is resolved. It may be repeated.
func (iss *Issuer) ImportAccount(ctx context.Context, data []byte) (ImportResult, error) {
	result, err := iss.importAccount(ctx, data)
	if err != nil {
		return ImportResult{}, fmt.Errorf("importing the account: %w", err)
	}
	return result, nil
}

func (iss *Issuer) importAccount(ctx context.Context, data []byte) (ImportResult, error) {
	in, err := parseExport(data, iss.CA)
	if err != nil {
		return ImportResult{}, err
	}
	if want := iss.AccountURL; want != "" && want != in.URL {
		return ImportResult{}, fmt.Errorf("account_url names %s, and the file holds %s: correct account_url or import the other account", want, in.URL)
	}
	s, err := iss.open(ctx)
	if err != nil {
		return ImportResult{}, err
	}
	var result ImportResult
	err = s.store.Locked(ctx, s.accountLock(), nil, func() (err error) {
		result, err = s.importLocked(ctx, in)
		return err
	})
	return result, err
}

func (s *session) importLocked(ctx context.Context, in boundAccount) (ImportResult, error) {
	var err error
	// which key is the account's is known before they are compared
	if in.NextKeyPEM != "" {
		if in, err = s.resolveImport(ctx, in); err != nil {
			return ImportResult{}, err
		}
	}
	if err := s.suitsPinnedKey(in); err != nil {
		return ImportResult{}, err
	}
	here, found, err := s.importTarget(ctx, in)
	if err != nil {
		return ImportResult{}, err
	}
	if found && here.NextKeyPEM != "" {
		if here, err = s.resolve(ctx, here); err != nil {
			return ImportResult{}, fmt.Errorf("a key rollover of the bound account is pending: %w", err)
		}
	}
	outcome := ImportNew
	switch {
	case !found:
	case in.olderThan(here):
		return ImportResult{}, fmt.Errorf("the file holds a former key of %s (thumbprint %s), which was changed to that of thumbprint %s: "+
			"the bound account is newer, nothing was changed", in.URL, in.Thumbprint, here.Thumbprint)
	case here.Thumbprint != in.Thumbprint:
		outcome = ImportNewer
		in.EarlierThumbprints = prepend(here.EarlierThumbprints, append(in.EarlierThumbprints, here.Thumbprint)...)
	case s.boundAt(ctx, here.at, in.URL):
		return ImportResult{here.state(), ImportAlready}, nil
	}
	if err := s.confirm(ctx, in); err != nil {
		return ImportResult{}, err
	}
	in.at = here.at
	in.DeactivatingAt, in.DeactivatedAt = time.Time{}, time.Time{} // the CA has just said so
	if in.BoundAt.IsZero() {
		in.BoundAt = time.Now().UTC()
	}
	if err := s.keepCutShort(ctx, in.at); err != nil {
		return ImportResult{}, err
	}
	if in, err = s.saveBinding(ctx, in); err != nil {
		return ImportResult{}, err
	}
	s.iss.forgetBound()
	s.logger.Info("imported the ACME account",
		zap.String("ca", in.CA), zap.String("account", in.URL), zap.String("thumbprint", in.Thumbprint),
		zap.String("outcome", outcome), zap.String("storage_key", in.at))
	return ImportResult{in.state(), outcome}, nil
}

// boundAt reports whether the file is a finished binding of the account.
func (s *session) boundAt(ctx context.Context, key, url string) bool {
	there, found, err := s.store.loadBound(ctx, key)
	return err == nil && found && there.URL == url
}

// importTarget finds the file that the account goes to, here.at, and the binding of the same
// account that is there or in another of our files. Another account is never overwritten.
func (s *session) importTarget(ctx context.Context, in boundAccount) (here boundAccount, found bool, err error) {
	key, err := s.bindingKey()
	if err != nil {
		return boundAccount{}, false, err
	}
	here, found, err = s.store.loadBound(ctx, key)
	found = found && here.URL != ""
	switch {
	case err != nil:
		return boundAccount{}, false, err
	case found && here.URL == in.URL:
		return here, true, nil
	case found && s.iss.AccountURL == "":
		return boundAccount{}, false, fmt.Errorf("the bound account is %s, the file holds %s, and records may name either: "+
			"set account_url to %s to use it beside the bound one, or, if no record names %s, remove %s from storage, and import again",
			here.URL, in.URL, in.URL, here.URL, here.at)
	case found:
		key = "" // it goes beside the other one, see saveBinding
	}
	here, found, err = s.ownByURL(ctx, in.URL)
	if !found || key != "" {
		here.at = key
	}
	return here, found, err
}

// keepCutShort keeps the key of a registration that was cut short, for whatever came of it.
func (s *session) keepCutShort(ctx context.Context, key string) error {
	if key == "" {
		return nil
	}
	begun, found, err := s.store.loadBound(ctx, key)
	if err != nil || !found || begun.URL != "" {
		return err
	}
	return s.store.Save(ctx, s.store.Key("lost", begun.Thumbprint+".json"), begun)
}

// resolveImport asks the CA which of the keys in the file is the account's.
func (s *session) resolveImport(ctx context.Context, in boundAccount) (boundAccount, error) {
	next, err := decodeKey(in.NextKeyPEM, "the next key")
	if err != nil {
		return in, err
	}
	known, err := s.knows(ctx, in.URL, next, ca.MaxRetries)
	if err != nil {
		return in, fmt.Errorf("a key rollover was pending when the account was exported: %w", err)
	}
	if known {
		return in.promoted(next)
	}
	return in, nil
}

// suitsPinnedKey refuses another key than the configured one.
func (s *session) suitsPinnedKey(in boundAccount) error {
	if s.iss.AccountKeyPEM == "" {
		return nil
	}
	key, err := decodeKey(s.iss.AccountKeyPEM, "account_key")
	if err != nil {
		return err
	}
	pinned, err := thumbprintOf(key)
	if err != nil {
		return err
	}
	if pinned != in.Thumbprint {
		return errors.New("account_key pins the key of thumbprint " + pinned + ", and the file holds " + in.URL + " with that of thumbprint " +
			in.Thumbprint + ": remove account_key, or set it to the account's key")
	}
	return nil
}
