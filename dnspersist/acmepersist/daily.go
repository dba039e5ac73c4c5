package acmepersist

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
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

// lookAt looks at one name.
func (s *session) lookAt(ctx context.Context, known state.Name, l *look) error {
	o, err := s.iss.ca.LoadOffer(ctx)
	if err != nil {
		return err
	}
	t, err := s.Terms(o)
	if err != nil {
		return err
	}
	w, err := s.site(ctx, strictest(known.Identifiers), t)
	if err != nil {
		return err
	}
	w.Known.Identifiers = known.Identifiers
	l.siteSession = w
	for _, a := range known.Accepted {
		l.accepted, l.accountsAccepted = append(l.accepted, a.Value), append(l.accountsAccepted, a.Account)
	}
	if s.iss.Checker == nil {
		return l.reportChange(ctx, l.accepted)
	}
	if err := l.observe(ctx, known); err != nil {
		return err
	}
	if err := w.Follow(ctx, s.iss.Checker, l.report); err != nil {
		return err
	}
	if err := w.Refine(l.report.Values, o); err != nil {
		return err
	}
	if l.report.Status == propagation.StatusAbsent {
		l.finding = site.Find(w.Record, w.Want, l.report)
	}
	if keeps(s.iss.Publishing) {
		err := w.keep(ctx, l.report, l.life)
		if err == nil && l.report.Status == propagation.StatusAbsent && (w.Delegated == "" || l.report.Alias().LeadsTo(w.Delegated)) {
			return s.store.UpdateName(ctx, known.Name, func(n *state.Name) bool { // it is published again
				n.LookedStatus = propagation.StatusReady
				return true
			})
		}
		if err != nil && ctx.Err() == nil {
			s.logger.Error("a record is not kept right; this is tried again with the next look",
				zap.String("name", known.Name), zap.String("ca", s.iss.CA), zap.Error(err))
		}
		l.changed = false // what the CA asks for is published
	}
	if !l.isNews && !l.changed {
		return nil
	}
	return l.log(ctx)
}

// look is what was found at a name.
type look struct {
	*siteSession
	// accepted are the values that the CA has accepted last.
	accepted []string
	// accountsAccepted are the accounts that these were accepted of.
	accountsAccepted []string
	report           propagation.Report
	// finding is what is published where none of it is the record.
	finding Finding
	// before is what the last look has shown, of whichever node.
	before propagation.Status
	// life is that of the certificate that is renewed first, and due is when.
	life time.Duration
	due  time.Time
	// changed says that it is the first look since the CA asks for other records.
	changed bool
	// every is the time between two looks at a record that is as it should be, and between two reports of one
	// that is not; isNews is true if it is time for one.
	every  time.Duration
	isNews bool
	// onDemand counts what is logged of domains on demand.
	onDemand *atomic.Int64
}

// observe looks at DNS, and notes what it has shown.
func (l *look) observe(ctx context.Context, known state.Name) error {
	gate := propagation.NewGate(l.iss.Grace, l.iss.Settle)
	l.report = gate.Observe(l.iss.Checker.Look(ctx, l.Target()))
	if ctx.Err() != nil {
		return fmt.Errorf("looking at the record of %s: %w", known.Name, context.Cause(ctx))
	}
	l.before = known.LookedStatus
	return l.store.UpdateName(ctx, known.Name, func(n *state.Name) bool {
		before := *n
		if n.LookedStatus = l.report.Status; n.LookedStatus != before.LookedStatus || n.LookedSince.IsZero() {
			n.LookedSince = walltime.Now().UTC()
		}
		// the look that is a day later may come a little sooner
		if l.isNews = n.LookedStatus != before.LookedStatus || walltime.Since(n.ReportedAt) > l.every-l.every/12; l.isNews {
			n.ReportedAt = walltime.Now().UTC()
		}
		if l.report.Status != propagation.StatusBlocked {
			n.EndsAt = endOf(record.Evaluate(l.report.Values, l.Want, walltime.Now()))
		}
		return l.isNews || !n.EndsAt.Equal(before.EndsAt)
	})
}

// write logs what is wrong with a record. For a domain on demand somebody has to act who does not read this log.
func (l look) write(level zapcore.Level, message string, fields ...zap.Field) {
	if l.iss.OnDemand {
		level = zapcore.DebugLevel
		l.onDemand.Add(1)
	}
	l.logger.Log(level, message, fields...)
}

// fields are those of a log entry about it.
func (l look) fields(more ...zap.Field) []zap.Field {
	return append([]zap.Field{
		zap.Strings("domains", l.Known.Identifiers), zap.Int("days_left", int(time.Until(l.due).Hours()/24)), zap.Time("needed_by", l.due),
	}, more...)
}

// newNotice is a Notice about it.
func (l look) newNotice(kind NoticeKind) Notice {
	n := l.siteSession.newNotice(kind)
	n.Report, n.NeededBy = l.report, l.due
	return n
}

// log logs what is wrong with a published record, daily while it is.
func (l look) log(ctx context.Context) error {
	w, accepted := l.siteSession, foreign.Values(l.accepted)
	fields := l.fields(zap.String("dns", l.report.Summary()), zap.String("ca", w.iss.CA))
	name := zap.String("name", w.Record.Name)
	switch l.report.Status {
	case propagation.StatusAbsent, propagation.StatusPartial:
		// nobody is shown a record before the CA has confirmed the account
		if err := w.confirmAccount(ctx); err != nil {
			return err
		}
		fields = append(append(w.Record.LogFields(l.report), fields...), zap.Strings("accepted_values", accepted))
		if l.report.Status == propagation.StatusAbsent {
			l.write(zapcore.ErrorLevel, "a record that a certificate is renewed by is gone or was changed; publish it again", fields...)
			n := l.newNotice(NoticeGone)
			n.Finding = l.finding
			w.iss.Observer.Noticed(n)
		} else {
			l.write(zapcore.WarnLevel, "a record that a certificate is renewed by is not on all name servers", fields...)
		}
	case propagation.StatusBlocked:
		l.write(zapcore.WarnLevel, "a record that a certificate is renewed by cannot be looked at", append(fields, name)...)
		return l.reportChange(ctx, l.accepted)
	default:
		if !slices.ContainsFunc(l.report.Values, func(v string) bool { return slices.Contains(l.accepted, v) }) {
			w.logger.Info("a record was replaced by another one that is good as well",
				append(fields, name, zap.String("accepted_values", strings.Join(accepted, " | ")))...)
		}
		if record.Evaluate(l.report.Values, w.Want, time.Now()).Good() {
			n := l.newNotice(NoticeFound)
			n.WasMissing = l.before == propagation.StatusAbsent
			w.iss.Observer.Noticed(n)
		}
		w.warnOfEnd(l.report.Values, l.life)
		return l.reportChange(ctx, l.report.Values)
	}
	return nil
}

// reportChange logs which record to publish where the CA asks for others than before: once, for it may
// go on to accept the published ones.
func (l look) reportChange(ctx context.Context, published []string) error {
	if !l.changed || record.Evaluate(published, l.Want, time.Now()).Good() {
		return nil
	}
	if err := l.confirmAccount(ctx); err != nil {
		return err
	}
	l.iss.Observer.Noticed(l.newNotice(NoticeNeeded))
	l.write(zapcore.WarnLevel, "the CA asks for another record than before: publish this TXT record beside the published ones before the certificate is renewed",
		append(l.Record.LogFields(l.report), l.fields(zap.Strings("published_values", foreign.Values(published)), zap.String("ca", l.iss.CA))...)...)
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

// warnOfExpiry warns if the record of a name with a fresh certificate ends before its
// third renewal from now. Without a Checker nobody has looked which values the CA has accepted: the
// resolvers are asked, now that the certificate is there and waits for nothing.
func (w *siteSession) warnOfExpiry(ctx context.Context, life time.Duration) {
	var values []string
	if checker := w.iss.CAAChecker; w.iss.Checker == nil && checker != nil {
		ctx, cancel := context.WithTimeout(ctx, lastLook)
		defer cancel()
		values = checker.Check(ctx, w.Target(), checker.NewGate()).Values
	} else {
		known, err := w.store.Name(ctx, w.Record.Name)
		if err != nil {
			return
		}
		for _, a := range known.Accepted {
			values = append(values, a.Value)
		}
	}
	w.warnOfEnd(values, life)
}

// warnOfEnd says that all the values that a CA may accept end before the third renewal
// from now.
func (w *siteSession) warnOfEnd(values []string, life time.Duration) {
	if keeps(w.iss.Publishing) {
		return // it is followed without anybody's doing
	}
	var end time.Time
	var value string
	for _, v := range record.Evaluate(values, w.Want, time.Now()).Verdicts {
		switch {
		case v.Outlook == record.OutlookBad:
		case v.Value.PersistUntil.IsZero():
			return
		case v.Value.PersistUntil.After(end):
			end, value = v.Value.PersistUntil, v.Text
		}
	}
	if !w.iss.endsSoon(end, life) {
		return
	}
	interval := w.iss.renewedEvery(life)
	n := w.newNotice(NoticeEnding)
	n.Value, n.Ends = value, end
	w.iss.Observer.Noticed(n)
	level := zapcore.WarnLevel
	if w.iss.OnDemand {
		level = zapcore.DebugLevel
	}
	w.logger.Log(level, "the record ends soon; publish its successor beside it, then take it away",
		zap.String("name", w.Record.Name), zap.String("value", w.Record.Value), zap.String("domain", w.Identifier), zap.String("published_value", foreign.Text(value)),
		zap.Time("ends", end), zap.Int("days_left", int(time.Until(end).Hours()/24)), zap.Int("renewals_left", int(time.Until(end)/max(interval, time.Second))))
}
