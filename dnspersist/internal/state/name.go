package state

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

	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

// Name is what is remembered of one validation name at one CA. These are facts: where the name is
// on its way to a certificate is worked out from them anew each time.
type Name struct {
	// Name is the validation name.
	Name string `json:"name"`
	// Identifiers are the names that certificates were wanted for.
	Identifiers []string `json:"identifiers,omitempty"`
	// Accepted are the values that were published when the CA last validated the name.
	Accepted []AcceptedValue `json:"accepted,omitempty"`
	// Refused are values that the CA may accept, but did not.
	Refused []RefusedValue `json:"refused,omitempty"`
	// Attempts are the times at which the CA was asked in vain, or asked without
	// our having seen the answer. They are written before the CA is asked.
	Attempts []time.Time `json:"attempts,omitempty"`
	// NotBefore is when a CA that has refused the published values may be asked again.
	NotBefore time.Time `json:"not_before,omitzero"`
	// Answer is what the CA has last refused the name with; nil once it has accepted it.
	Answer *Answer `json:"answer,omitempty"`
	// CAASince is since when CAA records seem to forbid the first certificate.
	CAASince time.Time `json:"caa_since,omitzero"`
	// LookedAt is when the published record was last looked at.
	LookedAt time.Time `json:"looked_at,omitzero"`
	// LookedStatus is what that one look found, so that it is not forgotten with the process.
	LookedStatus propagation.Status `json:"looked_status,omitempty"`
	// LookedSince is since when looks have found that.
	LookedSince time.Time `json:"looked_since,omitzero"`
	// ReportedAt is when it was last logged what a look has found.
	ReportedAt time.Time `json:"reported_at,omitzero"`
	// EndsAt is when the last of the published values ends that the CA may accept; zero if one never does.
	EndsAt time.Time `json:"ends_at,omitzero"`
	// ChangeAt is when the CA began to ask for other records, as far as the looks at this name know of it.
	ChangeAt time.Time `json:"change_at,omitzero"`
	// PartialSince is since when at least one server shows the record.
	PartialSince time.Time `json:"partial_since,omitzero"`
	// Target is what a CNAME at the name was last seen to lead to, of those that a
	// Delegation covers.
	Target string `json:"target,omitempty"`
}

// Answer is a CA's no.
type Answer struct {
	At time.Time `json:"at"`
	// Text is what it said, escaped and bounded.
	Text string `json:"text"`
}

// maxAnswer bounds the text of an Answer, in octets.
const maxAnswer = 512

// Answered notes the CA's no.
func (n *Name) Answered(no error, now time.Time) {
	n.Answer = &Answer{At: now.UTC(), Text: foreign.Cut(no.Error(), maxAnswer)}
}

// AcceptedValue is a value that was published when the CA validated the name.
type AcceptedValue struct {
	Value    string    `json:"value"`
	Account  string    `json:"account"`
	Wildcard bool      `json:"wildcard,omitempty"`
	At       time.Time `json:"at"`
}

// RefusedValue is a value that the CA has refused although it may accept such ones.
type RefusedValue struct {
	Value   string    `json:"value"`
	Account string    `json:"account"`
	At      time.Time `json:"at"`
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
	// refusedFor is how long a value that the CA may accept, but did not, is not tried again
	// by itself.
	refusedFor = 7 * 24 * time.Hour
	// afterSecond is the shortest wait after a second refusal of what DNS shows: the CA
	// sees something else, which does not pass in seconds.
	afterSecond = 15 * time.Minute
)

// Check reports what a file has to hold.
func (n *Name) Check() error {
	if n.Name == "" {
		return errors.New("name is missing")
	}
	return nil
}

// AddIdentifier notes that a certificate for the identifier was wanted, and reports whether that is new.
func (n *Name) AddIdentifier(identifier string) bool {
	if slices.Contains(n.Identifiers, identifier) {
		return false
	}
	n.Identifiers = append(n.Identifiers, identifier)
	sort.Strings(n.Identifiers)
	return true
}

// NextAttempt returns when the budget of failed validations allows the next one;
// a past time means now.
func (n *Name) NextAttempt() time.Time {
	if len(n.Attempts) < budgetBurst {
		return n.NotBefore
	}
	next := n.LastAttempt().Add(budgetInterval)
	if n.NotBefore.After(next) {
		return n.NotBefore
	}
	return next
}

// LastAttempt is when the CA was last asked in vain, zero if it never was.
func (n *Name) LastAttempt() time.Time {
	if len(n.Attempts) == 0 {
		return time.Time{}
	}
	return n.Attempts[len(n.Attempts)-1]
}

// CountAttempt notes an attempt. Those before it are forgotten together, when the last of them
// is long past: one by one, a CA that never accepts the name would be asked in bursts again.
func (n *Name) CountAttempt(now time.Time) {
	if last := n.LastAttempt(); !last.IsZero() && now.Sub(last) > 2*budgetInterval {
		n.Attempts = nil
	}
	n.Attempts = append(n.Attempts, now)
	n.Attempts = n.Attempts[max(0, len(n.Attempts)-attemptsKept):]
}

// spend takes the budget for used up, as the attempts of a lost file may have done. One may be made
// now: with those that may have been within the window it is as many as a CA allows, and
// the next one is budgetInterval later.
func (n *Name) spend(now time.Time) {
	for range budgetBurst {
		n.Attempts = append(n.Attempts, now.Add(-budgetInterval))
	}
}

// AskAgainAt is when a CA that disagrees with what DNS shows may be asked again: its resolvers keep what
// they have seen for as long as the zone says, up to a limit of their own.
func (n *Name) AskAgainAt(seen propagation.Report, limit time.Duration, now time.Time) time.Time {
	if limit == 0 {
		return time.Time{}
	}
	var ttl uint32
	for _, s := range seen.Servers {
		ttl = max(ttl, s.TTL, s.NegativeTTL)
	}
	wait := limit
	if ttl > 0 {
		wait = min(wait, time.Duration(ttl)*time.Second)
	}
	recent := 0
	for _, at := range n.Attempts {
		if now.Sub(at) < budgetWindow {
			recent++
		}
	}
	if recent >= 2 {
		wait = max(wait, afterSecond)
	}
	return now.Add(wait).UTC()
}

// HasAccepted reports whether one of the values was accepted by the CA last time for
// the same account and scope and has not been refused since. Such a value is
// presumed good: our evaluation may warn, not veto.
func (n *Name) HasAccepted(values []string, account string, wildcard bool) bool {
	return slices.ContainsFunc(n.Accepted, func(a AcceptedValue) bool {
		return a.Account == account && (a.Wildcard || !wildcard) && slices.Contains(values, a.Value)
	})
}

// HasRefused reports whether the CA has refused the value lately.
func (n *Name) HasRefused(value, account string) bool {
	return slices.ContainsFunc(n.Refused, func(r RefusedValue) bool {
		return r.Value == value && r.Account == account && walltime.Since(r.At) < refusedFor
	})
}

// Satisfies reports whether the CA is to be asked with these values: one is good, or may
// be and was not refused, or was accepted last time. The note is what is doubtful.
func (n *Name) Satisfies(values []string, want record.Requirement, account string) (ok bool, note string) {
	result := record.Evaluate(values, want, time.Now())
	if result.Good() {
		return true, ""
	}
	for _, v := range result.Verdicts {
		if v.Outlook == record.OutlookDepends && !n.HasRefused(v.Text, account) {
			return true, "presumed good until the CA refuses it: " + v.Reason()
		}
	}
	if n.HasAccepted(values, account, want.Wildcard) {
		return true, "accepted by the CA last time, although: " + result.Explain()
	}
	note = result.Explain()
	if result.Outlook() == record.OutlookDepends {
		note = "the CA has refused it: " + note
	}
	return false, note
}

// Accept notes which values the CA has accepted: the good ones, or where there was
// none those that it may accept.
func (n *Name) Accept(values []string, want record.Requirement, account string, now time.Time) {
	n.Attempts, n.Refused, n.Answer = nil, nil, nil
	n.PartialSince, n.NotBefore, n.CAASince = time.Time{}, time.Time{}, time.Time{}
	if len(values) == 0 {
		return // nobody has looked: what was accepted before is the best that is known
	}
	n.Accepted = nil
	result := record.Evaluate(values, want, now)
	for _, v := range result.Verdicts {
		if v.Outlook == result.Outlook() && v.Outlook != record.OutlookBad {
			n.Accepted = append(n.Accepted, AcceptedValue{Value: v.Text, Account: account, Wildcard: v.Value.Wildcard, At: now.UTC()})
		}
	}
}

// Refuse notes that the CA has refused the values with an error of the type problem: its answer beats our
// model. Those that it may accept are not tried again, if its error is what it would report of them;
// a good one may have met a DNS server that did not have it.
func (n *Name) Refuse(values []string, want record.Requirement, account, problem string, now time.Time) {
	n.Accepted = nil
	n.Refused = slices.DeleteFunc(n.Refused, func(r RefusedValue) bool { return now.Sub(r.At) >= refusedFor })
	result := record.Evaluate(values, want, now)
	if result.Good() || !slices.Contains(result.ErrorTypes(), problem) {
		return
	}
	for _, v := range result.Verdicts {
		if v.Outlook == record.OutlookDepends && !n.HasRefused(v.Text, account) {
			n.Refused = append(n.Refused, RefusedValue{Value: v.Text, Account: account, At: now.UTC()})
		}
	}
}

// nameLocks are the process's: a name and its wildcard share a file, and may have issuers of
// their own.
var nameLocks [256]sync.Mutex

// lockName locks the file of a name, and some others with it: thousands of names that start together
// must not wait for the storage one by one.
func lockName(key string) *sync.Mutex {
	h := fnv.New32a()
	_, _ = h.Write([]byte(key))
	mu := &nameLocks[h.Sum32()%uint32(len(nameLocks))]
	mu.Lock()
	return mu
}

func (s Store) nameKey(validationName string) string {
	return s.Key("names", Safe(validationName)+".json")
}

// Name returns what is remembered of a validation name.
func (s Store) Name(ctx context.Context, validationName string) (name Name, err error) {
	err = s.UpdateName(ctx, validationName, func(n *Name) bool { name = *n; return false })
	return name, err
}

// UpdateName loads what is remembered of a validation name, has change change it, and saves it if change
// returns true.
// Nothing is cached: other nodes of a cluster count their attempts in the same place.
func (s Store) UpdateName(ctx context.Context, validationName string, change func(*Name) bool) error {
	n := &Name{Name: validationName}
	key := s.nameKey(validationName)
	defer lockName(key).Unlock()
	_, lost, err := s.Recall(ctx, key, n)
	if err != nil {
		return err
	}
	now := walltime.Now()
	n.Repair(now)
	if lost {
		n.spend(now)
	}
	changed := change(n)
	if !changed && (!lost || !s.isLogged()) {
		return nil // a command that only looks leaves a damaged file to Caddy, which logs it
	}
	if err := s.Save(ctx, key, n); err != nil && changed {
		return err
	}
	return nil
}

// ValidationNames lists the validation names of which something is remembered.
func (s Store) ValidationNames(ctx context.Context) []string {
	keys, _ := s.List(ctx, "names")
	list := make([]string, 0, len(keys))
	for _, k := range keys {
		list = append(list, nameOf(k))
	}
	return list
}

func nameOf(key string) string { return strings.TrimSuffix(path.Base(key), ".json") }

// Names returns what is remembered of all names. One whose file cannot be read is not among
// them: it is learned anew when its certificate is obtained.
func (s Store) Names(ctx context.Context) ([]Name, error) {
	keys, err := s.List(ctx, "names")
	if err != nil {
		return nil, err
	}
	var all []Name
	for _, k := range keys {
		var n Name
		found, lost, err := s.Recall(ctx, k, &n)
		switch {
		case err != nil:
			return nil, err
		case found:
			n.Repair(walltime.Now())
			all = append(all, n)
		case lost:
			// written anew, for the next process would find it damaged again
			if err := s.UpdateName(ctx, nameOf(k), func(*Name) bool { return false }); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

const (
	// Skew is how far the clocks of a cluster's nodes may be apart.
	Skew = 10 * time.Minute
	// mostNotBefore is more than the caches of a CA's resolvers are waited for.
	mostNotBefore = time.Hour
	// mostCAA is how far ahead it is noted that CAA records were disregarded.
	mostCAA = 6 * time.Hour
)

// IsAhead reports whether t is later than it can be, when it may lie in the future by most.
func IsAhead(t, now time.Time, most time.Duration) bool { return t.After(now.Add(most + Skew)) }

// Repair forgets times that have not come yet: the clock was ahead when they were written, and
// the name would be held up until it is as late as it seemed to be.
func (n *Name) Repair(now time.Time) {
	n.Attempts = slices.DeleteFunc(n.Attempts, func(at time.Time) bool { return IsAhead(at, now, 0) })
	n.Refused = slices.DeleteFunc(n.Refused, func(r RefusedValue) bool { return IsAhead(r.At, now, 0) })
	for _, t := range []*time.Time{&n.PartialSince, &n.LookedAt, &n.ReportedAt, &n.ChangeAt} {
		if IsAhead(*t, now, 0) {
			*t = time.Time{}
		}
	}
	if n.Answer != nil && IsAhead(n.Answer.At, now, 0) {
		n.Answer.At = now
	}
	// these two are meant for the future
	if IsAhead(n.NotBefore, now, mostNotBefore) {
		n.NotBefore = time.Time{}
	}
	if IsAhead(n.CAASince, now, mostCAA) {
		n.CAASince = time.Time{}
	}
}

// repair takes what lies ahead for what has just been done: that a challenge was posted would count
// for as long as the clock was ahead, and the order be waited for. It reports whether it did.
func (o *Order) repair(now time.Time) (repaired bool) {
	for _, t := range []*time.Time{&o.PostedAt, &o.FinalizedAt} {
		if IsAhead(*t, now, 0) {
			*t, repaired = now, true
		}
	}
	return repaired
}

// Order is an order that is kept until it is final, so that neither a restart
// nor a wait for DNS costs another one.
type Order struct {
	// URL is empty while the order is being made.
	URL     string    `json:"url"`
	Account string    `json:"account"`
	Profile string    `json:"profile,omitempty"`
	At      time.Time `json:"at"`
	// Challenge is the challenge that the CA has been asked to validate, PostedAt when.
	Challenge string    `json:"challenge,omitempty"`
	PostedAt  time.Time `json:"posted_at,omitzero"`
	// Seen is what DNS showed when it was asked: its answer may come when nobody remembers.
	Seen *propagation.Report `json:"seen,omitempty"`
	// FinalizedFor is the public key for which the order was finalized, FinalizedAt when.
	FinalizedFor string    `json:"finalized_for,omitempty"`
	FinalizedAt  time.Time `json:"finalized_at,omitzero"`
}

// Check reports what a file has to hold.
func (o *Order) Check() error {
	if o.Account == "" {
		return errors.New("account is missing")
	}
	return nil
}

// OrderKey is the storage key of the order for a name.
func (s Store) OrderKey(name string) string { return s.Key("orders", Safe(name)+".json") }

// Order returns the order that is kept for a name.
func (s Store) Order(ctx context.Context, name string) (order Order, found bool, err error) {
	key := s.OrderKey(name)
	found, err = s.Load(ctx, key, &order)
	if err != nil {
		return order, false, err
	}
	if found && order.repair(walltime.Now().UTC()) {
		if err := s.Save(ctx, key, order); err != nil && s.Logger != nil {
			s.Logger.Warn("the times of a kept order lie ahead, and could not be corrected", zap.String("domain", name), zap.Error(err))
		}
	}
	return order, found && order.URL != "", nil
}
