package command

import (
	"errors"
	"fmt"
	"slices"

	"github.com/dnspersist/caddy-dnspersist/dnspersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/operator"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// checkMade checks the flags by which records are made, and returns the name below which they are
// delegated; empty if they are not.
func (r *recordsRun) checkMade(names []string) (zone string, err error) {
	issuer, account := r.text("issuer"), r.text("account-url")
	var errs []error
	add := func(flag string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("--%s: %w", flag, err))
		}
	}
	if len(names) == 0 {
		errs = append(errs, errors.New("without a configuration the names have to be given"))
	}
	add("issuer", record.ValidIssuerDomainName(issuer))
	add("account-url", record.ValidAccountURI(account))
	if r.cmd.Flags().Changed("account-hash-prefix") {
		add("account-hash-prefix", record.ValidAccountHashPrefix(r.text("account-hash-prefix")))
	}
	if to := r.text("delegate-to"); to != "" {
		var err error
		zone, err = dnspersist.DelegationName(to)
		add("delegate-to", err)
	}
	return zone, errors.Join(errs...)
}

// madeSets makes records of nothing but what is on the command line.
func (r *recordsRun) madeSets(names []string) ([]operator.RecordSet, error) {
	zone, err := r.checkMade(names)
	if err != nil {
		return nil, err
	}
	policy := r.text("policy")
	groups := make(map[string][]string)
	for _, name := range names {
		if policy == acmepersist.PolicyExact && record.IsWildcard(name) {
			return nil, fmt.Errorf("--policy exact never writes policy=wildcard, which %s needs", name)
		}
		groups[record.Base(name)] = append(groups[record.Base(name)], name)
	}
	var all []acmepersist.Wanted
	for base, identifiers := range groups {
		slices.Sort(identifiers)
		wide := policy == acmepersist.PolicyWildcard || slices.ContainsFunc(identifiers, record.IsWildcard)
		w, err := r.made(base, identifiers, wide)
		if err != nil {
			return nil, err
		}
		if zone != "" {
			w.Target = (&acmepersist.Delegation{Zone: zone}).Target(base)
		}
		all = append(all, w)
	}
	return operator.Sets(all)
}

// made makes the record of the names that share one.
func (r *recordsRun) made(base string, identifiers []string, wide bool) (w acmepersist.Wanted, err error) {
	issuer, account := r.text("issuer"), r.text("account-url")
	w = acmepersist.Wanted{Identifiers: identifiers, Account: account, IssuerDomainName: issuer, Dialect: record.DialectAccountURL, AccountURI: account}
	if prefix := r.text("account-hash-prefix"); prefix != "" {
		w.Dialect = record.DialectHashed
		if w.AccountURI, err = record.HashedAccountURI(prefix, base, r.text("thumbprint"), account); err != nil {
			return w, fmt.Errorf("making the hashed account URI for %s: %w", base, err)
		}
	}
	w.Value = record.Value{IssuerDomainName: issuer, AccountURI: w.AccountURI, Wildcard: wide}.String()
	w.Name, err = record.ValidationName(base)
	return w, err
}
