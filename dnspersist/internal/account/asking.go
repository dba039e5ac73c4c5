package account

import (
	"context"
	"crypto"
	"fmt"

	"github.com/mholt/acmez/v3/acme"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
)

// The questions of this file name the account with each request. They are about accounts that are not
// in use, or not yet, so nothing is found out about a changed key.

// statusOf asks once for the status of an account with its URL and key.
func statusOf(ctx context.Context, client *ca.Client, account acme.Account) (string, error) {
	// acmez has no plain POST-as-GET; the getter of authorizations is one
	answer, err := client.ACME.GetAuthorization(ctx, account, account.Location)
	return answer.Status, err
}

// ask is statusOf as a step.
func ask(ctx context.Context, client *ca.Client, account acme.Account) (status string, err error) {
	err = client.Do(ctx, "checking the ACME account", func() (err error) {
		status, err = statusOf(ctx, client, account)
		return err
	})
	return status, explained(err, account)
}

// explained adds to the CA's answer what to do where it does not accept the account's key.
func explained(err error, account acme.Account) error {
	if !ca.IsProblem(err, "malformed") {
		return err
	}
	thumbprint, _ := account.Thumbprint()
	return fmt.Errorf("%w; the CA does not accept the key with the thumbprint %s for %s: it may have been changed elsewhere, then take it from there with `account export` and bring it here with `account import`",
		err, thumbprint, account.Location)
}

// knows asks the CA whether a key is the account's (RFC 8555 section 7.3.1). A key of
// another account is an error.
func knows(ctx context.Context, client *ca.Client, url string, key crypto.Signer, retries int) (bool, error) {
	var account acme.Account
	err := client.DoUpTo(ctx, "asking the CA whose the new key is", retries, func() (err error) {
		account, err = client.ACME.GetAccount(ctx, acme.Account{PrivateKey: key})
		return err
	})
	switch {
	case ca.IsProblem(err, "accountDoesNotExist"):
		return false, nil
	case err != nil:
		return false, err
	case account.Location != url:
		return false, fmt.Errorf("asking the CA whose the new key is: it names the account %q, the bound account is %s: "+
			"nothing was changed; keep the storage and ask the CA", account.Location, url)
	}
	return true, nil
}

// confirm asks the CA whose the key is, and then for the account with the binding's URL and key
// (section 4.5 of draft -02: the URL is confirmed before it is used). The URL comes from a file:
// nothing is signed for it before the CA's new-account has named it. It may be on any host, for
// some CAs have their accounts on another one than their directory.
func confirm(ctx context.Context, client *ca.Client, b binding) error {
	account, err := b.acme()
	if err != nil {
		return err
	}
	refused := func(err error) error {
		return fmt.Errorf("the CA does not accept the account %s with the key of thumbprint %s; its key may have been changed, "+
			"or it was deactivated: %w", b.URL, b.Thumbprint, err)
	}
	var named acme.Account
	err = client.Do(ctx, "asking the CA whose the key is", func() (err error) {
		named, err = client.ACME.GetAccount(ctx, acme.Account{PrivateKey: account.PrivateKey})
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
	status, err := ask(ctx, client, account)
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

// isEnded asks for the account itself, of which `unauthorized` can mean one thing only.
func isEnded(ctx context.Context, client *ca.Client, account acme.Account) bool {
	status, err := ask(ctx, client, account)
	return ca.IsProblem(err, "unauthorized") || err == nil && status == acme.StatusDeactivated
}
