package acmepersist

import (
	"context"
	"fmt"
	"path"

	"github.com/caddyserver/certmagic"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
)

// IssuerKey returns the storage key under which CertMagic files certificates of
// the CA with the given directory URL. It is the key of CertMagic's own ACME
// issuer on purpose: a site that moves between the two keeps its certificate.
func IssuerKey(directory string) string { return state.IssuerKey(directory) }

// store keeps the state of one CA in a storage.
type store struct {
	state.Store
	// ca is the URL of the CA's directory.
	ca string
	// users is the folder in which CertMagic keeps the accounts of `acme`.
	users string
}

func newStore(storage certmagic.Storage, directory string) store {
	return store{
		Store: state.New(storage, directory),
		ca:    directory,
		users: path.Join("acme", certmagic.StorageKeys.Safe(IssuerKey(directory)), "users"),
	}
}

// store is that of the issuer's CA.
func (iss *Issuer) store() store {
	st := newStore(iss.Storage, iss.CA)
	st.Logger = iss.logger()
	return st
}

// loadBound is Load for a binding. Directories that differ in their scheme or query share a
// folder; an account is one CA's.
func (s store) loadBound(ctx context.Context, key string) (bound boundAccount, found bool, err error) {
	found, err = s.Load(ctx, key, &bound)
	bound.at = key
	if err == nil && found && bound.CA != "" && bound.CA != s.ca {
		return boundAccount{}, false, &AccountError{CA: s.ca, URL: bound.URL, Err: fmt.Errorf(
			"%s in storage is the account of the directory %s, which shares this folder, and no account is used at another directory: "+
				"write %s where both are the same CA, or give one of the two a storage of its own", key, bound.CA, bound.CA)}
	}
	return bound, found, err
}
