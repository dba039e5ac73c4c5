package acmepersist

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
)

// AccountCheck returns what a Solver needs as CheckAccount: it asks the CA for the account with a
// POST-as-GET of exactly its URL, follows no redirect, and wants to see it valid (section 4.5 of
// draft -02). That the CA has said so is good for an hour.
func AccountCheck(client *acme.Client, account acme.Account) func(context.Context) error {
	plain := *orDefault(client.HTTPClient, http.DefaultClient)
	plain.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	plain.Transport = ca.Guard(plain.Transport, client.Directory)
	asking := &acme.Client{Directory: client.Directory, HTTPClient: &plain, UserAgent: client.UserAgent, Logger: client.Logger}
	var mu sync.Mutex
	var checked time.Time
	return func(ctx context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		if !checked.IsZero() && time.Since(checked) < checkFresh {
			return nil
		}
		// acmez has no plain POST-as-GET; the getter of authorizations is one
		answer, err := asking.GetAuthorization(ctx, account, account.Location)
		if err != nil {
			return &AccountError{CA: client.Directory, URL: account.Location, Err: err}
		}
		if answer.Status != acme.StatusValid {
			return &AccountError{CA: client.Directory, URL: account.Location, Err: fmt.Errorf("its status at the CA is %q, not valid", answer.Status)}
		}
		checked = time.Now()
		return nil
	}
}
