package acmepersist

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"

	"github.com/mholt/acmez/v3/acme"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
)

// exportFormat is the "format" member of an exported account.
const exportFormat = "dns-persist-account-v1"

// exportedAccount is a backup of the bound account.
type exportedAccount struct {
	Format string `json:"format"`
	boundAccount
}

// ExportAccount returns the bound account with its key as one JSON file, for a backup or to
// move it to another storage. Whoever has it can get certificates for every name whose
// record names the account. It registers nothing, asks nobody, and fails if no account is
// bound. The new key of a rollover that is pending is in it, too.
func (iss *Issuer) ExportAccount(ctx context.Context) ([]byte, error) {
	bound, err := iss.offline().mustKnow(ctx)
	if err != nil {
		return nil, fmt.Errorf("exporting the account: %w", err)
	}
	if err := bound.check(iss.CA); err != nil {
		return nil, fmt.Errorf("exporting the account: %s in storage: %w", bound.at, err)
	}
	data, err := json.MarshalIndent(exportedAccount{exportFormat, bound}, "", "\t")
	if err != nil {
		return nil, fmt.Errorf("exporting the account: %w", err)
	}
	return append(data, '\n'), nil
}

// parseExport reads what ExportAccount has written. Its errors quote nothing of the file
// that could be a key.
func parseExport(data []byte, ca string) (boundAccount, error) {
	var head struct {
		Format string `json:"format"`
	}
	if json.Unmarshal(data, &head) != nil || head.Format == "" {
		return boundAccount{}, errors.New(`this is no exported account: it is not JSON with a member "format"; ` + "`caddy dns-persist account export` makes one")
	}
	if head.Format != exportFormat {
		if len(head.Format) > 2*len(exportFormat) {
			head.Format = "something long"
		}
		return boundAccount{}, fmt.Errorf("the file's format is %q, this version reads %q", head.Format, exportFormat)
	}
	var e exportedAccount
	if err := json.Unmarshal(data, &e); err != nil {
		where := ""
		if typed, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			where = " at " + typed.Field
		}
		return boundAccount{}, fmt.Errorf("the file is damaged%s: a member is not what it should be", where)
	}
	return e.boundAccount, e.check(ca)
}

// check holds a binding that comes from elsewhere against itself and the CA.
func (b boundAccount) check(directory string) error {
	if b.CA != directory {
		return fmt.Errorf("the account is one of the CA %s, and the CA here is %s: use it with its own", b.CA, directory)
	}
	u, err := url.Parse(b.URL)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return errors.New("its url is no account URL (http or https)")
	}
	if err := ca.CheckEncrypted(directory, b.URL); err != nil {
		return fmt.Errorf("its url: %w", err)
	}
	key, err := b.signer()
	if err != nil {
		return fmt.Errorf("account %s: %w", b.URL, err)
	}
	thumbprint, err := thumbprintOf(key)
	if err != nil {
		return fmt.Errorf("account %s: %w", b.URL, err)
	}
	if thumbprint != b.Thumbprint {
		return fmt.Errorf("account %s: the key's thumbprint is %s, but the member thumbprint says %q: key and account do not belong together",
			b.URL, thumbprint, b.Thumbprint)
	}
	if b.NextKeyPEM != "" {
		if _, err := decodeKey(b.NextKeyPEM, "the next key"); err != nil {
			return fmt.Errorf("account %s: %w", b.URL, err)
		}
	}
	return nil
}

// olderThan reports whether b has a former key of the same account.
func (b boundAccount) olderThan(other boundAccount) bool {
	return b.Thumbprint != other.Thumbprint && slices.Contains(other.EarlierThumbprints, b.Thumbprint)
}

// confirm asks the CA whose the key is, and then for the account with the binding's URL and key
// (section 4.5 of draft -02: the URL is confirmed before it is used). The URL comes from a file:
// nothing is signed for it before the CA's new-account has named it. It may be on any host, for
// some CAs have their accounts on another one than their directory.
func (s *session) confirm(ctx context.Context, b boundAccount) error {
	account, err := b.acme()
	if err != nil {
		return err
	}
	refused := func(err error) error {
		return fmt.Errorf("the CA does not accept the account %s with the key of thumbprint %s; its key may have been changed, "+
			"or it was deactivated: %w", b.URL, b.Thumbprint, err)
	}
	var named acme.Account
	err = s.step(ctx, "asking the CA whose the key is", func() (err error) {
		named, err = s.ACME.GetAccount(ctx, acme.Account{PrivateKey: account.PrivateKey})
		return err
	})
	switch {
	case ca.IsProblem(err, "malformed", "unauthorized", "accountDoesNotExist"):
		return refused(err)
	case err != nil:
		return err
	case named.Location != b.URL:
		return fmt.Errorf("the CA names the account of this key %q, and the file %s: nothing was sent to the file's URL, which is not the account's; "+
			"take the file from a fresh `account export`", named.Location, b.URL)
	}
	status, err := s.askAccount(ctx, account)
	switch {
	case ca.IsProblem(err, "malformed", "unauthorized", "accountDoesNotExist"):
		return refused(err)
	case err != nil:
		return err
	case status != acme.StatusValid:
		return fmt.Errorf("the status of the account %s at the CA is %q, not valid", b.URL, status)
	}
	return nil
}
