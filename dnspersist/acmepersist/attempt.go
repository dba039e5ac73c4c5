package acmepersist

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// attempt is one way from the gate to the certificate.
type attempt struct {
	*session
	name  string
	offer ca.Offer
	job   job
	// want is what was looked for, once worked is true, and seen what DNS showed, once looked is.
	want           wanted
	seen           propagation.Report
	worked, looked bool
}

// obtain goes from the gate to the certificate. An order that the CA is at work on is gone
// on with, whatever DNS shows now.
func (a *attempt) obtain(ctx context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	order, authzs, underway, err := a.underway(ctx)
	if err != nil {
		return nil, err
	}
	if !underway {
		if order, authzs, err = a.start(ctx); err != nil {
			return nil, err
		}
	}
	if order.Status == acme.StatusPending || underway && order.Status == acme.StatusInvalid {
		for _, authz := range authzs {
			if err := a.authorize(ctx, authz, underway); err != nil {
				return nil, err
			}
		}
		if order, err = a.readReady(ctx, order); err != nil {
			return nil, err
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("finalizing the order: %w", context.Cause(ctx))
	}
	ctx, done := finish(ctx, finishFor)
	defer done()
	a.noteFinalize(ctx)
	if order, err = a.finalize(ctx, order, csr); err != nil {
		if order.Status == acme.StatusInvalid {
			err = errors.Join(err, a.store.Remove(ctx, a.store.OrderKey(a.name)))
		}
		return nil, err
	}
	cert, err := a.download(ctx, order)
	if err != nil {
		return nil, err
	}
	if underway {
		// the CA's word came while nobody looked
		if err := a.settle(ctx); err != nil {
			a.logger.Warn("the attempts of a finished order stay counted", zap.String("identifier", a.name), zap.Error(err))
		}
	}
	if leaf, err := ca.Leaf(cert.Certificate); err == nil && a.worked {
		a.warnOfExpiry(ctx, a.want, leaf.NotAfter.Sub(leaf.NotBefore))
	}
	if err := a.store.Remove(ctx, a.store.OrderKey(a.name)); err != nil {
		a.logger.Warn("the finished order stays in storage", zap.String("identifier", a.name), zap.Error(err))
	}
	return cert, nil
}

// start passes the gate and makes the order, or takes the one that is kept.
func (a *attempt) start(ctx context.Context) (acme.Order, []acme.Authorization, error) {
	if a.HasTerms(a.offer) {
		t, err := a.Terms(a.offer)
		if err != nil {
			return acme.Order{}, nil, err
		}
		if err := a.look(ctx, t); err != nil {
			return acme.Order{}, nil, err
		}
		if err := a.checkCAA(ctx, a.want, a.job); err != nil {
			return acme.Order{}, nil, err
		}
	}
	order, err := a.order(ctx, a.name)
	if err != nil || order.Status != acme.StatusPending {
		return order, nil, err
	}
	authzs, err := a.authorizations(ctx, order)
	return order, authzs, err
}

// look passes the name through the gate.
func (a *attempt) look(ctx context.Context, t ca.Terms) error {
	w, err := a.session.want(ctx, a.name, t)
	if err != nil {
		return err
	}
	report, err := a.pass(ctx, &w, a.offer, a.job)
	if err != nil {
		return err
	}
	a.want, a.seen, a.worked, a.looked = w, report, true, true
	return nil
}

// authorize brings one authorization of the order to an end. With underway the CA has been
// asked before.
func (a *attempt) authorize(ctx context.Context, authz acme.Authorization, underway bool) error {
	switch authz.Status {
	case acme.StatusValid:
		return nil
	case acme.StatusPending:
	default:
		w, err := a.asked(ctx, authz)
		if err != nil {
			return err
		}
		err = errors.Join(a.refused(ctx, authz, w, a.seen), a.store.Remove(ctx, a.store.OrderKey(a.name)))
		return a.afterNo(ctx, w, a.seen, err)
	}
	c, ok, err := a.Challenge(ctx, authz, a.account.Identity)
	if err != nil {
		return err
	}
	if !ok {
		return a.refusedByCA(ctx, a.name)
	}
	if underway {
		// the record as it was looked for is not known any more
		if a.want, err = a.session.want(ctx, a.name, c.Terms); err != nil {
			return err
		}
		a.worked = true
	} else if err := a.heed(ctx, c); err != nil {
		return err
	}
	if err := a.validate(ctx, authz, c, underway); err != nil {
		var processing *ProcessingError
		if ca.IsRateLimited(err) || errors.As(err, &processing) {
			return err
		}
		if ctx.Err() != nil {
			return err // the order is kept, and read by the next attempt
		}
		fresh, readErr := a.readAuthorization(ctx, authz.Location)
		if readErr == nil && fresh.Status != acme.StatusPending && fresh.Status != acme.StatusValid {
			err = errors.Join(err, a.store.Remove(ctx, a.store.OrderKey(a.name)))
		}
		if refused(err) {
			return a.afterNo(ctx, a.want, a.seen, err)
		}
		return err
	}
	return nil
}

// asked is what the CA was asked for that has said no, also if that was another attempt's.
func (a *attempt) asked(ctx context.Context, authz acme.Authorization) (wanted, error) {
	if a.worked {
		return a.want, nil
	}
	c, ok, err := a.Challenge(ctx, authz, a.account.Identity)
	if err != nil || !ok {
		// the CA's word counts, whatever has become of the challenge
		return wanted{identifier: a.name}, nil //nolint:nilerr // see above
	}
	return a.session.want(ctx, a.name, c.Terms)
}

// heed holds what was looked for against the real challenge: if that wants something
// else, and what stands cannot satisfy it, the record it wants is looked for.
func (a *attempt) heed(ctx context.Context, c ca.Challenge) error {
	w := a.want
	t := c.Terms
	if a.iss.IssuerDomainName != "" {
		t.Names = []string{a.iss.IssuerDomainName}
	}
	if a.worked && t.Equal(w.terms) {
		return nil
	}
	if a.worked {
		// what is noted of the CA's word is noted of what it was asked for
		w.terms, w.want = t, a.hashedWant(t, a.name)
		a.want = w
		if a.iss.Checker == nil || c.Status != acme.StatusPending {
			return nil
		}
		known, err := a.store.Name(ctx, w.record.Name)
		if err != nil {
			return err
		}
		if ok, _ := known.Satisfies(a.seen.Values, w.want, a.account.URL); ok {
			return nil
		}
	}
	a.job.watched = nil
	a.offer.Dialect, a.offer.IssuerDomainNames = c.Terms.Dialect, c.Terms.Names
	return a.look(ctx, t)
}
