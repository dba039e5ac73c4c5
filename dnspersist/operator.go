package dnspersist

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"

	"github.com/caddyserver/certmagic"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/managed"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// Operator answers what somebody who runs Caddy wants to know of the records, for the admin
// API and for commands.
type Operator struct {
	plan func() managed.Plan[*Issuer]
	// settings are those of issuers that no server runs; nil where one does.
	settings map[*Issuer]settings
	made     map[*Issuer]*acmepersist.Issuer
	app      *App
}

// settings is what CertMagic's configuration would tell an issuer.
type settings struct {
	storage certmagic.Storage
	ratio   float64
}

// RecordSet is what has to stand at one validation name.
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
	// CNAME stand at its target.
	Wanted []acmepersist.Wanted `json:"wanted"`
	// Waiting is what a running Caddy sees of a record that it waits for.
	Waiting string `json:"waiting,omitempty"`
	// DNS is what stands there, where that was read.
	DNS *Standing `json:"dns,omitempty"`
}

// Standing is what DNS shows at a validation name.
type Standing struct {
	// Zone is the zone in which the record stands, or has to.
	Zone string `json:"zone"`
	// Values are all that stand, whole and foreign ones too, TTL is theirs in seconds.
	Values []string `json:"values"`
	TTL    uint32   `json:"ttl,omitempty"`
	// Alias is the target of a CNAME at the name, where the record has to stand: all that is
	// told is of there. It is empty where it is not followed, see LeftOut.
	Alias string `json:"alias,omitempty"`
	// LeftOut says why no change of the name is to be given to a tool: its CNAME leads to a
	// name that its owner may not own, or its servers differ about it. Nothing else is told
	// then.
	LeftOut string `json:"left_out,omitempty"`
	// Add are the values that are wanted and do not stand. Stands are those for which one
	// that is as good does.
	Add    []string `json:"add"`
	Stands []string `json:"stands,omitempty"`
	// Cached says that this is the word of a resolver, which may be of an hour ago: the
	// configuration has check recursive.
	Cached bool `json:"cached,omitempty"`
	// Error says why it is not known what stands.
	Error string `json:"error,omitempty"`
}

// Has reports whether a value as good as the wanted one stands.
func (s *Standing) Has(value string) bool { return slices.Contains(s.Stands, value) }

// UnknownNameError says that no dns_persist issuer serves a name.
type UnknownNameError struct {
	Name string
	// Near is a managed name that hardly differs; empty if there is none.
	Near string
}

func (e *UnknownNameError) Error() string {
	if e.Near != "" {
		return fmt.Sprintf("no dns_persist issuer of the configuration serves %s: did you mean %s?", e.Name, e.Near)
	}
	return fmt.Sprintf("no dns_persist issuer of the configuration serves %s: another issuer does, or none; add the name to a site with dns_persist, or make its record with --account-url and --issuer", e.Name)
}

// names returns the identifiers to work on by issuer, in their order: those given, or all
// that are managed but the hopeless ones, which are no reason to fail for the others.
func (o *Operator) names(given []string) (map[*Issuer][]string, []*Issuer, error) {
	p := o.plan()
	all := len(given) == 0
	if all {
		given = p.Names()
	}
	first := make(map[string]*Issuer)
	groups := make(map[*Issuer][]string)
	var order []*Issuer
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
			unknown := &UnknownNameError{Name: normal}
			if len(given) <= mostGuessed {
				unknown.Near = nearName(normal, p.Names())
			}
			errs = append(errs, unknown)
			continue
		}
		for _, iss := range issuers {
			if all && iss.refuses(normal) != nil {
				continue
			}
			key := o.identity(iss)
			if first[key] == nil {
				first[key] = iss
				order = append(order, iss)
			}
			groups[first[key]] = append(groups[first[key]], normal)
		}
	}
	if all {
		for name, iss := range o.waitingFor(given) {
			key := o.identity(iss)
			if first[key] == nil {
				first[key] = iss
				order = append(order, iss)
			}
			groups[first[key]] = append(groups[first[key]], name)
		}
	}
	return groups, order, errors.Join(errs...)
}

// mostGuessed is for how many names it is guessed what was meant.
const mostGuessed = 10

// nearName is the name of several that takes the fewest changes to become the given one, two at
// most; empty if there is none.
func nearName(name string, names []string) string {
	best, near := 3, ""
	for _, n := range names {
		if d := distance(name, n, best); d < best {
			best, near = d, n
		}
	}
	return near
}

// distance is how many letters have to be added, taken out or exchanged, neighbours also with
// each other, to make b of a; most if it is not less.
func distance(a, b string, most int) int {
	if len(a)-len(b) >= most || len(b)-len(a) >= most {
		return most
	}
	before, last, next := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		next[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next[j+1] = min(last[j]+cost, last[j+1]+1, next[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, last, next = last, next, before
	}
	return min(last[len(b)], most)
}

// waitingFor are the names beside the given ones that a running Caddy waits for, whoever asked
// for them: tenants on demand, and other apps. It returns the issuer of each.
func (o *Operator) waitingFor(given []string) map[string]*Issuer {
	if o.app == nil {
		return nil
	}
	known := make(map[string]bool, len(given))
	for _, n := range given {
		known[n] = true
	}
	s := o.app.shared
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string]*Issuer)
	for _, p := range s.parked {
		if by, ok := p.newest(); ok && by.iss.rt.app == o.app && !known[p.identifier] {
			all[p.identifier] = by.iss
		}
	}
	return all
}

// identity is the same for issuers that do the same: policies often have equal ones.
func (o *Operator) identity(iss *Issuer) string {
	var storage certmagic.Storage
	if o.settings != nil {
		storage = o.settings[iss].storage
	} else if iss.rt.ready() {
		_, cfg := iss.active()
		storage = cfg.Storage
	}
	return iss.CA + "|" + iss.rt.fingerprint + "|" + storageKey(storage)
}

// storageKey tells storages apart, whatever their type.
func storageKey(storage certmagic.Storage) string {
	if s, ok := storage.(fmt.Stringer); ok {
		return fmt.Sprintf("%T %s", storage, s)
	}
	return fmt.Sprintf("%T %p", storage, storage)
}

// Serves reports whether a policy with an issuer of ours for this CA serves the name.
func (o *Operator) Serves(ca, name string) bool {
	return slices.ContainsFunc(o.plan().Serving(name), func(iss *Issuer) bool { return iss.CA == ca })
}

// Hopeless says of the managed names that can never be validated why they cannot.
func (o *Operator) Hopeless() []error {
	p := o.plan()
	var all []error
	for _, name := range p.Names() {
		for _, iss := range p.Serving(name) {
			if err := iss.refuses(name); err != nil {
				all = append(all, err)
				break
			}
		}
	}
	return all
}

// Managed returns the names that the configuration manages with dns_persist, and those that a
// running Caddy waits for beside them, sorted.
func (o *Operator) Managed() []string {
	names := o.plan().Names()
	names = slices.AppendSeq(names, maps.Keys(o.waitingFor(names)))
	slices.Sort(names)
	return names
}

// ManagedAt returns those of Managed that get certificates from a CA, by its directory URL.
func (o *Operator) ManagedAt(ca string) []string {
	p := o.plan()
	return slices.DeleteFunc(p.Names(), func(name string) bool {
		return !slices.ContainsFunc(p.Serving(name), func(iss *Issuer) bool { return iss.CA == ca })
	})
}

// CAs returns the directory URLs, each once.
func (o *Operator) CAs() []string {
	var all []string
	for _, iss := range o.plan().Issuers() {
		if !slices.Contains(all, iss.CA) {
			all = append(all, iss.CA)
		}
	}
	return all
}

// acme returns the issuer for a program that waits for the answer: nothing is parked.
func (o *Operator) acme(iss *Issuer) (*acmepersist.Issuer, error) {
	if o.settings == nil {
		if iss.rt.ready() {
			active, _ := iss.active()
			return active, nil
		}
		return nil, fmt.Errorf("the issuer for %s is not in use", iss.CA)
	}
	if made := o.made[iss]; made != nil {
		return made, nil
	}
	core := iss.rt.core
	core.Storage, core.RenewalWindowRatio = o.settings[iss].storage, o.settings[iss].ratio
	bases := o.plan().Wildcards(func(other *Issuer) bool { return other.CA == iss.CA })
	core.Wildcard = func(validationName string) bool { return bases[strings.TrimPrefix(validationName, record.Label+".")] }
	if o.made == nil {
		o.made = make(map[*Issuer]*acmepersist.Issuer)
	}
	made := acmepersist.New(core)
	o.made[iss] = made
	return made, nil
}

// waiting is what a running Caddy sees of the records that it waits for.
func (o *Operator) waiting() map[string]string {
	if o.app == nil {
		return nil
	}
	s := o.app.shared
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string]string)
	for _, p := range s.parked {
		if p.parking.Checker != nil {
			all[p.parking.Record.Name] = p.report.Summary()
		} else if p.parking.Err != nil {
			all[record.Label+"."+record.Base(p.identifier)] = p.parking.Err.Error()
		}
	}
	return all
}

// Checks prepares the check of the given names, or of all that are managed, sorted by
// validation name. A CA of which nothing can be told is a PartialError beside the checks of
// the others.
func (o *Operator) Checks(ctx context.Context, names []string) ([]*acmepersist.Check, error) {
	groups, order, err := o.names(names)
	if err != nil {
		return nil, err
	}
	var all []*acmepersist.Check
	var failed failures
	for _, iss := range order {
		var checks []*acmepersist.Check
		active, err := o.acme(iss)
		if err == nil {
			checks, err = active.Checks(ctx, groups[iss])
		}
		failed.add(iss.CA, groups[iss], err)
		all = append(all, checks...)
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].Name() < all[j].Name() })
	return all, failed.end(ctx)
}

// poke has the waiting ones of the names, or all, looked at again at once.
func (o *Operator) poke(names []string) int {
	if o.app == nil {
		return 0
	}
	wanted := make(map[string]bool)
	for _, n := range names {
		if normal, err := record.Normalize(n); err == nil {
			wanted[normal] = true
		}
	}
	s := o.app.shared
	var keys []string
	s.mu.Lock()
	for key, p := range s.parked {
		if p.stopWatch != nil && (len(names) == 0 || wanted[p.identifier]) {
			keys = append(keys, key)
		}
	}
	s.mu.Unlock()
	for _, key := range keys {
		s.scheduler.Poke(key)
	}
	return len(keys)
}
