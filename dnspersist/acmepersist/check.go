package acmepersist

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
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
	s, o, t, err := openToTell(ctx, iss)
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

// Domains are the names that the record is for.
func (c *Check) Domains() []string { return c.identifiers }

// CA is the directory URL of the CA that the check is for.
func (c *Check) CA() string { return c.session.iss.CA }

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
		verdict, at := w.evaluateCAA(ctx, now)
		if done.judgeCAA(verdict, at); verdict.Outlook == record.OutlookBad {
			done.Do = w.newCAAError(verdict, at).Do()
		}
	}
	return done
}

// judgeCAA adds what the CA makes of the CAA records at a name.
func (done *Checked) judgeCAA(verdict record.CAAVerdict, at string) {
	switch verdict.Outlook {
	case record.OutlookBad:
		done.CAA = verdict.Reason
		done.State = StateForbidden
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
	note := ""
	if elsewhere {
		note = fmt.Sprintf("the CNAME at %s leads to %s: if that name is not yours too, remove the CNAME; ", w.Record.Name, at.Place())
	}
	switch {
	case r.Status == propagation.StatusBlocked:
		return StateBlocked, r.Reason
	case r.Status == propagation.StatusPartial:
		return StatePartial, r.Reason
	case r.Status == propagation.StatusAbsent && (len(r.Values) == 0 || hasNothing(r)):
		return StateMissing, note + toPublish(at)
	case r.Status == propagation.StatusAbsent:
		return StateWrong, note + site.Mend(at, result)
	case result.Good():
		return StateGood, ""
	}
	_, note = c.site.Known.Satisfies(r.Values, w.Want, c.session.account.URL)
	return StateDepends, "nothing, unless the CA refuses it: " + strings.TrimPrefix(note, "presumed good until the CA refuses it: ")
}

// toPublish says that a record is to be published.
func toPublish(r site.Record) string {
	return fmt.Sprintf("publish a TXT record at %s with this value: %s", r.Place(), r.Value)
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

// CodeWildcardTarget says that a wildcard record answers for every label of the zone to which
// validation names are delegated.
const CodeWildcardTarget propagation.Code = "wildcard_target"

// AtTarget is what is published where a validation name is delegated to.
type AtTarget struct {
	// Name is the target, without final dot.
	Name string `json:"name"`
	// Alias is what the CNAME at the validation name leads to; empty if there is none.
	Alias string `json:"alias,omitempty"`
	// State is StateGood if the record is published there, StateMissing, StateWrong or
	// StateBlocked.
	State State `json:"state"`
	// Zone is the zone of the target, Values what is published there, TTL theirs in seconds.
	Zone   string   `json:"zone,omitempty"`
	Values []string `json:"values"`
	TTL    uint32   `json:"ttl,omitempty"`
	// Reason says why that is not known.
	Reason string `json:"reason,omitempty"`
}

// atTarget is what is published at the target: by the report where its CNAME has led there, else
// by a look of its own, for the owner may set the CNAME later.
func (c *Check) atTarget(ctx context.Context, w *siteSession, r propagation.Report) *AtTarget {
	d, alias := c.session.iss.Delegation, r.Alias()
	at := &AtTarget{Name: w.Delegated, Alias: d.LeadsTo(alias, w.Identifier), State: StateBlocked, Values: []string{}}
	if at.Alias == "" && alias.Kind == propagation.AliasSet {
		at.Alias = alias.Targets[0]
	}
	if at.Alias != w.Delegated {
		r = c.Checker.Check(ctx, propagation.Target{Name: w.Delegated, Host: site.PlaceHost(w.Delegated), Accept: c.Target.Accept, Weigh: c.Target.Weigh}, c.Checker.NewGate())
		at.Zone = r.Zone
	}
	shown, onward := r.At(w.Delegated), r.AliasOf(w.Delegated)
	at.Zone = cmp.Or(shown.Zone, at.Zone)
	switch {
	case len(shown.Servers) == 0:
		at.Reason = r.Reason
		return at
	case onward.Kind == propagation.AliasNotAgreed:
		at.Reason = (&propagation.AliasError{Alias: onward}).Error()
		return at
	case onward.Kind == propagation.AliasSet:
		at.Reason = fmt.Sprintf("%s is an alias (CNAME) of %s itself, beside which no record can be: remove that CNAME", w.Delegated, onward.Targets[0])
		return at
	}
	if err := r.Whole(); err != nil {
		at.Reason = err.Error()
		return at
	}
	at.State, at.TTL = StateMissing, shown.TTL
	at.Values = append(at.Values, shown.Values...)
	switch {
	case w.serves(at.Values):
		at.State = StateGood
	case len(at.Values) > 0:
		at.State = StateWrong
	}
	return at
}

// judgeTarget returns the state of a delegated name that is not ok, and what to do.
func judgeTarget(w *siteSession, at *AtTarget, state State, do string) (State, string) {
	publish, alias := toPublish(w.Record), fmt.Sprintf("set a CNAME record at %s that leads to %s", w.Record.Name, w.Record.Target)
	switch {
	case w.Disputed != nil:
		return StatePartial, w.Disputed.Error()
	case w.Foreign != "":
		return StateWrong, (&site.ForeignAliasError{Name: w.Record.Name, Alias: w.Foreign, Wanted: w.Delegated, Why: w.Why}).Error()
	case state == StateWrong && at.Alias == "":
		return state, fmt.Sprintf("let the owner of the domain remove the TXT records at %s and %s", w.Record.Name, alias)
	case state != StateMissing && state != StateWrong:
		return state, do
	case at.Alias == "" && at.State == StateGood:
		return state, "let the owner of the domain " + alias
	case at.Alias == "":
		return state, fmt.Sprintf("let the owner of the domain %s, and %s", alias, publish)
	}
	return state, publish
}

// wildcardTarget finds out whether every label of the zone that names are delegated to is
// answered: then a mistyped one looks as good as the right one.
func (c *Check) wildcardTarget(ctx context.Context) []propagation.Diagnostic {
	zone := c.session.iss.Delegation.Zone
	if zone == "" {
		return nil
	}
	name := strings.ToLower(rand.Text()) + "." + zone
	r := c.Checker.Check(ctx, propagation.Target{Name: name, Host: site.PlaceHost(name)}, c.Checker.NewGate())
	if len(r.Values) == 0 && !slices.ContainsFunc(r.Servers, func(s propagation.ServerReport) bool { return s.Alias != "" }) {
		return nil
	}
	return []propagation.Diagnostic{{Code: CodeWildcardTarget, Text: fmt.Sprintf(
		"a wildcard record answers for every label of %s: a mistyped CNAME looks as if it led to a record; remove *.%s", zone, zone)}}
}

// Shares lists other domains whose record is published at the place of this one; more is true if
// they are too many to be listed.
func (c *Check) Shares(ctx context.Context) (others []string, more bool, err error) {
	if c.site.Delegated == "" {
		return nil, false, nil
	}
	shared, err := c.session.store.Target(ctx, c.site.Delegated)
	mine := record.Base(c.site.Identifier)
	return slices.DeleteFunc(shared.Domains, func(d string) bool { return d == mine }), shared.More || shared.Incomplete, err
}

// Twin is the name that has one record with the identifiers of the check, a name with its
// wildcard, if it is none of them and none of the given checks', and needs the record: it is
// among what is managed at the CA, or is served and has a certificate that is still valid. Else
// it is empty.
func (c *Check) Twin(ctx context.Context, given []*Check, managedAt func(ca string) []string, serves func(ca, name string) bool) string {
	base, ca := record.Base(c.site.Identifier), c.session.iss.CA
	managed := managedAt(ca)
	for _, name := range []string{base, "*." + base} {
		if slices.ContainsFunc(given, func(o *Check) bool { return o.session.iss.CA == ca && slices.Contains(o.identifiers, name) }) {
			continue
		}
		if slices.Contains(managed, name) {
			return name
		}
		// one that nothing serves any more will not be renewed
		if _, due := c.session.iss.certificateOf(ctx, []string{name}); !due.IsZero() && serves(ca, name) {
			return name
		}
	}
	return ""
}
