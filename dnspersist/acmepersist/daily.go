package acmepersist

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/site"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

const (
	// lookPause is the time between two names: there is a day for all of them.
	lookPause = 100 * time.Millisecond
	// lookers is how many names are looked at at once: one whose record is written waits
	// until all name servers show it.
	lookers = 32
	// looksFailed is after how many errors a run ends: something is wrong with all.
	looksFailed = 20
)

// ReadDirectory reads the CA's directory anew and compares it with what it said before. A change of
// what records have to say is logged, and makes all names due for LookAtNames. Without an account in
// storage there is nothing to compare, and nothing is asked.
func (iss *Issuer) ReadDirectory(ctx context.Context) error {
	st := iss.ca.Store
	if known, err := st.Load(ctx, st.Key("ca.json"), new(ca.Offer)); err != nil || !known {
		return err
	}
	iss.ca.Expire()
	s, err := openKnown(ctx, iss)
	if err != nil || s == nil {
		return err
	}
	url, err := s.findAccount(ctx)
	if err != nil {
		return err
	}
	return s.compareDirectory(ctx, url)
}

// findAccount asks the CA for the account, by its key and by its URL, and returns the URL by which the CA calls
// it. What that shows is noted.
func (s *session) findAccount(ctx context.Context) (url string, err error) {
	err = s.account.Do(ctx, "looking up the account", func(account acme.Account) error {
		account, err := s.ACME.GetAccount(ctx, account)
		url = account.Location
		return err
	})
	if err != nil {
		err = s.account.Problem(ctx, err)
	}
	if err != nil {
		s.iss.reached(err, s.HasAnswered(), "")
		return "", err
	}
	return url, s.confirmAccount(ctx)
}

// compareDirectory compares the CA's directory with what it was before. named is the URL by which the CA calls the
// account, empty if that is not known.
func (s *session) compareDirectory(ctx context.Context, named string) error {
	changes, err := s.CompareDirectory(ctx, s.account.URL, named)
	if len(changes) > 0 {
		s.iss.Observer.Noticed(Notice{Kind: NoticeCAChanged, CA: s.iss.CA, Account: s.account.URL, Changes: changes})
	}
	return err
}

// LookAtNames looks in DNS at the record of every name that has a certificate and was not
// looked at for the given time, or since the CA asks for other records, by whichever node of a
// cluster. One that has vanished, is missing on a server, was changed, ends soon or is to be
// replaced is logged at once, long before a renewal needs it. The CA is asked for nothing but its
// account.
func (iss *Issuer) LookAtNames(ctx context.Context, every time.Duration) error {
	states, err := iss.ca.Store.Names(ctx)
	if err != nil {
		return err
	}
	// another node may have seen a change
	o, err := iss.ca.ReloadOffer(ctx)
	if err != nil {
		return err
	}
	run := &lookRun{every: every, changedAt: o.ChangedAt(), serving: servingBy(iss)}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	names := make(chan state.Name)
	var wg sync.WaitGroup
	for range lookers {
		wg.Go(func() { run.work(ctx, names, cancel) })
	}
	for _, n := range states {
		if len(n.Accepted) == 0 || !run.isDue(n) {
			continue
		}
		select {
		case names <- n:
			err = ca.Sleep(ctx, lookPause)
		case <-ctx.Done():
			err = ctx.Err()
		}
		if err != nil {
			break
		}
	}
	close(names)
	wg.Wait()
	for i, n := range states {
		if run.isDue(n) {
			if fresh, err := iss.ca.Store.Name(ctx, n.Name); err == nil {
				states[i] = fresh
			}
		}
	}
	run.observe(ctx, iss.Observer, states)
	if n := run.onDemand.Load(); n > 0 {
		iss.Logger.Info("records that certificates of domains on demand are renewed by are not as they should be; which ones is logged at level DEBUG",
			zap.String("ca", iss.CA), zap.Int64("records", n))
	}
	return run.err
}

// lookRun is one run over the names.
type lookRun struct {
	every time.Duration
	// changedAt is when the CA began to ask for other records.
	changedAt time.Time
	serving   func(identifier string) *Issuer
	// onDemand counts what was found of domains on demand.
	onDemand atomic.Int64

	mu     sync.Mutex
	err    error // the first
	failed int
	// shown are what the looks have shown, by name.
	shown map[string]RecordFault
}

// isDue reports whether a name is to be looked at: where the record was not as it should be sooner, so that it
// is soon known that somebody has mended it.
func (r *lookRun) isDue(n state.Name) bool {
	every := r.every
	if slices.Contains(NotReady, n.LookedStatus) {
		every /= 24
	}
	return walltime.Since(n.LookedAt) >= every || r.isChanged(n)
}

// isChanged reports whether the CA asks for other records since the last look at a name: as that look knew
// of it, for it may have been going on then.
func (r *lookRun) isChanged(n state.Name) bool { return r.changedAt.After(n.ChangeAt) }

// records are what was last seen of the records at the names, by whether they are for domains on demand. Names
// without a certificate are not looked at any more, and do not count: strangers could have them there for ever.
func (r *lookRun) records(ctx context.Context, names []state.Name) map[bool]Records {
	seen := map[bool]Records{false: {NotReady: make(map[propagation.Status]int)}, true: {NotReady: make(map[propagation.Status]int)}}
	since := walltime.Now().Add(-3 * r.every) // a look may be late by the time between two runs
	for _, n := range names {
		served := servedOf(n.Identifiers, r.serving)
		isCurrent := n.LookedAt.After(since) || len(n.Accepted) > 0 && n.Accepted[0].At.After(since)
		if !isCurrent || len(served) == 0 {
			continue
		}
		onDemand := r.serving(strictest(served)).OnDemand
		s := seen[onDemand]
		if !n.EndsAt.IsZero() && (s.Ends.IsZero() || n.EndsAt.Before(s.Ends)) {
			s.Ends = n.EndsAt
		}
		switch {
		case len(n.Accepted) > 0 && n.Accepted[0].At.After(n.LookedAt): // the CA has found it since
		case slices.Contains(NotReady, n.LookedStatus):
			s.NotReady[n.LookedStatus]++
		}
		if f := r.fault(ctx, n, served); f != nil {
			s.Faults = append(s.Faults, *f)
		}
		seen[onDemand] = s
	}
	return seen
}

// work looks at names until there are no more, each with the issuer that serves it.
func (r *lookRun) work(ctx context.Context, names <-chan state.Name, cancel func()) {
	sessions := make(map[*Issuer]*session)
	for n := range names {
		err := r.look(ctx, n, sessions)
		if err == nil || ctx.Err() != nil {
			continue
		}
		var account *AccountError
		r.mu.Lock()
		if r.err == nil {
			r.err = fmt.Errorf("looking at the record of %s: %w", n.Name, err)
		}
		if r.failed++; r.failed >= looksFailed || errors.As(err, &account) {
			cancel()
		}
		r.mu.Unlock()
	}
}

// look looks at one name.
func (r *lookRun) look(ctx context.Context, n state.Name, sessions map[*Issuer]*session) error {
	if n.Identifiers = renewed(ctx, n.Identifiers, r.serving); len(n.Identifiers) == 0 {
		return nil
	}
	iss := r.serving(strictest(n.Identifiers))
	if iss.Checker == nil && !r.isChanged(n) {
		return nil
	}
	life, due := iss.certificateOf(ctx, n.Identifiers)
	if due.IsZero() {
		return nil // nobody renews it any more
	}
	s := sessions[iss]
	if s == nil {
		var err error
		if s, err = openKnown(ctx, iss); err != nil || s == nil {
			return err
		}
		sessions[iss] = s
	}
	known, mine, err := r.claim(ctx, s, n.Name)
	if err != nil || !mine {
		return err
	}
	changed := r.isChanged(known)
	known.Identifiers = n.Identifiers
	l := &look{life: life, due: due, changed: changed, every: r.every, onDemand: &r.onDemand}
	err = s.lookAt(ctx, known, l)
	r.note(n.Name, l)
	if err != nil && changed {
		// it is reported by the next look
		err = errors.Join(err, s.store.UpdateName(context.WithoutCancel(ctx), n.Name, func(fresh *state.Name) bool {
			fresh.ChangeAt = known.ChangeAt
			return true
		}))
	}
	return err
}

// openKnown opens a session with the account that is bound; nil if none is, for then
// nothing names it. What an error shows of the CA is noted.
func openKnown(ctx context.Context, iss *Issuer) (*session, error) {
	s, err := iss.open(ctx)
	if err != nil {
		iss.reached(err, false, "")
		return nil, err
	}
	if found, err := s.account.Load(ctx); err != nil || !found {
		return nil, err
	}
	return s, nil
}

// certificateOf returns the length of life of the certificate that is renewed first, and
// when that is; zero if none of the names has one that is valid.
func (cfg *Config) certificateOf(ctx context.Context, identifiers []string) (life time.Duration, due time.Time) {
	for _, id := range identifiers {
		cert := StoredCertificate(ctx, cfg.Storage, IssuerKey(cfg.CA), id)
		if cert == nil || walltime.Now().After(cert.NotAfter) {
			continue
		}
		l := cert.NotAfter.Sub(cert.NotBefore)
		at := cert.NotAfter.Add(-time.Duration(float64(l) * cfg.RenewalWindowRatio))
		if due.IsZero() || at.Before(due) {
			life, due = l, at
		}
	}
	return life, due
}

// claim notes that a name is looked at, and returns what was known of it before; mine is false if another
// node has done so meanwhile.
func (r *lookRun) claim(ctx context.Context, s *session, name string) (known state.Name, mine bool, err error) {
	err = s.store.UpdateName(ctx, name, func(n *state.Name) bool {
		known = *n
		if mine = r.isDue(known); !mine {
			return false
		}
		n.LookedAt = walltime.Now().UTC()
		if r.isChanged(known) {
			n.ChangeAt = r.changedAt
		}
		return true
	})
	return known, mine, err
}

// SeenIdentifiers returns the names for which certificates were ever wanted from
// this CA, from storage.
func (iss *Issuer) SeenIdentifiers(ctx context.Context) ([]string, error) {
	states, err := iss.ca.Store.Names(ctx)
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

// renewed lists those of the identifiers of a validation name that this configuration serves:
// names that were tried once stay in storage. A policy for all names serves whatever was ever
// tried, so those without a valid certificate are left out where others have one.
func renewed(ctx context.Context, identifiers []string, serving func(string) *Issuer) []string {
	served := servedOf(identifiers, serving)
	var valid []string
	for _, id := range served {
		iss := serving(id)
		cert := StoredCertificate(ctx, iss.Storage, IssuerKey(iss.CA), id)
		if cert != nil && time.Now().Before(cert.NotAfter) {
			valid = append(valid, id)
		}
	}
	if len(valid) > 0 {
		return valid
	}
	return served
}

// servedOf lists those of the identifiers that this configuration serves.
func servedOf(identifiers []string, serving func(string) *Issuer) (served []string) {
	for _, id := range identifiers {
		if iss := serving(id); iss != nil && (iss.Policy != site.PolicyExact || !record.IsWildcard(id)) {
			served = append(served, id)
		}
	}
	return served
}

// renewalsAhead is how many renewals before a record's end its successor is asked for.
const renewalsAhead = 3

// lastLook bounds the look that only tells when a record ends.
const lastLook = 3 * time.Second
