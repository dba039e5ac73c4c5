package acmepersist

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/site"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// State is what a check says of a name.
type State string

// States of a Checked.
const (
	// StateGood: the CA will accept the published values.
	StateGood State = "good"
	// StateDepends: CAs differ about the published values, or this one may accept more than it has to.
	StateDepends State = "depends"
	// StatePartial: not all servers that count show the record.
	StatePartial State = "partial"
	// StateMissing: there is no TXT record.
	StateMissing State = "missing"
	// StateWrong: the CA will not accept the published values.
	StateWrong State = "wrong"
	// StateBlocked: DNS does not answer.
	StateBlocked State = "blocked"
	// StateForbidden: the record is good, and CAA records forbid the CA to issue.
	StateForbidden State = "forbidden"
)

// IsOK reports whether the CA can be expected to accept the name.
func (s State) IsOK() bool { return s == StateGood || s == StateDepends }

// Check is the check of one validation name, for one CA and account.
type Check struct {
	// Target, Gate and Checker go to a propagation.Scheduler to watch the name.
	Target  propagation.Target
	Gate    *propagation.Gate
	Checker *propagation.Checker

	session     *session
	offer       ca.Offer
	site        *siteSession
	identifiers []string
}

// Checked is the outcome of a Check.
type Checked struct {
	Wanted
	State State `json:"state"`
	// Verdicts say for each identifier what the CA makes of the published values.
	Verdicts []IdentifierVerdict `json:"verdicts"`
	// Published are the published values, with the verdict of each for the strictest identifier.
	Published []site.ValueVerdict `json:"standing"`
	// Report holds the lines for each server.
	Report      propagation.Report       `json:"report"`
	Diagnostics []propagation.Diagnostic `json:"diagnostics,omitempty"`
	// CAA says why CAA records forbid the certificate.
	CAA string `json:"caa,omitempty"`
	// AtTarget is what is published where the name is delegated to; nil without a Delegation.
	AtTarget *AtTarget `json:"at_target,omitempty"`
	// NeededBy is when the next renewal needs the record; zero without a certificate.
	NeededBy time.Time `json:"needed_by,omitzero"`
	// EndsAt is when the last of the good values ends; zero if one has no end.
	EndsAt time.Time `json:"ends_at,omitzero"`
	// Do says what to do; empty if nothing is.
	Do string `json:"do,omitempty"`
}

// IdentifierVerdict is what the CA makes of the published values, for one identifier.
type IdentifierVerdict struct {
	Identifier string         `json:"identifier"`
	Outlook    record.Outlook `json:"outlook"`
	// ErrorTypes are those of which the CA reports one if it refuses.
	ErrorTypes []string `json:"error_types,omitempty"`
}

// Checks prepares the check of identifiers, one for each validation name. Like Wanted it
// needs a bound account that the CA confirms.
func (iss *Issuer) Checks(ctx context.Context, identifiers []string) ([]*Check, error) {
	s, o, t, err := iss.openToTell(ctx)
	if err != nil {
		return nil, err
	}
	groups, names, err := byValidationName(identifiers)
	if err != nil {
		return nil, err
	}
	checker := iss.Checker
	if checker == nil {
		checker = propagation.NewChecker(propagation.Config{Grace: iss.Grace, Settle: iss.Settle, Logger: iss.Logger})
	}
	all := make([]*Check, len(names))
	err = inParallel(ctx, len(names), func(i int) (err error) {
		name := names[i]
		c := &Check{session: s, offer: o, identifiers: groups[name], Checker: checker, Gate: propagation.NewGate(iss.Grace, iss.Settle)}
		if c.site, err = s.site(ctx, strictest(groups[name]), t); err != nil {
			return err
		}
		c.Target = c.site.Target()
		all[i] = c
		return nil
	})
	return all, err
}

// Name returns the validation name.
func (c *Check) Name() string { return c.site.Record.Name }

// Look looks at DNS now. A thorough look asks some twenty questions more, to tell a person
// what is wrong.
func (c *Check) Look(ctx context.Context, thorough bool) Checked {
	var found []propagation.Diagnostic
	report := c.Checker.Check(ctx, c.Target, c.Gate)
	if report.Whole() != nil {
		report = report.Shortened(c.Target.Weigh) // and says so: nobody may write what is left
	}
	if thorough {
		_, found = c.Checker.Diagnose(ctx, c.Target)
		if c.session.iss.Delegation != nil {
			found = append(found, c.wildcardTarget(ctx)...)
		}
	}
	return c.Tell(ctx, report, found)
}

// Tell explains a report. found is what Checker.Diagnose has said, nil if it was not asked.
func (c *Check) Tell(ctx context.Context, r propagation.Report, found []propagation.Diagnostic) Checked {
	s, w := c.session, c.site.clone()
	done := Checked{Report: r, Diagnostics: found, Published: []site.ValueVerdict{}}
	if found == nil {
		done.Diagnostics = r.Diagnostics()
	}
	if err := w.ApplyAlias(ctx, r); err != nil {
		s.logger.Warn("where the record is delegated to is not known", zap.String("name", w.Record.Name), zap.Error(err))
	}
	if r.Status != propagation.StatusReady && w.Foreign == "" {
		if why, err := w.Taken(ctx, c.Checker); err == nil && why != "" {
			if err := w.Yield(why); err != nil {
				s.logger.Debug("the record at the name's own label is not known", zap.Error(err))
			}
		}
	}
	if err := w.Refine(r.Values, c.offer); err != nil {
		s.logger.Debug("the record that is shown takes no account of the published values", zap.Error(err))
	}
	done.Wanted = w.wanted(c.identifiers)
	if done.Note != "" {
		done.Diagnostics = append(done.Diagnostics, propagation.Diagnostic{Code: ca.CodeIssuerNotListed, Text: done.Note})
	}
	now := time.Now()
	result := record.Evaluate(r.Values, w.Want, now)
	for _, v := range result.Verdicts {
		done.Published = append(done.Published, site.ValueVerdict{Value: v.Text, Code: v.Code, Outlook: v.Outlook, Reason: v.Reason()})
	}
	for _, id := range c.identifiers {
		each := record.Evaluate(r.Values, w.Terms.Requirement(id, s.account.Identity), now)
		done.Verdicts = append(done.Verdicts, IdentifierVerdict{id, each.Outlook(), each.ErrorTypes()})
	}
	done.EndsAt = endOf(result)
	_, done.NeededBy = s.iss.certificateOf(ctx, c.identifiers)
	done.State, done.Do = c.judge(w, r, result)
	at, _ := w.Record.AtEnd(r)
	if move := site.Moved(at, done.Diagnostics); move != "" && (done.State == StateMissing || done.State == StateWrong) {
		done.Do = move
	}
	if w.Delegated != "" {
		done.AtTarget = c.atTarget(ctx, w, r)
		if !done.State.IsOK() {
			done.State, done.Do = judgeTarget(w, done.AtTarget, done.State, done.Do)
		}
	}
	if r.Shadows != "" && done.State == StateMissing {
		done.Do = r.Shadows + "; then " + done.Do
	}
	if done.State.IsOK() && s.iss.CAAChecker != nil {
		done.judgeCAA(w.evaluateCAA(ctx))
	}
	return done
}

// judgeCAA adds what the CA makes of the CAA records at a name.
func (done *Checked) judgeCAA(verdict record.CAAVerdict, at string) {
	switch verdict.Outlook {
	case record.OutlookBad:
		done.CAA = verdict.Reason
		done.State, done.Do = StateForbidden, fmt.Sprintf("add a CAA record at %s that allows the CA: %s", at, verdict.Reason)
	case record.OutlookDepends:
		done.Diagnostics = append(done.Diagnostics, propagation.Diagnostic{Code: CodeCAADepends, Text: fmt.Sprintf(
			"the CAA records at %s allow the CA to issue only as some CAs read them: %s", at, verdict.Reason)})
		if done.State == StateGood {
			done.State, done.Do = StateDepends, fmt.Sprintf("nothing, unless the CA refuses it: the CAA records at %s: %s", at, verdict.Reason)
		}
	}
}

// judge returns the state of the name, and what to do.
func (c *Check) judge(w *siteSession, r propagation.Report, result record.Result) (State, string) {
	at, elsewhere := w.Record.AtEnd(r)
	line := at.ZoneLine()
	if elsewhere {
		line += fmt.Sprintf(", where the CNAME at %s leads to, if that name is yours too, else remove the CNAME", w.Record.Name)
	}
	switch {
	case r.Status == propagation.StatusBlocked:
		return StateBlocked, r.Reason
	case r.Status == propagation.StatusPartial:
		return StatePartial, r.Reason
	case r.Status == propagation.StatusAbsent && (len(r.Values) == 0 || hasNothing(r)):
		return StateMissing, "publish " + line
	case r.Status == propagation.StatusAbsent:
		return StateWrong, site.Mend(line, result)
	case result.Good():
		return StateGood, ""
	}
	_, note := c.site.Known.Satisfies(r.Values, w.Want, c.session.account.URL)
	return StateDepends, "nothing, unless the CA refuses it: " + note
}

// hasNothing reports whether nothing is published at the place of the record, whatever a wildcard
// answers there.
func hasNothing(r propagation.Report) bool {
	shown, err := r.Published()
	return err == nil && len(shown.Values) == 0
}

// endOf is when the last good value ends; zero if one of them never does.
func endOf(result record.Result) time.Time {
	var end time.Time
	for _, v := range result.Verdicts {
		if v.Outlook == record.OutlookBad {
			continue
		}
		if v.Value.PersistUntil.IsZero() {
			return time.Time{}
		}
		end = later(end, v.Value.PersistUntil)
	}
	return end
}

// storageReaders is how many names are read from storage at once, which may be far away.
const storageReaders = 16

// inParallel calls fn for each number below n, some at once, and returns the error of the
// lowest number that has one. After an error no others are begun.
func inParallel(ctx context.Context, n int, fn func(i int) error) error {
	var (
		next, failed atomic.Int64
		wg           sync.WaitGroup
	)
	errs := make([]error, n)
	for range min(storageReaders, n) {
		wg.Go(func() {
			for failed.Load() == 0 && ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if errs[i] = fn(i); errs[i] != nil {
					failed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}
