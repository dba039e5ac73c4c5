package acmepersist

import (
	"context"
	"errors"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

// accountRetry is how long a name waits until an account that could not be used is
// tried again: somebody has to act.
const accountRetry = time.Hour

// parkUntilTold parks a name whose error has nothing to do with DNS and does not pass
// within a minute.
func (iss *Issuer) parkUntilTold(ctx context.Context, name string, err error) error {
	var (
		account *AccountError
		uri     *ca.AccountURIError
		limited *ca.RateLimitedError
		retry   time.Time
	)
	switch {
	case errors.As(err, &limited):
		retry = limited.RetryAt
	case errors.As(err, &account), errors.As(err, &uri):
		retry = walltime.Now().Add(accountRetry)
	default:
		return err
	}
	job := job{certificate: StoredCertificate(ctx, iss.Storage, IssuerKey(iss.CA), name)}
	return iss.Parker.Park(ctx, Parking{Identifier: name, CA: iss.CA, Retry: retry, NotAfter: job.notAfter(), Err: err})
}
