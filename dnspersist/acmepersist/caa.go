package acmepersist

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

// caaRetry is how often CAA records that forbid the certificate are looked at again.
const caaRetry = 30 * time.Minute

// CAAError says that CAA records (RFC 8659) forbid the CA to issue. Nothing was asked
// of the CA.
type CAAError struct {
	// Identifier is the name that the certificate is for, At where the records stand.
	Identifier, At string
	// CA is the directory URL.
	CA string
	// Reason says which record forbids it.
	Reason string
}

func (e *CAAError) Error() string {
	return fmt.Sprintf("caa: the CAA records at %s forbid %s to issue for %s: %s; add one that allows it, nothing was asked of the CA",
		e.At, e.CA, e.Identifier, e.Reason)
}

// caaChecker looks for CAA records; nil if nobody does.
func (iss *Issuer) caaChecker() *propagation.Checker {
	if iss.Checker == nil {
		return iss.CAAChecker
	}
	return iss.Checker
}

// checkCAA looks whether the CA may issue for the name at all: it would refuse, and
// count it. Resolvers that cannot tell veto nothing.
func (s *session) checkCAA(ctx context.Context, w wanted, job job) error {
	if s.iss.caaChecker() == nil {
		return nil
	}
	verdict, at := s.evaluateCAA(ctx, w)
	switch verdict.Outlook {
	case record.OutlookGood:
		return nil
	case record.OutlookDepends:
		s.logger.Warn("not every CA reads the CAA records as allowing it to issue; asking all the same",
			zap.String("identifier", w.identifier), zap.String("at", at), zap.String("ca", s.iss.CA), zap.String("reason", verdict.Reason))
		return nil
	}
	if ok, err := s.caaOverruled(ctx, w, job, verdict.Reason); ok || err != nil {
		return err
	}
	err := &CAAError{Identifier: w.identifier, At: at, CA: s.iss.CA, Reason: verdict.Reason}
	return s.park(ctx, Parking{Identifier: w.identifier, Record: w.record, Retry: walltime.Now().Add(caaRetry), Err: err})
}

// caaOverruled reports whether the CA is asked all the same: when the certificate runs out,
// and for a first one after an hour and then every six. Our resolvers may see other records
// than the CA's.
func (s *session) caaOverruled(ctx context.Context, w wanted, job job, reason string) (bool, error) {
	overruled := job.certificate != nil && !walltime.Now().Before(clock{certificate: job.certificate, ratio: s.iss.windowRatio()}.due())
	if job.certificate == nil {
		err := s.store.UpdateName(ctx, w.record.Name, func(n *state.Name) bool {
			n.AddIdentifier(w.identifier)
			now := walltime.Now().UTC()
			switch {
			case n.CAASince.IsZero():
				n.CAASince = now
			case now.Sub(n.CAASince) >= PartialPatience:
				overruled = true
				n.CAASince = now.Add(askInterval - PartialPatience)
			default:
				return false
			}
			return true
		})
		if err != nil {
			return false, err
		}
	}
	if overruled {
		s.logger.Warn("asking the CA although CAA records seem to forbid it",
			zap.String("identifier", w.identifier), zap.String("reason", reason))
	}
	return overruled, nil
}

// CodeCAADepends says that CAs differ in what the CAA records allow.
const CodeCAADepends propagation.Code = "caa_depends"

// evaluateCAA predicts what the CA makes of the name's CAA records, and tells where they are.
func (s *session) evaluateCAA(ctx context.Context, w wanted) (verdict record.CAAVerdict, at string) {
	good := record.CAAVerdict{Outlook: record.OutlookGood}
	if len(s.Directory.Meta.Identities()) == 0 {
		return good, "" // a CA that names no identities does not look at CAA (draft -02 section 3.2)
	}
	found, at, err := s.iss.caaChecker().CAA(ctx, record.Base(w.identifier))
	if err != nil {
		s.logger.Debug("CAA records are not known", zap.String("identifier", w.identifier), zap.Error(err))
		return good, ""
	}
	var list []record.CAA
	for _, r := range found {
		list = append(list, record.CAA{Flags: r.Flag, Tag: r.Tag, Value: r.Value})
	}
	names := append(s.Directory.Meta.Identities(), w.terms.Names...)
	return record.EvaluateCAA(list, record.CAAWant{
		IssuerDomainNames: names, Wildcard: w.want.Wildcard, Method: ca.ChallengeType, AccountURL: s.account.URL,
	}), at
}
