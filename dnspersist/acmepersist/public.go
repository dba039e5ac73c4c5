package acmepersist

import (
	"context"
	"net/http"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"golang.org/x/time/rate"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/account"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/site"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
)

// ChallengeType is the type of the challenge (draft-ietf-acme-dns-persist, section 4).
const ChallengeType = ca.ChallengeType

// What a domain needs to have published.
type (
	// Record is a TXT record that has to be published.
	Record = site.Record
	// Delegation says where records are published in place of the validation names.
	Delegation = site.Delegation
	// Finding is what is published at a validation name where none of it is the record.
	Finding = site.Finding
	// ValueVerdict is what the CA makes of one value.
	ValueVerdict = site.ValueVerdict
	// UnsupportedNameError is a name that can never be validated this way.
	UnsupportedNameError = site.UnsupportedNameError
	// ForeignAliasError is a validation name that leads elsewhere than it should.
	ForeignAliasError = site.ForeignAliasError
)

// Policies for `policy=wildcard` in the records that are asked for.
const (
	// PolicyAuto asks for it where a wildcard is managed. It is the default.
	PolicyAuto = site.PolicyAuto
	// PolicyExact never asks for it.
	PolicyExact = site.PolicyExact
	// PolicyWildcard always asks for it.
	PolicyWildcard = site.PolicyWildcard
)

// NewTransport returns what carries requests to a CA where Config has no Transport: a connection
// that goes silent is given up after half a minute.
func NewTransport() *http.Transport { return ca.NewTransport() }

// SharedLimiter returns a Config.Limiter that allows a number of orders in a window, for each CA
// and account in this process.
func SharedLimiter(directory string, orders int, window time.Duration) func(account string) *rate.Limiter {
	return ca.SharedLimiter(directory, orders, window)
}

// IssuerKey returns the storage key under which CertMagic files certificates of
// the CA with the given directory URL. It is the key of CertMagic's own ACME
// issuer on purpose: a site that moves between the two keeps its certificate.
func IssuerKey(directory string) string { return state.IssuerKey(directory) }

// The account, see the methods of Issuer that return them.
type (
	// Account is what may be shown of the bound account: everything but its key.
	Account = account.Account
	// AccountState is what there is to know of the bound account, but its keys.
	AccountState = account.State
	// ImportResult is what ImportAccount has done.
	ImportResult = account.Imported
	// Rollover is what RollKey has done.
	Rollover = account.Rollover
	// AccountError is an account that cannot be used. No other one was taken in its place.
	AccountError = account.Error
)

// ErrNoAccount says that no account is bound yet, so nothing can name it.
var ErrNoAccount = account.ErrNoAccount

// What ImportAccount has done.
const (
	// ImportNew says that the account was bound where none was.
	ImportNew = account.ImportNew
	// ImportAlready says that the account was bound with this key already.
	ImportAlready = account.ImportAlready
	// ImportNewer says that the account was bound with a key that it no longer has.
	ImportNewer = account.ImportNewer
)

// Account returns the bound account, and binds one if there is none yet.
func (iss *Issuer) Account(ctx context.Context) (Account, error) { return iss.accounts.Bind(ctx) }

// KnownAccount returns the bound account as it is in storage; false if none is bound. It
// binds and registers nothing and asks nobody.
func (iss *Issuer) KnownAccount(ctx context.Context) (AccountState, bool, error) {
	return iss.accounts.Known(ctx)
}

// AccountStatus is KnownAccount with what the CA answers about the account. It changes nothing. With
// an error that is not the CA's answer about the account, the state is what storage has.
func (iss *Issuer) AccountStatus(ctx context.Context) (AccountState, error) {
	return iss.accounts.Status(ctx)
}

// ExportAccount returns the bound account with its key as one JSON file, for a backup or to move it
// to another storage. Whoever has it can get certificates for every name whose record names the
// account.
func (iss *Issuer) ExportAccount(ctx context.Context) ([]byte, error) {
	return iss.accounts.Export(ctx)
}

// ImportAccount binds an account that ExportAccount has written, once the CA has confirmed it. It
// never takes the place of another account, and never brings a former key back.
func (iss *Issuer) ImportAccount(ctx context.Context, data []byte) (ImportResult, error) {
	return iss.accounts.Import(ctx, data)
}

// RollKey changes the key of the bound account (RFC 8555 section 7.3.5). The account URL stays, and
// with it the records of the deployed drafts; those of draft -02 are to be replaced afterwards.
func (iss *Issuer) RollKey(ctx context.Context) (Rollover, error) { return iss.accounts.Roll(ctx) }

// DeactivateAccount ends the bound account at the CA (RFC 8555 section 7.3.6), for ever: every record
// that names it is worthless afterwards. The url must be the bound account's.
func (iss *Issuer) DeactivateAccount(ctx context.Context, url string) error {
	return iss.accounts.Deactivate(ctx, url)
}

// AccountCheck returns what a Solver needs as CheckAccount: it asks the CA for the account, and wants
// to see it valid (section 4.5 of draft -02).
func AccountCheck(client *acme.Client, registered acme.Account) func(context.Context) error {
	return account.Checker(client, registered)
}
