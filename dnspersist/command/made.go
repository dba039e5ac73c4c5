package command

import (
	"errors"
	"fmt"
	"slices"
	"sort"

	"github.com/dnspersist/caddy-dnspersist/dnspersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/operator"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// madeSets makes records of nothing but what is on the command line.
func (r *recordsRun) madeSets(names []string) ([]operator.RecordSet, error) {
	issuer, account := r.text("issuer"), r.text("account-url")
	prefix, thumb := r.text("account-hash-prefix"), r.text("thumbprint")
	var errs []error
	add := func(flag string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("--%s: %w", flag, err))
		}
	}
	if len(names) == 0 {
		errs = append(errs, errors.New("without a configuration the names have to be given"))
	}
	for _, flag := range []string{"config", "address", "standby"} {
		if r.text(flag) != "" {
			errs = append(errs, fmt.Errorf("--%s has no use with --account-url, which needs nothing else", flag))
		}
	}
	if issuer == "" || account == "" {
		errs = append(errs, errors.New("--account-url and --issuer are needed together: `account` shows the first, `probe` the second"))
	} else {
		add("issuer", record.ValidIssuerDomainName(issuer))
		add("account-url", record.ValidAccountURI(account))
	}
	switch {
	case (prefix == "") != (thumb == ""):
		errs = append(errs, errors.New("--account-hash-prefix and --thumbprint are needed together, for draft -02"))
	case prefix != "":
		add("account-hash-prefix", record.ValidAccountHashPrefix(prefix))
	}
	zone := ""
	if to := r.text("delegate-to"); to != "" {
		var err error
		zone, err = dnspersist.DelegationName(to)
		add("delegate-to", err)
	}
	policy := r.text("policy")
	if !slices.Contains([]string{acmepersist.PolicyAuto, acmepersist.PolicyExact, acmepersist.PolicyWildcard}, policy) {
		errs = append(errs, fmt.Errorf("--policy %s is unknown: use auto, exact or wildcard", policy))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	groups := make(map[string][]string)
	for _, name := range names {
		if policy == acmepersist.PolicyExact && record.IsWildcard(name) {
			return nil, fmt.Errorf("--policy exact never writes policy=wildcard, which %s needs", name)
		}
		groups[record.Base(name)] = append(groups[record.Base(name)], name)
	}
	sets := make([]operator.RecordSet, 0, len(groups))
	for base, identifiers := range groups {
		sort.Strings(identifiers)
		w := acmepersist.Wanted{Identifiers: identifiers, Account: account, IssuerDomainName: issuer, Dialect: record.DialectAccountURL, AccountURI: account}
		var err error
		if prefix != "" {
			w.Dialect = record.DialectHashed
			if w.AccountURI, err = record.HashedAccountURI(prefix, base, thumb, account); err != nil {
				return nil, fmt.Errorf("making the hashed account URI for %s: %w", base, err)
			}
		}
		if w.Name, err = record.ValidationName(base); err != nil {
			return nil, err
		}
		wide := policy == acmepersist.PolicyWildcard || slices.ContainsFunc(identifiers, record.IsWildcard)
		w.Value = record.Value{IssuerDomainName: issuer, AccountURI: w.AccountURI, Wildcard: wide}.String()
		place := w.Name
		if zone != "" {
			w.Target = (&acmepersist.Delegation{Zone: zone}).Target(base)
			sets = append(sets, operator.RecordSet{Name: w.Name, Type: "CNAME", TTL: operator.TTL, Target: w.Target, Wanted: []acmepersist.Wanted{w}})
			place = w.Target
		}
		sets = append(sets, operator.RecordSet{Name: place, Type: "TXT", TTL: operator.TTL, Wanted: []acmepersist.Wanted{w}})
	}
	sort.Slice(sets, func(i, j int) bool { return sets[i].Name < sets[j].Name })
	return sets, nil
}
