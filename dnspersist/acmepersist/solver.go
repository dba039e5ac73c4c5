package acmepersist

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/site"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// Solver solves dns-persist-01 for programs that drive acmez themselves: register it
// as the only solver, under ChallengeType. It implements acmez.Solver and
// acmez.Waiter.
//
// It publishes nothing: the record is set once by the domain's owner and stays.
// Wait returns when every authoritative server shows it, or with an error that
// says what is missing. acmez gives a solver neither the account nor the scope of
// the authorization, so a Solver belongs to one account.
type Solver struct {
	// AccountURL is the URL of the account that makes the order. Required.
	AccountURL string
	// CheckAccount asks the CA for the account, before Present makes a record known that names it:
	// whoever could put another URL in its place would be given certificates for the name. See
	// AccountCheck. Required.
	CheckAccount func(context.Context) error
	// AccountHashPrefix and IssuerDomainNames are those of the CA's directory, and
	// Thumbprint is that of the account's key (acme.Account.Thumbprint). They are needed
	// at a CA of draft -02, of whose challenges acmez does not know the names: the
	// directory's are sure to be among them.
	AccountHashPrefix, Thumbprint string
	IssuerDomainNames             []string
	// Wildcard reports whether the authorization of an identifier is for its
	// wildcard. Without it the record must serve both.
	Wildcard func(identifier string) bool
	// Checker looks for the record. Required.
	Checker *propagation.Checker
	// Grace and Settle are those of the gate. Zero for the defaults.
	Grace, Settle time.Duration
	// Timeout is how long Wait waits for DNS. Default: 2 minutes.
	Timeout time.Duration
	// PollInterval is the shortest time between two looks. Default: 1 second.
	PollInterval time.Duration
	// Logger says what has to be published. Default: none.
	Logger *zap.Logger
}

// Present checks the challenge and the account, and says which record is needed. It implements
// acmez.Solver.
func (s *Solver) Present(ctx context.Context, c acme.Challenge) error {
	if c.Type != ca.ChallengeType {
		return fmt.Errorf("presenting the challenge for %s: its type is %s, this solver is for %s", c.Identifier.Value, c.Type, ca.ChallengeType)
	}
	r, _, err := s.wanted(c)
	if err != nil {
		return err
	}
	if s.CheckAccount == nil {
		return fmt.Errorf("presenting the challenge for %s: the solver has no CheckAccount, and no record is made known before the CA has confirmed the account: "+
			"set it to AccountCheck(client, account)", c.Identifier.Value)
	}
	if err := s.CheckAccount(ctx); err != nil {
		return fmt.Errorf("presenting the challenge for %s: no record is made known for an account that the CA has not confirmed: %w", c.Identifier.Value, err)
	}
	if s.Logger != nil {
		s.Logger.Info("this record is needed for the validation", zap.String("name", r.Name), zap.String("value", r.Value))
	}
	return nil
}

// Wait returns as soon as the CA may be asked. It implements acmez.Waiter.
func (s *Solver) Wait(ctx context.Context, c acme.Challenge) error {
	r, want, err := s.wanted(c)
	if err != nil {
		return err
	}
	if s.Checker == nil {
		return errors.New("waiting for the record: the solver has no Checker")
	}
	target := propagation.Target{Name: r.Name, Host: record.Base(c.Identifier.Value), Accept: func(values []string) (bool, string) {
		result := record.Evaluate(values, want, time.Now())
		return result.Good(), result.Explain()
	}}
	gate := propagation.NewGate(s.Grace, s.Settle)
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(s.Timeout, 2*time.Minute))
	defer cancel()
	start := time.Now()
	for {
		report := s.Checker.Check(ctx, target, gate)
		if report.Status == propagation.StatusReady {
			return nil
		}
		if ca.Sleep(ctx, nextLook(report, time.Since(start), cmp.Or(s.PollInterval, defaultPollInterval))) != nil {
			return &WaitingError{Identifier: c.Identifier.Value, Record: r, Report: report, Found: site.Find(r, want, report)}
		}
	}
}

// CleanUp does nothing: the record is there to stay. It implements acmez.Solver.
func (s *Solver) CleanUp(context.Context, acme.Challenge) error { return nil }

// wanted is the record for a challenge and what the CA has to find in it.
func (s *Solver) wanted(c acme.Challenge) (site.Record, record.Requirement, error) {
	list, dialect := c.IssuerDomainNames, record.DialectAccountURL
	if len(list) == 0 && s.AccountHashPrefix != "" {
		list, dialect = s.IssuerDomainNames, record.DialectHashed
	}
	names, err := ca.OfferedNames(list)
	if err != nil {
		return site.Record{}, record.Requirement{}, fmt.Errorf("the challenge for %s cannot be answered: %w; at a CA of draft -02 the solver needs AccountHashPrefix, Thumbprint and IssuerDomainNames", c.Identifier.Value, err)
	}
	uri := s.AccountURL
	if dialect == record.DialectHashed {
		uri, err = record.HashedAccountURI(s.AccountHashPrefix, c.Identifier.Value, s.Thumbprint, s.AccountURL)
	} else {
		err = record.ValidAccountURI(uri)
	}
	if err != nil {
		return site.Record{}, record.Requirement{}, fmt.Errorf("the solver's account cannot be named in a record for %s: %w", c.Identifier.Value, err)
	}
	name, err := record.ValidationName(c.Identifier.Value)
	if err != nil {
		return site.Record{}, record.Requirement{}, &site.UnsupportedNameError{Name: c.Identifier.Value, Err: err}
	}
	wildcard := s.Wildcard == nil || s.Wildcard(c.Identifier.Value)
	value := record.Value{IssuerDomainName: names[0], AccountURI: uri, Wildcard: wildcard}
	return site.Record{Name: name, Value: value.String()}, record.Requirement{
		IssuerDomainNames: names, Dialect: dialect, Wildcard: wildcard, AccountURI: s.AccountURL, AccountURL: s.AccountURL,
		Domain: record.Base(c.Identifier.Value), Thumbprint: s.Thumbprint, AccountHashPrefix: s.AccountHashPrefix,
	}, nil
}

// Interface guards
var (
	_ acmez.Solver = (*Solver)(nil)
	_ acmez.Waiter = (*Solver)(nil)
)
