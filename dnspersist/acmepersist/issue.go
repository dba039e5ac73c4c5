package acmepersist

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/account"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/site"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

// Request is what is known of an attempt beside the CSR.
type Request struct {
	// Seen is what a watch has last shown of the domain's record, less than ReportFresh ago. If the record
	// is ready, no further look is needed. May be nil.
	Seen *propagation.Report
	// Progress is called when the attempt reaches a phase. It must not block. May be nil.
	Progress func(Phase)
}

// Phase is what an attempt is at.
type Phase string

// Phases of an attempt.
const (
	// PhaseLooking: it looks for the record.
	PhaseLooking Phase = "looking"
	// PhasePublishing: the DNS provider is writing the record.
	PhasePublishing Phase = "publishing"
	// PhaseOrdering: the CA is asked for the certificate.
	PhaseOrdering Phase = "ordering"
)

// Issue obtains a certificate for the CSR. It implements certmagic.Issuer.
func (iss *Issuer) Issue(ctx context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	return iss.Obtain(ctx, csr, Request{})
}

// Obtain obtains a certificate for the CSR, which is for one domain.
//
// No validation is asked for before the record is published everywhere, except when the certificate runs out;
// an order may be made earlier, to learn what the CA offers. The CA confirms the account before a record is
// shown to anybody or published. A *Hold in the error says what the domain has to wait for, and until when;
// the errors in it, such as WaitingError or AccountError, have the details.
func (iss *Issuer) Obtain(ctx context.Context, csr *x509.CertificateRequest, req Request) (*certmagic.IssuedCertificate, error) {
	domain, err := NameFromCSR(csr)
	if err != nil {
		return nil, err
	}
	for range 3 { // the account's key may be changed, and the account be lost after that
		var a *attempt
		var cert *certmagic.IssuedCertificate
		if a, err = iss.begin(ctx, csr, domain, req); err == nil {
			cert, err = a.run(ctx)
		}
		accepted := ""
		if a.facts.confirmed || a.order.Location != "" {
			accepted = a.account.URL
		}
		iss.reached(err, a.Client != nil && a.HasAnswered(), accepted)
		if err == nil {
			a.Close()
			return cert, nil
		}
		err = a.asHold(err)
		again, recoverErr := iss.recovered(ctx, domain, err)
		if recoverErr != nil {
			return nil, a.asHold(errors.Join(err, recoverErr))
		}
		if !again {
			return nil, err
		}
		req.Seen = nil // it may be about the former account's record
	}
	return nil, err
}

// recovered reports whether the cause of an error has gone: the account's key was changed meanwhile, or
// the lost account is replaced.
func (iss *Issuer) recovered(ctx context.Context, domain string, err error) (bool, error) {
	var changed *account.KeyChangedError
	if errors.As(err, &changed) {
		iss.Logger.Info("the account's key was changed meanwhile; going on with the new one",
			zap.String("domain", domain), zap.String("account", changed.URL), zap.String("thumbprint", changed.Thumbprint))
		return true, nil
	}
	var lost *AccountError
	if !errors.As(err, &lost) || lost.URL == "" || !lost.DeactivatedAt.IsZero() ||
		iss.OnAccountLost != OnAccountLostReplace || iss.AccountURL != "" {
		return false, nil
	}
	s, openErr := iss.open(ctx)
	if openErr != nil {
		return false, openErr
	}
	return true, s.account.Replace(ctx, lost)
}

// mostSteps is more than an attempt can need.
const mostSteps = 64

// run makes the steps of an attempt one after another, until it has the certificate or has to wait.
func (a *attempt) run(ctx context.Context) (cert *certmagic.IssuedCertificate, err error) {
	defer a.leaveLane()
	for range mostSteps {
		next, change := decide(a.facts, walltime.Now())
		if err := a.note(ctx, change); err != nil {
			return nil, err
		}
		if !next.do.needsLane() && next.do != doPoll {
			a.leaveLane() // nobody holds one for DNS
		}
		switch next.do {
		case doBind:
			err = a.bindAccount(ctx)
		case doResume:
			err = a.resumeOrder(ctx)
		case doLearn:
			err = a.learnOffer(ctx)
		case doLook:
			err = a.look(ctx)
		case doConfirm:
			err = a.account.Check(ctx)
			if a.facts.confirmed = err == nil; err != nil && a.facts.isOverdue(walltime.Now()) && a.facts.writable && a.facts.written == nil && ctx.Err() == nil {
				a.logger.Error("the record is not published, for the CA does not confirm the account", zap.String("domain", a.domain), zap.Error(err))
				// a certificate that runs out is asked for all the same
				a.facts.written, err = new(writeFacts), nil
			}
		case doPublish:
			err = a.publishRecord(ctx)
		case doCAA:
			a.facts.caa, err = a.lookForCAA(ctx)
		case doOverrule:
			a.facts.caa.overruled = true
			a.logger.Warn("asking the CA although CAA records seem to forbid it", zap.String("domain", a.domain), zap.NamedError("reason", a.caa))
		case doEnter:
			err = a.enterLane(ctx)
		case doOrder:
			err = a.makeOrder(ctx)
		case doPost:
			err = a.askToValidate(ctx, change.attempt)
		case doPoll:
			err = a.awaitValidation(ctx)
		case doFinish:
			return a.fetchCertificate(ctx, a.csr)
		case doHold:
			return nil, a.holdAt(ctx, next)
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("the attempt for %s did not come to an end: this is a bug, please report it", a.domain)
}

// NameFromCSR returns the DNS name of a CSR as it is sent in an order. CertMagic asks for one name at a time. Other
// names cannot be validated by this challenge.
func NameFromCSR(csr *x509.CertificateRequest) (string, error) {
	for _, ip := range csr.IPAddresses {
		return "", &site.UnsupportedNameError{Name: ip.String(), Err: errors.New("it is an IP address, the challenge validates DNS names only: use another issuer for it")}
	}
	if len(csr.EmailAddresses)+len(csr.URIs) > 0 {
		return "", &site.UnsupportedNameError{Name: csr.Subject.String(), Err: errors.New("the request has email addresses or URIs, the challenge validates DNS names only")}
	}
	all := csr.DNSNames
	if len(all) == 0 && csr.Subject.CommonName != "" {
		all = []string{csr.Subject.CommonName}
	}
	if len(all) != 1 {
		return "", fmt.Errorf("the certificate request is for %d names, and each name has a certificate of its own: request one for each", len(all))
	}
	normal, err := record.Normalize(all[0])
	if err != nil {
		return "", &site.UnsupportedNameError{Name: all[0], Err: err}
	}
	return normal, nil
}
