package acmepersist

import (
	"context"
	"errors"
	"hash/fnv"
	"path"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

// nameState is what is remembered of one validation name at one CA.
type nameState struct {
	// Name is the validation name.
	Name string `json:"name"`
	// Identifiers are the names that certificates were wanted for.
	Identifiers []string `json:"identifiers,omitempty"`
	// Accepted are the values that stood when the CA last validated the name.
	Accepted []acceptedValue `json:"accepted,omitempty"`
	// Refused are values that the CA may accept, but did not.
	Refused []refusedValue `json:"refused,omitempty"`
	// Attempts are the times at which the CA was asked in vain, or asked without
	// our having seen the answer. They are written before the CA is asked.
	Attempts []time.Time `json:"attempts,omitempty"`
	// NotBefore is when a CA that has refused what stands may be asked again.
	NotBefore time.Time `json:"not_before,omitzero"`
	// CAASince is since when CAA records seem to forbid the first certificate.
	CAASince time.Time `json:"caa_since,omitzero"`
	// LookedAt is when the standing record was last looked at.
	LookedAt time.Time `json:"looked_at,omitzero"`
	// PartialSince is since when at least one server shows the record.
	PartialSince time.Time `json:"partial_since,omitzero"`
	// Target is what a CNAME at the name was last seen to lead to, of those that a
	// Delegation covers.
	Target string `json:"target,omitempty"`
}

type acceptedValue struct {
	Value    string    `json:"value"`
	Account  string    `json:"account"`
	Wildcard bool      `json:"wildcard,omitempty"`
	At       time.Time `json:"at"`
}

const (
	// budgetBurst failures are allowed one after another, after that one in budgetInterval
	// until the CA has accepted the name or half a day has gone by without any: a CA counts
	// them for each name, account and budgetWindow.
	budgetBurst    = 4
	budgetWindow   = time.Hour
	budgetInterval = 6 * time.Hour
	// attemptsKept bounds what is remembered of a CA that never accepts a name.
	attemptsKept = 20
)

// nextAttempt returns when the budget of failed validations allows the next one;
// a past time means now.
func (n *nameState) nextAttempt() time.Time {
	if len(n.Attempts) < budgetBurst {
		return n.NotBefore
	}
	return later(n.Attempts[len(n.Attempts)-1].Add(budgetInterval), n.NotBefore)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// attempted notes an attempt. Those before it are forgotten together, when the last of them
// is long past: one by one, a CA that never accepts the name would be asked in bursts again.
func (n *nameState) attempted(now time.Time) {
	if len(n.Attempts) > 0 && now.Sub(n.Attempts[len(n.Attempts)-1]) > 2*budgetInterval {
		n.Attempts = nil
	}
	n.Attempts = append(n.Attempts, now)
	n.Attempts = n.Attempts[max(0, len(n.Attempts)-attemptsKept):]
}

// accepts reports whether one of the values was accepted by the CA last time for
// the same account and scope and has not been refused since. Such a value is
// presumed good: our evaluation may warn, not veto.
func (n *nameState) accepts(values []string, account string, wildcard bool) bool {
	for _, a := range n.Accepted {
		if a.Account == account && (a.Wildcard || !wildcard) && slices.Contains(values, a.Value) {
			return true
		}
	}
	return false
}

// names changes the states of names, each by one job at a time. Nothing is cached: other
// nodes of a cluster count their attempts in the same place.
type names struct{}

// nameLocks are the process's: a name and its wildcard share a file, and may have issuers of
// their own.
var nameLocks [256]sync.Mutex

// lock locks a file, and some others with it: a start with thousands of names must not
// wait for the storage one by one.
func (names) lock(key string) *sync.Mutex {
	h := fnv.New32a()
	_, _ = h.Write([]byte(key))
	mu := &nameLocks[h.Sum32()%uint32(len(nameLocks))]
	mu.Lock()
	return mu
}

// update loads the state of a validation name, lets fn change it, and saves it if
// fn says so.
func (c names) update(ctx context.Context, st store, validationName string, fn func(*nameState) bool) error {
	state := &nameState{Name: validationName}
	key := st.Key("names", st.Safe(validationName)+".json")
	defer c.lock(key).Unlock()
	_, lost, err := st.Recall(ctx, key, state)
	if err != nil {
		return err
	}
	now := walltime.Now()
	state.heal(now)
	if lost {
		state.spend(now)
	}
	changed := fn(state)
	if !changed && (!lost || !st.Tells()) {
		return nil // a command that only looks leaves a damaged file to Caddy, which logs it
	}
	if err := st.Save(ctx, key, state); err != nil && changed {
		return err
	}
	return nil
}

// spend takes the budget for used up, as the attempts of a lost file may have done. One may be made
// now: with those that may have been within the window it is as many as a CA allows, and
// the next one is budgetInterval later.
func (n *nameState) spend(now time.Time) {
	for range budgetBurst {
		n.Attempts = append(n.Attempts, now.Add(-budgetInterval))
	}
}

// Check reports what a file has to hold.
func (n *nameState) Check() error {
	if n.Name == "" {
		return errors.New("name is missing")
	}
	return nil
}

// see notes that a certificate for the identifier was wanted.
func (c names) see(ctx context.Context, st store, identifier string) error {
	vname, err := record.ValidationName(identifier)
	if err != nil {
		return err
	}
	return c.update(ctx, st, vname, func(n *nameState) bool { return n.sees(identifier) })
}

// sees notes the identifier, and reports whether it is new.
func (n *nameState) sees(identifier string) bool {
	if slices.Contains(n.Identifiers, identifier) {
		return false
	}
	n.Identifiers = append(n.Identifiers, identifier)
	sort.Strings(n.Identifiers)
	return true
}

// recordNames lists the validation names whose records name the account, as far
// as storage knows.
func (s store) recordNames(ctx context.Context) []string {
	keys, _ := s.List(ctx, "names")
	list := make([]string, 0, len(keys))
	for _, k := range keys {
		list = append(list, strings.TrimSuffix(path.Base(k), ".json"))
	}
	return list
}

// SeenIdentifiers returns the names for which certificates were ever wanted from
// this CA, from storage.
func (iss *Issuer) SeenIdentifiers(ctx context.Context) ([]string, error) {
	states, err := iss.store().nameStates(ctx)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, n := range states {
		all = append(all, n.Identifiers...)
	}
	sort.Strings(all)
	return slices.Compact(all), nil
}

// nameStates returns what is remembered of all names. One whose file cannot be read is not among
// them: it is learned anew when its certificate is obtained.
func (s store) nameStates(ctx context.Context) ([]nameState, error) {
	keys, err := s.List(ctx, "names")
	if err != nil {
		return nil, err
	}
	var all []nameState
	for _, k := range keys {
		var n nameState
		found, lost, err := s.Recall(ctx, k, &n)
		switch {
		case err != nil:
			return nil, err
		case found:
			n.heal(walltime.Now())
			all = append(all, n)
		case lost:
			// written anew, for the next process would find it damaged again
			name := strings.TrimSuffix(path.Base(k), ".json")
			if err := (names{}).update(ctx, s, name, func(*nameState) bool { return false }); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

func sortedList(list []string) string {
	sort.Strings(list)
	return strings.Join(list, ", ")
}
