package acmepersist

import (
	"context"
	"fmt"

	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

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

// lookForCAA looks whether the CA may issue for the name at all: it would refuse, and
// count it. Resolvers that cannot tell veto nothing.
func (a *attempt) lookForCAA(ctx context.Context) (*caaFacts, error) {
	if a.site == nil { // nobody looks for the record
		t, err := a.Terms(a.offer)
		if err == nil {
			err = a.workOut(ctx, t)
		}
		if err != nil {
			return nil, err
		}
	}
	if a.iss.CAAChecker == nil {
		return new(caaFacts), nil
	}
	verdict, at := a.site.evaluateCAA(ctx)
	switch verdict.Outlook {
	case record.OutlookGood:
		return new(caaFacts), nil
	case record.OutlookDepends:
		a.logger.Warn("not every CA reads the CAA records as allowing it to issue; asking all the same",
			zap.String("identifier", a.domain), zap.String("at", at), zap.String("ca", a.iss.CA), zap.String("reason", verdict.Reason))
		return new(caaFacts), nil
	}
	a.caa = &CAAError{Identifier: a.domain, At: at, CA: a.iss.CA, Reason: verdict.Reason}
	return &caaFacts{forbid: true}, nil
}

// overruleCAA goes on although CAA records forbid the certificate.
func (a *attempt) overruleCAA() {
	a.facts.caa.overruled = true
	a.logger.Warn("asking the CA although CAA records seem to forbid it",
		zap.String("identifier", a.domain), zap.NamedError("reason", a.caa))
}

// CodeCAADepends says that CAs differ in what the CAA records allow.
const CodeCAADepends propagation.Code = "caa_depends"

// evaluateCAA predicts what the CA makes of the name's CAA records, and tells where they are.
func (w *siteSession) evaluateCAA(ctx context.Context) (verdict record.CAAVerdict, at string) {
	good := record.CAAVerdict{Outlook: record.OutlookGood}
	if len(w.Directory.Meta.Identities()) == 0 {
		return good, "" // a CA that names no identities does not look at CAA (draft -02 section 3.2)
	}
	found, at, err := w.iss.CAAChecker.CAA(ctx, record.Base(w.Identifier))
	if err != nil {
		w.logger.Debug("CAA records are not known", zap.String("identifier", w.Identifier), zap.Error(err))
		return good, ""
	}
	var list []record.CAA
	for _, r := range found {
		list = append(list, record.CAA{Flags: r.Flag, Tag: r.Tag, Value: r.Value})
	}
	names := append(w.Directory.Meta.Identities(), w.Terms.Names...)
	return record.EvaluateCAA(list, record.CAARequest{
		IssuerDomainNames: names, Wildcard: w.Want.Wildcard, Method: ca.ChallengeType, AccountURL: w.account.URL,
	}), at
}
