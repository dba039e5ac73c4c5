package acmepersist

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
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

// LookAtNames looks in DNS at the record of every name that has a certificate and was not
// looked at for the given time, by whichever node of a cluster. One that has vanished, is
// missing on a server, was changed or ends soon is logged at once, long before a renewal
// needs it. The CA is asked for nothing but its account.
func (iss *Issuer) LookAtNames(ctx context.Context, every time.Duration) error {
	states, err := iss.ca.Store.Names(ctx)
	if err != nil {
		return err
	}
	run := &lookRun{every: every, serving: iss.serving()}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	names := make(chan state.Name)
	var wg sync.WaitGroup
	for range lookers {
		wg.Go(func() { run.work(ctx, names, cancel) })
	}
	for _, n := range states {
		if len(n.Accepted) == 0 || walltime.Since(n.LookedAt) < every {
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
	return run.err
}

// lookRun is one run over the names.
type lookRun struct {
	every   time.Duration
	serving func(identifier string) *Issuer

	mu     sync.Mutex
	err    error // the first
	failed int
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
	if iss.Checker == nil {
		return nil
	}
	life, due := iss.certificateOf(ctx, n.Identifiers)
	if due.IsZero() {
		return nil // nobody renews it any more
	}
	s := sessions[iss]
	if s == nil {
		var err error
		if s, err = iss.openKnown(ctx); err != nil || s == nil {
			return err
		}
		sessions[iss] = s
	}
	return s.lookAt(ctx, n.Name, n.Identifiers, r.every, life, due)
}

// openKnown opens a session with the account that is bound; nil if none is, for then
// nothing names it.
func (iss *Issuer) openKnown(ctx context.Context) (*session, error) {
	s, err := iss.open(ctx)
	if err != nil {
		return nil, err
	}
	if found, err := s.account.Load(ctx); err != nil || !found {
		return nil, err
	}
	return s, nil
}

// certificateOf returns the length of life of the certificate that is renewed first, and
// when that is; zero if none of the names has one that is valid.
func (iss *Issuer) certificateOf(ctx context.Context, identifiers []string) (life time.Duration, due time.Time) {
	for _, id := range identifiers {
		cert := StoredCertificate(ctx, iss.Storage, IssuerKey(iss.CA), id)
		if cert == nil || walltime.Now().After(cert.NotAfter) {
			continue
		}
		l := cert.NotAfter.Sub(cert.NotBefore)
		at := cert.NotAfter.Add(-time.Duration(float64(l) * iss.windowRatio()))
		if due.IsZero() || at.Before(due) {
			life, due = l, at
		}
	}
	return life, due
}

// lookAt looks at one name for identifiers, unless another node has done so meanwhile.
func (s *session) lookAt(ctx context.Context, name string, identifiers []string, every, life time.Duration, due time.Time) error {
	var known state.Name
	mine := false
	err := s.store.UpdateName(ctx, name, func(n *state.Name) bool {
		if mine = walltime.Since(n.LookedAt) >= every; mine {
			n.LookedAt = walltime.Now().UTC()
		}
		known = *n
		return mine
	})
	if err != nil || !mine {
		return err
	}
	o, err := s.iss.ca.LoadOffer(ctx)
	if err != nil {
		return err
	}
	t, err := s.Terms(o)
	if err != nil {
		return err
	}
	known.Identifiers = identifiers
	w, err := s.want(ctx, strictest(identifiers), t)
	if err != nil {
		return err
	}
	gate := propagation.NewGate(s.iss.Grace, s.iss.Settle)
	target := s.target(w, known)
	report := gate.Observe(s.iss.Checker.Look(ctx, target))
	if ctx.Err() != nil {
		return fmt.Errorf("looking at the record of %s: %w", name, context.Cause(ctx))
	}
	if err := s.follow(ctx, s.iss.Checker, &w, report); err != nil {
		return err
	}
	if err := s.refine(&w, report.Values, known, o); err != nil {
		return err
	}
	if s.iss.keeps() {
		err := s.keepAt(ctx, w, known, target, report, life)
		if err == nil && report.Status == propagation.StatusAbsent && (w.target == "" || report.Alias().LeadsTo(w.target)) {
			return nil // it stands again
		}
		if err != nil && ctx.Err() == nil {
			s.logger.Error("a record is not kept right; this is tried again with the next look",
				zap.String("name", name), zap.String("ca", s.iss.CA), zap.Error(err))
		}
	}
	return s.report(ctx, w, known, report, life, due)
}

// report says what is wrong with a standing record, daily while it is.
func (s *session) report(ctx context.Context, w wanted, known state.Name, r propagation.Report, life time.Duration, due time.Time) error {
	fields := []zap.Field{
		zap.String("name", w.record.Name), zap.Strings("identifiers", known.Identifiers), zap.String("dns", r.Summary()),
		zap.Int("days_left", int(time.Until(due).Hours()/24)), zap.Time("needed_by", due), zap.String("ca", s.iss.CA),
	}
	var standing []string
	for _, a := range known.Accepted {
		standing = append(standing, foreign.Text(a.Value))
	}
	switch r.Status {
	case propagation.StatusAbsent, propagation.StatusPartial:
		// nobody is shown a record before the CA has confirmed the account
		if err := s.account.Check(ctx); err != nil {
			return err
		}
		at, _ := w.record.AtEnd(r)
		fields = append(fields, zap.Strings("accepted_values", standing),
			zap.String("value", w.record.Value), zap.String("zone_line", at.ZoneLine()))
		if line := w.record.AliasLine(); line != "" {
			fields = append(fields, zap.String("alias_line", line))
		}
		if r.Status == propagation.StatusAbsent {
			s.logger.Error("a record that a certificate is renewed by is gone or was changed; publish it again", fields...)
		} else {
			s.logger.Warn("a record that a certificate is renewed by is not on all name servers", fields...)
		}
	case propagation.StatusBlocked:
		s.logger.Warn("a record that a certificate is renewed by cannot be looked at", fields...)
	default:
		if !slices.ContainsFunc(r.Values, func(v string) bool { return slices.Contains(standing, v) }) {
			s.logger.Info("a record was replaced by another one that is good as well",
				append(fields, zap.String("accepted_values", strings.Join(standing, " | ")))...)
		}
		s.warnOfEnd(w, r.Values, life)
	}
	return nil
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
