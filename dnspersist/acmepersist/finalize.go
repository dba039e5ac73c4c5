package acmepersist

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
)

// finalize sends the CSR and returns the order as soon as it is valid. Whatever
// the CA answers, the order itself is read again: the answer may have been cut
// off after the CA has issued.
func (s *session) finalize(ctx context.Context, order acme.Order, csr *x509.CertificateRequest) (acme.Order, error) {
	sent := false
	var said error // what the CA answered last
	refusals := 0
	patience := min(s.iss.timeout(), finalizePatience)
	deadline := time.Now().Add(patience)
	for interval := minInterval; ; {
		if order.Status == acme.StatusReady && (!sent || time.Now().Before(deadline)) {
			s.wire.reset()
			_, err := s.client.FinalizeOrder(ctx, s.account, order, csr.Raw)
			sent, said = true, err
			status, wait, _ := s.wire.last()
			switch {
			case err == nil:
			case s.passing() && wait > maxRetryWait:
				said = &RateLimitedError{RetryAt: time.Now().Add(wait), Err: err}
			case s.passing() || status == 0:
				if err := sleep(ctx, max(wait, minInterval)); err != nil {
					return order, fmt.Errorf("finalizing the order: %w", err)
				}
			case isProblem(err, "badCSR"):
				return order, fmt.Errorf("finalizing the order: %w", err)
			case status >= 400 && !isProblem(err, "orderNotReady"):
				refusals++
			}
			if err != nil {
				s.logger.Debug("answer to finalize", zap.Strings("identifiers", identifiers(order)), zap.Error(err))
			}
		}
		var err error
		if order, err = s.readOrder(ctx, order); err != nil {
			return order, fmt.Errorf("finalizing the order: %w", err)
		}
		switch order.Status {
		case acme.StatusReady:
			// once more, for it may be one frontend's word
			if putOff(said) || refusals > 1 {
				return order, fmt.Errorf("finalizing the order: %w", said)
			}
		case acme.StatusValid:
			return order, nil
		case acme.StatusInvalid:
			if order.Error != nil {
				return order, fmt.Errorf("finalizing the order: the CA refused it: %w", *order.Error)
			}
			return order, errors.New("finalizing the order: the CA refused it without a reason")
		}
		if time.Now().After(deadline) {
			err := fmt.Errorf("finalizing the order: it is still %s after %s", order.Status, patience)
			if said != nil {
				err = fmt.Errorf("%w: the CA last answered: %w", err, said)
			}
			return order, err
		}
		s.keepLock(ctx, csrName(csr))
		if err := sleep(ctx, s.interval(interval)); err != nil {
			return order, fmt.Errorf("finalizing the order: %w", err)
		}
		interval = min(interval*2, 10*time.Second)
	}
}

// csrName is the name under which CertMagic holds its lock for a request.
func csrName(csr *x509.CertificateRequest) string {
	if len(csr.DNSNames) > 0 {
		return csr.DNSNames[0]
	}
	return csr.Subject.CommonName
}

// interval is the time until the next poll: the CA's Retry-After if it sent one,
// never under a second.
func (s *session) interval(own time.Duration) time.Duration {
	if _, wait, has := s.wire.last(); has {
		return min(max(wait, minInterval), maxRetryWait)
	}
	return max(own, minInterval)
}

// download fetches the certificate and chooses the chain.
func (s *session) download(ctx context.Context, order acme.Order) (*certmagic.IssuedCertificate, error) {
	var chains []acme.Certificate
	err := s.step(ctx, "downloading the certificate", func() (err error) {
		chains, err = s.client.GetCertificateChain(ctx, s.account, order.Certificate)
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(chains) == 0 {
		return nil, errors.New("downloading the certificate: the CA returned no chain")
	}
	chosen := preferredChain(chains, s.iss.PreferredChains)
	chosen.CA = s.iss.CA // without the fragment of our directory copy
	return &certmagic.IssuedCertificate{Certificate: chosen.ChainPEM, Metadata: chosen}, nil
}

func identifiers(order acme.Order) []string {
	var list []string
	for _, id := range order.Identifiers {
		list = append(list, id.Value)
	}
	return list
}
