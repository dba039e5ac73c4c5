package acmepersist

import (
	"context"
	"crypto/x509"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/site"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

// Remembered is what storage has of a domain.
type Remembered struct {
	Domain string
	// Certificate is the one in storage; nil if there is none. It is renewed from Due on, and counts as running
	// out from Urgent on.
	Certificate *x509.Certificate
	Due, Urgent time.Time
	// Reason is what an attempt would have to wait for now, as far as storage tells, Err the same in words,
	// Since when that began and Until when it ends. The reason is empty if storage has none.
	Reason       Reason
	Err          error
	Since, Until time.Time
	// Looked is what the last daily look at the record has found, LookedAt when that was.
	Looked   propagation.Status
	LookedAt time.Time
	// Fault is what that look has found wrong with a record by which a certificate is renewed; nil if nothing.
	Fault *RecordFault
	// Answer is what the CA has last refused the domain with; nil if it has not.
	Answer *Answer
}

// Remembered returns what storage has of domains. It asks nobody else, and changes nothing.
func (iss *Issuer) Remembered(ctx context.Context, domains []string) ([]Remembered, error) {
	all := make([]Remembered, len(domains))
	err := inParallel(ctx, len(domains), func(i int) (err error) {
		all[i], err = remembered(ctx, iss, domains[i])
		return err
	})
	return all, err
}

func remembered(ctx context.Context, iss *Issuer, domain string) (Remembered, error) {
	r := Remembered{Domain: domain, Certificate: StoredCertificate(ctx, iss.Storage, IssuerKey(iss.CA), domain)}
	if c := r.Certificate; c != nil {
		r.Urgent = Urgent(c, iss.RenewalWindowRatio)
		r.Due = c.NotAfter.Add(-time.Duration(float64(c.NotAfter.Sub(c.NotBefore)) * iss.RenewalWindowRatio))
	}
	vname, err := record.ValidationName(domain)
	if err != nil {
		return r, &site.UnsupportedNameError{Name: domain, Err: err}
	}
	store := state.New(iss.Storage, iss.CA) // without a logger nothing is repaired
	name, err := store.Name(ctx, vname)
	if err != nil {
		return r, err
	}
	order, _, err := store.Order(ctx, domain)
	if err != nil {
		return r, err
	}
	r.Looked, r.LookedAt, r.Answer = name.LookedStatus, name.LookedAt, name.Answer
	if r.Certificate != nil {
		r.Fault = iss.faultOf(ctx, name, []string{domain})
	}
	switch next := name.NextAttempt(); {
	case !order.PostedAt.IsZero():
		r.Reason, r.Since = ReasonProcessing, order.PostedAt
		r.Err = &ProcessingError{Identifier: domain, CA: iss.CA, Since: order.PostedAt, RetryAt: walltime.Now()}
	case next.After(walltime.Now()):
		r.Reason, r.Since, r.Until = ReasonBudget, name.LastAttempt(), next
		r.Err = &BudgetError{Name: vname, Failed: len(name.Attempts), RetryAt: next, Answer: name.Answer}
	case !name.CAASince.IsZero():
		r.Reason, r.Since = ReasonCAA, name.CAASince
	case !name.PartialSince.IsZero():
		r.Reason, r.Since = ReasonPartial, name.PartialSince
	case name.Answer != nil:
		r.Reason, r.Since = ReasonRejected, name.Answer.At
	}
	return r, nil
}
