// Package operator answers what somebody who runs Caddy wants to know: which records a
// configuration needs, what DNS and the CAs make of them, which account they name. The admin
// endpoint and the commands have the same answers, for both have them from here.
//
// Handlers are what the admin endpoint mounts. Whatever changes an account or makes an order is a
// method of Operator and none of them, so it exists within the process of a command only.
package operator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/managed"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/parking"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// Issuer is an issuer of ours as a configuration has it.
type Issuer interface {
	// Directory is the directory URL of its CA.
	Directory() string
	// Identity is the same for issuers that do the same: policies often have equal ones.
	Identity() string
	// ACME is the issuer for a program that waits for the answer. It is an error if Caddy has not
	// taken the issuer into use.
	ACME() (*acmepersist.Issuer, error)
	// Refuses is why a name can never be validated; nil if it can.
	Refuses(name string) error
	// IsOnDemand reports whether visitors choose the names that it serves.
	IsOnDemand() bool
}

// Registry knows where the domains of a Caddy that runs are. It is the parking.Registry.
type Registry interface {
	Snapshot() []parking.Status
	Of(domain string) []parking.Status
	// Poke has DNS looked at again at once for those of the names that wait for a record, for all of
	// them if no name is given, and returns how many that are.
	Poke(names []string) int
}

// Operator answers for one configuration.
type Operator struct {
	// Plan is asked anew for each answer.
	Plan func() managed.Plan[Issuer]
	// Registry is nil where no Caddy runs, and Vitals too.
	Registry Registry
	Vitals   func(context.Context) Vitals
}

// ErrNotConfigured means that a configuration has no issuer of ours.
var ErrNotConfigured = errors.New("the configuration has no dns_persist issuer: add the directive dns_persist to a site, or cert_issuer dns_persist to the global options")

// group is an issuer with names that it is to work on.
type group struct {
	issuer Issuer
	names  []string
}

// groups are the given names, or all that are managed but those that can never be validated, which
// are no reason to fail for the others: at all CAs, or at the given one.
func (o *Operator) groups(ca string, given []string) ([]*group, error) {
	p := o.Plan()
	if ca != "" && !slices.Contains(o.CAs(), ca) {
		return nil, unknownCA(ca, o.CAs())
	}
	all := len(given) == 0
	if all {
		given = p.Names()
	}
	var groups []*group
	byIdentity := make(map[string]*group)
	add := func(iss Issuer, name string) {
		if ca != "" && iss.Directory() != ca {
			return
		}
		id := iss.Identity()
		g := byIdentity[id]
		if g == nil {
			g = &group{issuer: iss}
			byIdentity[id] = g
			groups = append(groups, g)
		}
		g.names = append(g.names, name)
	}
	var errs []error
	for _, name := range given {
		normal, err := record.Normalize(name)
		if err != nil {
			if !all {
				errs = append(errs, &acmepersist.UnsupportedNameError{Name: name, Err: err})
			}
			continue
		}
		issuers := p.Serving(normal)
		if len(issuers) == 0 {
			errs = append(errs, unknownName(p, normal, len(given) <= mostGuessed))
			continue
		}
		if !all && ca != "" && !isServed(p, ca, normal) {
			errs = append(errs, &UnknownNameError{Name: normal, CA: ca})
			continue
		}
		for _, iss := range issuers {
			if !all || iss.Refuses(normal) == nil {
				add(iss, normal)
			}
		}
	}
	if all {
		for _, s := range o.waitingBeside(given) {
			add(s.Owner.(Issuer), s.Domain)
		}
	}
	return groups, errors.Join(errs...)
}

// waiting lists the names that wait.
func (o *Operator) waiting() []parking.Status {
	if o.Registry == nil {
		return nil
	}
	return slices.DeleteFunc(o.Registry.Snapshot(), func(s parking.Status) bool { return s.Reason == "" || s.Phase == parking.PhaseServed })
}

// waitingBeside are the names beside the given ones that wait, and whose owners are each an Issuer: tenants
// on demand, and those of other apps.
func (o *Operator) waitingBeside(given []string) []parking.Status {
	known := make(map[string]bool, len(given))
	for _, n := range given {
		known[n] = true
	}
	return slices.DeleteFunc(o.waiting(), func(s parking.Status) bool {
		_, isOurs := s.Owner.(Issuer)
		return !isOurs || known[s.Domain]
	})
}

// Managed returns the names that the configuration manages with dns_persist, and those that a
// running Caddy waits for beside them, sorted.
func (o *Operator) Managed() []string {
	names := o.Plan().Names()
	for _, s := range o.waitingBeside(names) {
		names = append(names, s.Domain)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// ManagedAt returns those of the configuration that get certificates from a CA, by its directory
// URL.
func (o *Operator) ManagedAt(ca string) []string {
	p := o.Plan()
	return slices.DeleteFunc(p.Names(), func(name string) bool { return !isServed(p, ca, name) })
}

// Serves reports whether a policy with an issuer of ours for this CA serves the name.
func (o *Operator) Serves(ca, name string) bool { return isServed(o.Plan(), ca, name) }

func isServed(p managed.Plan[Issuer], ca, name string) bool {
	return slices.ContainsFunc(p.Serving(name), func(iss Issuer) bool { return iss.Directory() == ca })
}

// Unsupported returns for each managed name that can never be validated why it cannot.
func (o *Operator) Unsupported() []error {
	p := o.Plan()
	var all []error
	for _, name := range p.Names() {
		for _, iss := range p.Serving(name) {
			if err := iss.Refuses(name); err != nil {
				all = append(all, err)
				break
			}
		}
	}
	return all
}

// CAs returns the directory URLs, each once.
func (o *Operator) CAs() []string {
	var all []string
	for _, iss := range o.Plan().Issuers() {
		if ca := iss.Directory(); !slices.Contains(all, ca) {
			all = append(all, ca)
		}
	}
	return all
}

// issuers are those in use, one for each CA and configuration, of one CA only if ca is not empty.
func (o *Operator) issuers(ca string) ([]*acmepersist.Issuer, error) {
	var all []*acmepersist.Issuer
	seen := make(map[string]bool)
	for _, iss := range o.Plan().Issuers() {
		id := iss.Identity()
		if seen[id] || ca != "" && iss.Directory() != ca {
			continue
		}
		seen[id] = true
		if active, err := iss.ACME(); err == nil { // else nothing is issued with it
			all = append(all, active)
		}
	}
	switch {
	case len(all) > 0:
		return all, nil
	case ca != "":
		return nil, unknownCA(ca, o.CAs())
	}
	return nil, ErrNotConfigured
}

func unknownCA(ca string, known []string) error {
	err := fmt.Errorf("no dns_persist issuer of the configuration uses the CA %s, but %s", ca, strings.Join(known, ", "))
	return caddy.APIError{HTTPStatus: http.StatusNotFound, Err: err}
}

// accounts are the issuers in use, one for each account.
func (o *Operator) accounts(ca string) ([]*acmepersist.Issuer, error) {
	all, err := o.issuers(ca)
	return distinct(all, accountOf), err
}

// accountOf is the same for issuers that bind the same account.
func accountOf(iss *acmepersist.Issuer) string {
	return strings.Join([]string{iss.CA, iss.AccountKeyPEM, iss.AccountURL, StorageKey(iss.Storage)}, "\n")
}

// distinct are the first issuers of each key.
func distinct(all []*acmepersist.Issuer, key func(*acmepersist.Issuer) string) []*acmepersist.Issuer {
	var firsts []*acmepersist.Issuer
	seen := make(map[string]bool)
	for _, iss := range all {
		if k := key(iss); !seen[k] {
			seen[k] = true
			firsts = append(firsts, iss)
		}
	}
	return firsts
}

// One returns the issuer of the configuration for commands that change something: the only
// one, or that of the given CA.
func (o *Operator) One(ca string) (*acmepersist.Issuer, error) {
	all, err := o.accounts(ca)
	switch {
	case err != nil:
		return nil, err
	case len(all) == 1:
		return all[0], nil
	case len(o.CAs()) > 1 && ca == "":
		return nil, fmt.Errorf("the configuration uses several CAs, choose one with --ca: %s", strings.Join(o.CAs(), ", "))
	}
	return nil, fmt.Errorf("the configuration uses several accounts at %s (storage, account_key or account_url differ): use a configuration with one", all[0].CA)
}

// For returns the issuer that serves a name, the first of its policy, or of those for one CA.
func (o *Operator) For(ca, name string) (*acmepersist.Issuer, error) {
	groups, err := o.groups(ca, []string{name})
	if err != nil {
		return nil, err
	}
	return groups[0].issuer.ACME()
}

// Checks prepares the check of the given names, or of all that are managed, at all CAs or at one,
// sorted by validation name.
func (o *Operator) Checks(ctx context.Context, ca string, names []string) (all []*acmepersist.Check, unknown []Failure, err error) {
	groups, err := o.groups(ca, names)
	if err != nil {
		return nil, nil, err
	}
	var failed failures
	for _, g := range groups {
		var checks []*acmepersist.Check
		active, err := g.issuer.ACME()
		if err == nil {
			checks, err = active.Checks(ctx, g.names)
		}
		failed.add(g.issuer.Directory(), g.names, err)
		all = append(all, checks...)
	}
	slices.SortStableFunc(all, func(a, b *acmepersist.Check) int { return cmp.Compare(a.Name(), b.Name()) })
	unknown, err = failed.end(ctx)
	return all, unknown, err
}
