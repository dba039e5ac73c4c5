package operator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/managed"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/parking"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/site"
)

// TTL is what is proposed for records, in seconds.
const TTL = site.TTL

// RecordSet is what has to be published at one validation name.
type RecordSet struct {
	// Name is the validation name, without final dot.
	Name string `json:"name"`
	// Type is "TXT", or "CNAME" for a validation name that is to be delegated, TTL what is
	// proposed, in seconds.
	Type string `json:"type"`
	TTL  uint32 `json:"ttl"`
	// Target is what a CNAME is to lead to, without final dot. The record itself is a set of
	// its own.
	Target string `json:"target,omitempty"`
	// Wanted is a value for each CA and account. Each is enough for its own. Those of a
	// CNAME are published at its target.
	Wanted []acmepersist.Wanted `json:"wanted"`
	// Waiting is why a running Caddy has no certificate for it, and IsHeld is true if that is not for want
	// of the record.
	Waiting string `json:"waiting,omitempty"`
	IsHeld  bool   `json:"held,omitempty"`
	// DNS is what is published there, where that was read.
	DNS *Published `json:"dns,omitempty"`
}

// Published is what DNS shows at a validation name.
type Published struct {
	// Zone is the zone of the record.
	Zone string `json:"zone"`
	// Values are all that are published, whole and foreign ones too, TTL is theirs in seconds.
	Values []string `json:"values"`
	TTL    uint32   `json:"ttl,omitempty"`
	// Alias is the target of a CNAME at the name, where the record has to be published: all the rest
	// is of there. It is empty where it is not followed, see LeftOut.
	Alias string `json:"alias,omitempty"`
	// LeftOut is why no change of the name is to be given to a tool: its CNAME leads to a
	// name that its owner may not own, or its servers differ about it. The rest is empty
	// then.
	LeftOut string `json:"left_out,omitempty"`
	// Add are the values that are wanted and not published. Good are those for which one
	// that is as good is.
	Add  []string `json:"add"`
	Good []string `json:"stands,omitempty"`
	// Cached is true if this is the answer of a resolver, which may be of an hour ago: the
	// configuration has check recursive.
	Cached bool `json:"cached,omitempty"`
	// Error is why it is not known what is published.
	Error string `json:"error,omitempty"`
}

// HasGood reports whether a value as good as the wanted one is published.
func (s *Published) HasGood(value string) bool { return slices.Contains(s.Good, value) }

// Records works out the records of the given names, or of all that are managed, at all CAs or at
// one: one set for each validation name, sorted, before any order. Accounts are checked at their CAs
// and none is registered. A value for each standby account of the same CA comes beside the bound
// one's.
func (o *Operator) Records(ctx context.Context, ca string, names []string, standby ...acmepersist.Account) (reply RecordsReply, err error) {
	groups, err := o.groups(ca, names)
	if err != nil {
		return reply, err
	}
	var all []acmepersist.Wanted
	matched := 0
	var failed failures
	for _, g := range groups {
		at := g.issuer.Directory()
		others := slices.DeleteFunc(slices.Clone(standby), func(a acmepersist.Account) bool { return a.CA != at && a.CA != "" })
		matched += len(others)
		var wanted []acmepersist.Wanted
		active, err := g.issuer.ACME()
		if err == nil {
			wanted, err = active.Wanted(ctx, g.names, others...)
		}
		if failed.add(at, g.names, err); err != nil && len(standby) > 0 {
			return reply, err
		}
		all = append(all, wanted...)
	}
	if len(standby) > 0 && matched == 0 {
		return reply, fmt.Errorf("the standby account %s is one of the CA %s, which no issuer of these names uses", standby[0].URL, standby[0].CA)
	}
	if reply.Records, err = Sets(all); err != nil {
		return reply, err
	}
	waiting := make(map[string]parking.Status)
	for _, s := range o.waiting() {
		waiting[s.ValidationName()] = s
	}
	for i, set := range reply.Records {
		if s, ok := waiting[set.Name]; ok {
			reply.Records[i].Waiting, reply.Records[i].IsHeld = s.Explain().Text, !s.Reason.IsRecord()
		}
	}
	reply.Failed, err = failed.end(ctx)
	return reply, err
}

// Sets puts records into sets, sorted: one for each name at which there are some, and one for each
// CNAME that leads to them.
func Sets(all []acmepersist.Wanted) ([]RecordSet, error) {
	byName := make(map[string]*RecordSet)
	for _, w := range all {
		if err := collect(byName, w); err != nil {
			return nil, err
		}
	}
	sets := make([]RecordSet, 0, len(byName))
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		sets = append(sets, *byName[name])
	}
	return sets, nil
}

// MergeRecordSets joins sets of one name, which share a target, and sorts them.
func MergeRecordSets(all []RecordSet) []RecordSet {
	merged := []RecordSet{}
	at := make(map[string]int)
	for _, s := range all {
		i, ok := at[s.Name]
		if !ok {
			at[s.Name] = len(merged)
			merged = append(merged, s)
			continue
		}
		for _, w := range s.Wanted {
			merged[i].share(w)
		}
	}
	sort.SliceStable(merged, func(i, j int) bool { return merged[i].Name < merged[j].Name })
	return merged
}

// share adds a value that is wanted. Names that share a target share its values.
func (s *RecordSet) share(w acmepersist.Wanted) {
	i := slices.IndexFunc(s.Wanted, func(v acmepersist.Wanted) bool { return v.Value == w.Value })
	if i < 0 {
		s.Wanted = append(s.Wanted, w)
		return
	}
	if shared := &s.Wanted[i]; w.Target != "" {
		shared.Identifiers = append(slices.Clone(shared.Identifiers), w.Identifiers...)
		slices.Sort(shared.Identifiers)
		shared.Identifiers = slices.Compact(shared.Identifiers)
	}
}

// collect puts what is wanted into the sets: the record, and the CNAME that leads to it.
func collect(sets map[string]*RecordSet, w acmepersist.Wanted) error {
	place := w.Name
	if w.Target != "" {
		place = w.Target
		alias := sets[w.Name]
		if alias == nil {
			alias = &RecordSet{Name: w.Name, Type: "CNAME", TTL: TTL, Target: w.Target}
			sets[w.Name] = alias
		}
		if alias.Target != w.Target {
			return fmt.Errorf("%s can be an alias (CNAME) of one name, and the issuers of the configuration want it to lead to %s and to %s: give them the same delegate_to or dns_challenge_override_domain",
				w.Name, cmp.Or(alias.Target, "nothing"), w.Target)
		}
		alias.Wanted = append(alias.Wanted, w)
	}
	set := sets[place]
	if set == nil {
		set = &RecordSet{Name: place, Type: "TXT", TTL: TTL}
		sets[place] = set
	}
	if set.Type != "TXT" {
		return fmt.Errorf("%s can be an alias (CNAME) or have a record, not both: one issuer of the configuration delegates it, another one does not", place)
	}
	set.share(w)
	return nil
}

// Leftovers lists what was written at names for which nothing needs a record any more, for
// all CAs and accounts of the configuration or those of one CA. What fails for one of them is an
// error beside what the others have.
func (o *Operator) Leftovers(ctx context.Context, ca string) ([]*acmepersist.Leftover, error) {
	p := o.Plan()
	names := p.Names()
	issuers, err := o.issuers(ca)
	if err != nil {
		return nil, err
	}
	var all []*acmepersist.Leftover
	var failed []error
	for _, iss := range distinct(issuers, accountOf) { // others have the same inventory
		some, err := iss.Leftovers(ctx, names)
		if errors.Is(err, acmepersist.ErrNoAccount) {
			continue
		}
		if err != nil {
			failed = append(failed, err)
		}
		for _, l := range some {
			if by := o.providerOf(p, names, iss, l.Zone, issuers); by != nil {
				l.By(by)
			}
			all = append(all, l)
		}
	}
	return all, errors.Join(failed...)
}

// providerOf is the issuer with a provider, of those with one account, that serves other names
// of a zone; else the first with one, if there is any.
func (o *Operator) providerOf(p managed.Plan[Issuer], names []string, account *acmepersist.Issuer, zone string, issuers []*acmepersist.Issuer) *acmepersist.Issuer {
	can := func(iss *acmepersist.Issuer) bool {
		return iss.Publishing != nil && accountOf(iss) == accountOf(account)
	}
	for _, name := range names {
		within := strings.TrimPrefix(name, "*.")
		if within != zone && !strings.HasSuffix(within, "."+zone) {
			continue
		}
		for _, other := range p.Serving(name) {
			if active, err := other.ACME(); err == nil && can(active) {
				return active
			}
		}
	}
	if i := slices.IndexFunc(issuers, can); i >= 0 {
		return issuers[i]
	}
	return nil
}

// Failure is a CA of which nothing is known. What is returned beside it is of the others, and whole
// for them.
type Failure struct {
	// CA is the directory URL.
	CA string `json:"ca"`
	// Identifiers are the names that are left out for it, sorted.
	Identifiers []string `json:"identifiers,omitempty"`
	// Reason is why nothing is known.
	Reason string `json:"error"`

	err error
}

// mostLeftOut is how many names an error lists.
const mostLeftOut = 5

func (f Failure) Error() string {
	text := fmt.Sprintf("nothing is known of the CA %s: %s", f.CA, f.Reason)
	names, more := f.Identifiers, ""
	if len(names) > mostLeftOut {
		names, more = names[:mostLeftOut], fmt.Sprintf(" and %d more", len(names)-mostLeftOut)
	}
	if len(names) > 0 {
		text += "; left out: " + strings.Join(names, ", ") + more
	}
	return text
}

// failures collects what has failed, CA by CA.
type failures struct {
	failed []Failure
	done   int // CAs of which something is known
	// asked is the error for what was asked, whichever CA it is for.
	asked error
}

// add takes what came of one CA.
func (f *failures) add(ca string, identifiers []string, err error) {
	var unsupported *acmepersist.UnsupportedNameError
	switch {
	case err == nil:
		f.done++
		return
	case errors.As(err, &unsupported): // whoever gave the name has to know
		f.asked = errors.Join(f.asked, err)
		return
	}
	one := Failure{CA: ca, Identifiers: slices.Clone(identifiers), Reason: foreign.Line(err.Error()), err: err}
	at := slices.IndexFunc(f.failed, func(other Failure) bool { return other.CA == ca && other.Reason == one.Reason })
	if at < 0 {
		at, f.failed = len(f.failed), append(f.failed, one)
	} else { // another issuer of the same CA
		f.failed[at].Identifiers = append(f.failed[at].Identifiers, identifiers...)
	}
	slices.Sort(f.failed[at].Identifiers)
	f.failed[at].Identifiers = slices.Compact(f.failed[at].Identifiers)
}

// end returns of which CAs nothing is known. Where that is so of all it is their error.
func (f *failures) end(ctx context.Context) ([]Failure, error) {
	switch {
	case f.asked != nil:
		return nil, f.asked
	case len(f.failed) == 0:
		return nil, nil
	case ctx.Err() != nil:
		return nil, f.failed[0].err
	case f.done > 0:
		return f.failed, nil
	}
	var errs []error
	for _, one := range f.failed {
		errs = append(errs, one.err)
	}
	return nil, errors.Join(errs...)
}
