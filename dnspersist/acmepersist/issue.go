package acmepersist

import (
	"context"
	"crypto/x509"
	"errors"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/account"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// job is what is known of one attempt.
type job struct {
	// certificate is the one that is renewed, nil for a first one.
	certificate *x509.Certificate
	// renewal is true also where another issuer's certificate is renewed.
	renewal bool
	// watched is the last report of the watch, if the name was parked.
	watched *propagation.Report
}

func (j job) notAfter() time.Time {
	if j.certificate == nil {
		return time.Time{}
	}
	return j.certificate.NotAfter
}

// Issue obtains a certificate for the CSR. It implements certmagic.Issuer.
//
// Nothing is asked of the CA before the record stands everywhere, except when the
// certificate runs out. The errors WaitingError, NotOfferedError, AccountError,
// AccountURIError, UnsupportedNameError and BudgetError say what holds it up.
func (iss *Issuer) Issue(ctx context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	name, err := NameFromCSR(csr)
	if err != nil {
		return nil, err
	}
	job := job{}
	if iss.Parker != nil {
		if job.watched, err = iss.Parker.Parked(ctx, name); err != nil {
			return nil, err
		}
	}
	cert, err := iss.issue(ctx, csr, name, job)
	var changed *account.KeyChangedError
	if errors.As(err, &changed) {
		iss.logger().Info("the account's key was changed meanwhile; going on with the new one",
			zap.String("identifier", name), zap.String("account", changed.URL), zap.String("thumbprint", changed.Thumbprint))
		cert, err = iss.issue(ctx, csr, name, job)
	}
	var lost *AccountError
	if errors.As(err, &lost) && lost.URL != "" && lost.DeactivatedAt.IsZero() &&
		iss.OnAccountLost == OnAccountLostReplace && iss.AccountURL == "" {
		s, openErr := iss.open(ctx)
		if openErr != nil {
			return nil, errors.Join(err, openErr)
		}
		if replaceErr := s.account.Replace(ctx, lost); replaceErr != nil {
			return nil, errors.Join(err, replaceErr)
		}
		job.watched = nil
		cert, err = iss.issue(ctx, csr, name, job)
	}
	switch {
	case iss.Parker == nil:
	case err == nil:
		iss.Parker.Unpark(name)
	default:
		err = iss.parkUntilTold(ctx, name, err)
	}
	return cert, err
}

func (iss *Issuer) issue(ctx context.Context, csr *x509.CertificateRequest, name string, job job) (*certmagic.IssuedCertificate, error) {
	job.certificate = StoredCertificate(ctx, iss.Storage, IssuerKey(iss.CA), name)
	job.renewal = job.certificate != nil || iss.Renewal != nil && iss.Renewal(ctx, name)

	s, err := iss.open(ctx)
	if err != nil {
		return nil, err
	}
	s.requestKey, s.notAfter = keyOf(csr), job.notAfter()
	o, err := s.iss.ca.LoadOffer(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.Refusal(o, job.renewal); err != nil {
		return nil, s.notOffered(ctx, name, err)
	}
	if err := s.account.Bind(ctx); err != nil {
		return nil, err
	}
	if err := s.CompareDirectory(ctx, s.account.URL, "", s.announceChange); err != nil {
		s.logger.Warn("what the directory says was not noted", zap.String("ca", iss.CA), zap.Error(err))
	}
	// a plain name is noted with its first attempt: thousands that wait for their records are
	// not written to storage for that, and on demand anybody can ask for a name
	if record.IsWildcard(name) && !iss.OnDemand {
		vname, err := record.ValidationName(name)
		if err == nil {
			err = s.store.UpdateName(ctx, vname, func(n *state.Name) bool { return n.AddIdentifier(name) })
		}
		if err != nil {
			return nil, err
		}
	}
	if !s.HasTerms(o) {
		// a directory of the deployed drafts shows neither the challenge nor the
		// issuer's names: the first name's order does, and is kept for it
		if o, err = s.firstContact(ctx, name, job); err != nil {
			return nil, err
		}
	}
	a := &attempt{session: s, name: name, offer: o, job: job}
	return a.obtain(ctx, csr)
}

// firstContact learns from an order what the CA offers, one order at a time in
// the whole cluster, so that a thousand names cost one.
func (s *session) firstContact(ctx context.Context, name string, job job) (ca.Offer, error) {
	var o ca.Offer
	known := func() (bool, error) {
		var err error
		if o, err = s.iss.ca.ReloadOffer(ctx); err != nil || o.IsYes() {
			return o.IsYes(), err
		}
		if err := s.Refusal(o, job.renewal); err != nil {
			return false, s.notOffered(ctx, name, err)
		}
		return false, nil
	}
	err := s.store.Locked(ctx, "dns_persist_first_contact_"+s.store.Safe(IssuerKey(s.iss.CA)), known, func() error {
		// another node may have asked while we waited
		if ok, err := known(); ok || err != nil {
			return err
		}
		order, err := s.order(ctx, name)
		if err != nil {
			return err
		}
		authzs, err := s.authorizations(ctx, order)
		if err != nil {
			return err
		}
		if o, err = s.iss.ca.LoadOffer(ctx); err != nil {
			return err
		}
		for _, a := range authzs {
			if _, ok := ca.FindChallenge(a); a.Status == acme.StatusPending && !ok {
				return s.refusedByCA(ctx, name)
			}
		}
		return nil
	})
	return o, err
}

// refusedByCA drops an order that our challenge cannot complete and says so.
func (s *session) refusedByCA(ctx context.Context, name string) error {
	if err := s.store.Remove(ctx, s.store.OrderKey(name)); err != nil {
		return err
	}
	o, err := s.iss.ca.LoadOffer(ctx)
	if err != nil {
		return err
	}
	retry := o.SeenAt.Add(s.iss.ca.NotOfferedRetry)
	return s.notOffered(ctx, name, &ca.NotOfferedError{CA: s.iss.CA, Offered: o.OtherTypes, SeenAt: o.SeenAt, RetryAt: retry})
}

// notOffered parks the name until the CA is asked again.
func (s *session) notOffered(ctx context.Context, identifier string, err error) error {
	var no *ca.NotOfferedError
	if !errors.As(err, &no) {
		return err
	}
	return s.park(ctx, Parking{Identifier: identifier, Retry: no.RetryAt, Err: err})
}

// readReady waits until the order has seen that its authorizations are valid.
func (s *session) readReady(ctx context.Context, order acme.Order) (acme.Order, error) {
	for range 10 {
		var err error
		if order, err = s.readOrder(ctx, order); err != nil {
			return order, err
		}
		if order.Status != acme.StatusPending {
			return order, nil
		}
		if err := ca.Sleep(ctx, s.Interval(ca.MinInterval)); err != nil {
			return order, err
		}
	}
	return order, errors.New("all authorizations are valid, but the order stays pending: this is the CA's fault")
}
