package acmepersist

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/site"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

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
	publish := "publish " + w.Record.ZoneLine()
	switch {
	case w.Disputed != nil:
		return StatePartial, w.Disputed.Error()
	case w.Foreign != "":
		return StateWrong, (&site.ForeignAliasError{Name: w.Record.Name, Alias: w.Foreign, Wanted: w.Delegated, Why: w.Why}).Error()
	case state == StateWrong && at.Alias == "":
		return state, fmt.Sprintf("let the owner of the domain remove the TXT records at %s and set %s", w.Record.Name, w.Record.AliasLine())
	case state != StateMissing && state != StateWrong:
		return state, do
	case at.Alias == "" && at.State == StateGood:
		return state, "let the owner of the domain set " + w.Record.AliasLine()
	case at.Alias == "":
		return state, fmt.Sprintf("let the owner of the domain set %s and %s", w.Record.AliasLine(), publish)
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
