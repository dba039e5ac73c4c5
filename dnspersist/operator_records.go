package dnspersist

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sort"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
)

// Records works out what has to stand at the validation names of the given names, or of all
// that are managed: one set for each, sorted, before any order. Accounts are checked at
// their CAs and none is registered. A value for each standby account of the same CA comes
// beside the bound one's. A CA of which nothing can be told is a PartialError beside the sets
// of the others.
func (o *Operator) Records(ctx context.Context, names []string, standby ...acmepersist.Account) ([]RecordSet, error) {
	groups, order, err := o.names(names)
	if err != nil {
		return nil, err
	}
	sets := make(map[string]*RecordSet)
	matched := 0
	var failed failures
	for _, iss := range order {
		var others []acmepersist.Account
		for _, a := range standby {
			if a.CA == iss.CA || a.CA == "" {
				others = append(others, a)
			}
		}
		matched += len(others)
		var wanted []acmepersist.Wanted
		active, err := o.acme(iss)
		if err == nil {
			wanted, err = active.Wanted(ctx, groups[iss], others...)
		}
		if failed.add(iss.CA, groups[iss], err); err != nil && len(standby) > 0 {
			return nil, err
		}
		for _, w := range wanted {
			if err := collect(sets, w); err != nil {
				return nil, err
			}
		}
	}
	if len(standby) > 0 && matched == 0 {
		return nil, fmt.Errorf("the standby account %s is one of the CA %s, which no issuer of these names uses", standby[0].URL, standby[0].CA)
	}
	all := make([]RecordSet, 0, len(sets))
	waiting := o.waiting()
	for _, set := range sets {
		set.Waiting = waiting[set.Name]
		all = append(all, *set)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Name < all[j].Name })
	return all, failed.end(ctx)
}

// MergeRecordSets joins sets of one name, which share a target, and sorts them.
func MergeRecordSets(all []RecordSet) []RecordSet {
	var merged []RecordSet
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
			alias = &RecordSet{Name: w.Name, Type: "CNAME", TTL: RecordTTL, Target: w.Target}
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
		set = &RecordSet{Name: place, Type: "TXT", TTL: RecordTTL}
		sets[place] = set
	}
	if set.Type != "TXT" {
		return fmt.Errorf("%s can be an alias (CNAME) or have a record, not both: one issuer of the configuration delegates it, another one does not", place)
	}
	set.share(w)
	return nil
}
