package account

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
)

// What Import has done.
const (
	// ImportNew: the account was bound where none was.
	ImportNew = "imported"
	// ImportAlready: the account was bound with this key already.
	ImportAlready = "already"
	// ImportNewer: the account was bound with a key that it no longer has.
	ImportNewer = "replaced an earlier key"
)

// Imported is what Import has done.
type Imported struct {
	State
	// Outcome is one of the Import constants.
	Outcome string `json:"outcome"`
}

// Import binds an account that Export has written. Before anything is stored
// the CA is asked for exactly this account with exactly this key. It never takes the place
// of another account, and never brings a former key back; a rollover that was pending when
// the account was exported is resolved. It may be repeated.
func (h *Holder) Import(ctx context.Context, data []byte) (result Imported, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("importing the account: %w", err)
		}
	}()
	in, err := parseExport(data, h.CA.URL)
	if err != nil {
		return Imported{}, err
	}
	if want := h.PinnedURL; want != "" && want != in.URL {
		return Imported{}, fmt.Errorf("account_url names %s, and the file holds %s: correct account_url or import the other account", want, in.URL)
	}
	b, err := h.open(ctx)
	if err != nil {
		return Imported{}, err
	}
	err = h.locked(ctx, nil, func() (err error) {
		result, err = b.importLocked(ctx, in)
		return err
	})
	return result, err
}

// importLocked is Import under the lock.
func (b *Book) importLocked(ctx context.Context, in binding) (Imported, error) {
	var err error
	// which key is the account's is known before they are compared
	if in.NextKeyPEM != "" {
		if in, err = b.resolveImport(ctx, in); err != nil {
			return Imported{}, err
		}
	}
	if err := b.suitsPinnedKey(in); err != nil {
		return Imported{}, err
	}
	here, found, err := b.importTarget(ctx, in)
	if err != nil {
		return Imported{}, err
	}
	if here, err = b.resolve(ctx, here); err != nil {
		return Imported{}, fmt.Errorf("a key rollover of the bound account is pending: %w", err)
	}
	outcome := ImportNew
	switch {
	case !found:
	case in.olderThan(here):
		return Imported{}, fmt.Errorf("the file holds a former key of %s (thumbprint %s), which was changed to that of thumbprint %s: "+
			"the bound account is newer, nothing was changed", in.URL, in.Thumbprint, here.Thumbprint)
	case here.Thumbprint != in.Thumbprint:
		outcome = ImportNewer
		in.EarlierThumbprints = prepend(here.EarlierThumbprints, append(in.EarlierThumbprints, here.Thumbprint)...)
	case b.isBound(ctx, here.at, in.URL):
		return Imported{here.state(), ImportAlready}, nil
	}
	if err := confirm(ctx, b.client, in); err != nil {
		return Imported{}, err
	}
	in.at = here.at
	in.DeactivatingAt, in.DeactivatedAt = time.Time{}, time.Time{} // the CA has just confirmed it
	if in.BoundAt.IsZero() {
		in.BoundAt = time.Now().UTC()
	}
	if err := b.keepCutShort(ctx, in.at); err != nil {
		return Imported{}, err
	}
	if in, err = b.save(ctx, in); err != nil {
		return Imported{}, err
	}
	b.memory.forget()
	b.logger.Info("imported the ACME account",
		zap.String("ca", in.CA), zap.String("account", in.URL), zap.String("thumbprint", in.Thumbprint),
		zap.String("outcome", outcome), zap.String("storage_key", in.at))
	return Imported{in.state(), outcome}, nil
}

// importTarget finds the file that the account goes to, here.at, and the binding of the same
// account that is there or in another of our files. Another account is never overwritten.
func (f *files) importTarget(ctx context.Context, in binding) (here binding, found bool, err error) {
	key, err := f.key()
	if err != nil {
		return binding{}, false, err
	}
	here, found, err = f.load(ctx, key)
	found = found && here.URL != ""
	switch {
	case err != nil:
		return binding{}, false, err
	case found && here.URL == in.URL:
		return here, true, nil
	case found && f.PinnedURL == "":
		return binding{}, false, fmt.Errorf("the bound account is %s, the file holds %s, and records may name either: "+
			"set account_url to %s to use it beside the bound one, or, if no record names %s, remove %s from storage, and import again",
			here.URL, in.URL, in.URL, here.URL, here.at)
	case found:
		key = "" // it goes beside the other one, see save
	}
	here, found, err = f.ownByURL(ctx, in.URL)
	if !found || key != "" {
		here.at = key
	}
	return here, found, err
}

// resolveImport asks the CA which of the keys in the file is the account's.
func (b *Book) resolveImport(ctx context.Context, in binding) (binding, error) {
	next, err := decodeKey(in.NextKeyPEM, "the next key")
	if err != nil {
		return in, err
	}
	known, err := knows(ctx, b.client, in.URL, next, ca.MaxRetries)
	if err != nil {
		return in, fmt.Errorf("a key rollover was pending when the account was exported: %w", err)
	}
	if known {
		return in.promoted(next)
	}
	return in, nil
}

// suitsPinnedKey refuses another key than the configured one.
func (f *files) suitsPinnedKey(in binding) error {
	if f.PinnedKeyPEM == "" {
		return nil
	}
	key, err := decodeKey(f.PinnedKeyPEM, "account_key")
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

// exportFormat is the "format" member of an exported account.
const exportFormat = "dns-persist-account-v1"

// exportedAccount is a backup of the bound account.
type exportedAccount struct {
	Format string `json:"format"`
	binding
}

// Export returns the bound account with its key as one JSON file, for a backup or to
// move it to another storage. Whoever has it can get certificates for every name whose
// record names the account. It registers nothing, asks nobody, and fails if no account is
// bound. The new key of a rollover that is pending is in it, too.
func (h *Holder) Export(ctx context.Context) ([]byte, error) {
	bound, err := h.mustKnow(ctx)
	if err != nil {
		return nil, fmt.Errorf("exporting the account: %w", err)
	}
	if err := bound.check(h.CA.URL); err != nil {
		return nil, fmt.Errorf("exporting the account: %s in storage: %w", bound.at, err)
	}
	data, err := json.MarshalIndent(exportedAccount{exportFormat, bound}, "", "\t")
	if err != nil {
		return nil, fmt.Errorf("exporting the account: %w", err)
	}
	return append(data, '\n'), nil
}

// parseExport reads what Export has written. Its errors quote nothing of the file
// that could be a key.
func parseExport(data []byte, ca string) (binding, error) {
	var head struct {
		Format string `json:"format"`
	}
	if json.Unmarshal(data, &head) != nil || head.Format == "" {
		return binding{}, errors.New(`this is not an exported account: it is not JSON with a member "format"; ` + "`caddy dns-persist account export` makes one")
	}
	if head.Format != exportFormat {
		if len(head.Format) > 2*len(exportFormat) {
			head.Format = "something long"
		}
		return binding{}, fmt.Errorf("the file's format is %q, this version reads %q", head.Format, exportFormat)
	}
	var e exportedAccount
	if err := json.Unmarshal(data, &e); err != nil {
		where := ""
		if typed, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			where = " at " + typed.Field
		}
		return binding{}, fmt.Errorf("the file is damaged%s: a member is not what it should be", where)
	}
	return e.binding, e.check(ca)
}

// Deactivate ends the bound account at the CA (RFC 8555 section 7.3.6), for ever:
// every record that names it is worthless afterwards. The url must be the bound account's,
// so that nobody ends the wrong one. Nothing is ever registered in its place.
//
// That it is asked for is noted before the CA acts: a call that is cut short can be
// repeated, and no account is registered in between, also where a lost one is to be replaced.
func (h *Holder) Deactivate(ctx context.Context, url string) error {
	b, err := h.open(ctx)
	if err != nil {
		return fmt.Errorf("deactivating the account %s: %w", url, err)
	}
	err = h.locked(ctx, nil, func() error {
		bound, err := h.mustKnow(ctx)
		if err != nil {
			return err
		}
		if bound.URL != url {
			return fmt.Errorf("the bound account at %s is %s, nothing was done: give exactly its URL", h.CA.URL, bound.URL)
		}
		if !bound.DeactivatedAt.IsZero() {
			return nil
		}
		return b.deactivate(ctx, bound)
	})
	h.memory.forget()
	if err != nil {
		return fmt.Errorf("deactivating the account %s: %w", url, err)
	}
	return nil
}

func (b *Book) deactivate(ctx context.Context, bound binding) error {
	bound, err := b.resolve(ctx, bound)
	if err != nil {
		return fmt.Errorf("a key rollover is pending: %w", err)
	}
	account, err := b.signsWith(bound)
	if err != nil {
		return err
	}
	again := !bound.DeactivatingAt.IsZero()
	bound.DeactivatingAt = time.Now().UTC()
	if bound, err = b.save(ctx, bound); err != nil {
		return err
	}
	var answer acme.Account
	sent := 0
	err = b.client.Do(ctx, "asking the CA to deactivate the account", func() (err error) {
		sent++
		answer, err = b.client.ACME.UpdateAccount(ctx, acme.Account{
			Status: acme.StatusDeactivated, Location: account.Location, PrivateKey: account.PrivateKey,
		})
		return err
	})
	switch {
	case err == nil && answer.Status == acme.StatusDeactivated:
	case err == nil:
		return fmt.Errorf("the CA answered, but the account's status is %q: try again", answer.Status)
	case ca.IsProblem(err, "unauthorized") && (again || sent > 1) && isEnded(ctx, b.client, account):
		// an earlier request, whose answer was lost, had done it
	case ca.IsProblem(err, "unauthorized", "malformed", "accountDoesNotExist") && !again && sent == 1:
		bound.DeactivatingAt = time.Time{} // the CA has refused it for sure
		if _, saveErr := b.save(ctx, bound); saveErr != nil {
			return fmt.Errorf("%w; and that could not be noted: %w", err, saveErr)
		}
		return err
	default:
		return fmt.Errorf("whether the CA has done it is not known: try again: %w", err)
	}
	bound.DeactivatedAt = time.Now().UTC()
	if _, err := b.save(ctx, bound); err != nil {
		return fmt.Errorf("the CA has deactivated it, but that could not be noted: try again: %w", err)
	}
	b.logger.Warn("the ACME account was deactivated; every record that names it is worthless now",
		zap.String("ca", bound.CA), zap.String("account", bound.URL), zap.Strings("records", b.store.ValidationNames(ctx)))
	return nil
}

// Replace registers another account in place of one that the CA has lost,
// which the operator has allowed. The lost one is kept beside it. An account whose key was
// changed meanwhile is not lost, and one that was deactivated from here is not replaced.
func (b *Book) Replace(ctx context.Context, lost *Error) error {
	storageKey, err := b.key()
	if err != nil {
		return err
	}
	return b.locked(ctx, nil, func() error {
		old, found, err := b.load(ctx, storageKey)
		if err != nil {
			return err
		}
		found = found && old.URL != ""
		if found && old.URL != lost.URL {
			return b.use(old) // another node was faster
		}
		if found {
			if !old.endedAt().IsZero() {
				return old.ended(nil)
			}
			if old, err = b.resolve(ctx, old); err != nil {
				return fmt.Errorf("not replacing the account while a key rollover is pending: %w", err)
			}
			if lost.thumbprint != "" && old.Thumbprint != lost.thumbprint {
				return b.use(old) // its key was changed
			}
			if err := b.store.Save(ctx, b.lostKey(old), old); err != nil {
				return err
			}
			if err := b.store.Remove(ctx, storageKey); err != nil {
				return err
			}
		}
		var bound binding
		if b.PinnedKeyPEM != "" {
			bound, err = b.bindPinnedKey(ctx, storageKey)
		} else {
			bound, err = b.register(ctx, storageKey)
		}
		if err != nil {
			return err
		}
		b.logger.Error("the CA has lost the account; registered another one, every record has to be published anew",
			zap.String("ca", b.CA.URL), zap.String("lost_account", lost.URL), zap.String("account", bound.URL),
			zap.Strings("records", lost.Names))
		b.memory.remember(bound)
		return b.use(bound)
	})
}
