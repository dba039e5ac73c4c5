package acmepersist

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// attempt is one way from the gate to the certificate.
type attempt struct {
	*session
	names []string
	offer offer
	job   job
	// wants is what was looked for, by identifier, and seen what DNS showed.
	wants map[string]wanted
	seen  map[string]propagation.Report
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
			err = errors.Join(err, a.store.Remove(ctx, a.orderKey(a.names)))
		}
		return nil, err
	}
	cert, err := a.download(ctx, order)
	if err != nil {
		return nil, err
	}
	if underway {
		// the CA's word came while nobody looked
		for _, n := range a.names {
			if err := a.settle(ctx, n); err != nil {
				a.logger.Warn("the attempts of a finished order stay counted", zap.String("identifier", n), zap.Error(err))
			}
		}
	}
	if leaf, err := leafOf(cert.Certificate); err == nil {
		for _, w := range a.wants {
			a.warnOfExpiry(ctx, w, leaf.NotAfter.Sub(leaf.NotBefore))
		}
	}
	if err := a.store.Remove(ctx, a.orderKey(a.names)); err != nil {
		a.logger.Warn("the finished order stays in storage", zap.Strings("identifiers", a.names), zap.Error(err))
	}
	return cert, nil
}

// start passes the gate and makes the order, or takes the one that is kept.
func (a *attempt) start(ctx context.Context) (acme.Order, []acme.Authorization, error) {
	if a.known(a.offer) {
		t, err := a.predict(a.offer)
		if err != nil {
			return acme.Order{}, nil, err
		}
		for _, n := range a.names {
			if err := a.look(ctx, n, t); err != nil {
				return acme.Order{}, nil, err
			}
			if err := a.checkCAA(ctx, a.wants[n], a.job); err != nil {
				return acme.Order{}, nil, err
			}
		}
	}
	order, err := a.order(ctx, a.names)
	if err != nil || order.Status != acme.StatusPending {
		return order, nil, err
	}
	authzs, err := a.authorizations(ctx, order)
	return order, authzs, err
}

// look passes one name through the gate.
func (a *attempt) look(ctx context.Context, name string, t terms) error {
	w, err := a.want(ctx, name, t)
	if err != nil {
		return err
	}
	report, err := a.pass(ctx, &w, a.offer, a.job)
	if err != nil {
		return err
	}
	a.wants[name], a.seen[name] = w, report
	return nil
}

// authorize brings one authorization of the order to an end. With underway the CA has been
// asked before.
func (a *attempt) authorize(ctx context.Context, authz acme.Authorization, underway bool) error {
	id := authz.IdentifierValue()
	switch authz.Status {
	case acme.StatusValid:
		return nil
	case acme.StatusPending:
	default:
		w, err := a.asked(ctx, authz)
		if err != nil {
			return err
		}
		err = errors.Join(a.refused(ctx, authz, w, a.seen[id]), a.store.Remove(ctx, a.orderKey(a.names)))
		return a.afterNo(ctx, w, a.seen[id], err)
	}
	c, ok, err := a.challenge(ctx, authz)
	if err != nil {
		return err
	}
	if !ok {
		return a.refusedByCA(ctx, a.names)
	}
	if underway {
		// the record as it was looked for is not known any more
		if a.wants[id], err = a.want(ctx, id, c.terms); err != nil {
			return err
		}
	} else if err := a.heed(ctx, c, id); err != nil {
		return err
	}
	if err := a.validate(ctx, authz, c, underway); err != nil {
		var processing *ProcessingError
		if putOff(err) || errors.As(err, &processing) {
			return err
		}
		if ctx.Err() != nil {
			return err // the order is kept, and read by the next attempt
		}
		fresh, readErr := a.readAuthorization(ctx, authz.Location)
		if readErr == nil && fresh.Status != acme.StatusPending && fresh.Status != acme.StatusValid {
			err = errors.Join(err, a.store.Remove(ctx, a.orderKey(a.names)))
		}
		if refused(err) {
			return a.afterNo(ctx, a.wants[id], a.seen[id], err)
		}
		return err
	}
	return nil
}

// asked is what the CA was asked for that has said no, also if that was another attempt's.
func (a *attempt) asked(ctx context.Context, authz acme.Authorization) (wanted, error) {
	id := authz.IdentifierValue()
	if w, ok := a.wants[id]; ok {
		w.identifier = id
		return w, nil
	}
	c, ok, err := a.challenge(ctx, authz)
	if err != nil || !ok {
		// the CA's word counts, whatever has become of the challenge
		return wanted{identifier: id}, nil //nolint:nilerr // see above
	}
	return a.want(ctx, id, c.terms)
}

// heed holds what was looked for against the real challenge: if that wants something
// else, and what stands cannot satisfy it, the record it wants is looked for.
func (a *attempt) heed(ctx context.Context, c offered, id string) error {
	w, looked := a.wants[id]
	t := c.terms
	if a.iss.IssuerDomainName != "" {
		t.names = []string{a.iss.IssuerDomainName}
	}
	if looked && t.same(w.terms) {
		return nil
	}
	if looked {
		// what is noted of the CA's word is noted of what it was asked for
		w.terms, w.want = t, a.hashedWant(t, id)
		a.wants[id] = w
		if a.iss.Checker == nil || c.Status != acme.StatusPending {
			return nil
		}
		var state nameState
		if err := a.iss.names.update(ctx, a.store, w.record.Name, func(n *nameState) bool { state = *n; return false }); err != nil {
			return err
		}
		if ok, _ := state.satisfies(a.seen[id].Values, w.want, a.account.Location); ok {
			return nil
		}
	}
	a.job.watched = nil
	a.offer.Dialect, a.offer.IssuerDomainNames = c.terms.dialect, c.terms.names
	return a.look(ctx, id, t)
}
