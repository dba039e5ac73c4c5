package dnspersist

import (
	"context"
	"slices"
	"sort"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/operator"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

const (
	// announceWindow collects the records of a start, so that they are said in one go.
	announceWindow = 2 * time.Second
	announceAgain  = time.Hour
	announceMost   = 24 * time.Hour
)

// announcer says which records somebody has to publish: each once, then at growing
// intervals while it is missing, never at every poll.
type announcer struct {
	logger func() *zap.Logger

	mu      sync.Mutex
	wanted  map[acmepersist.Record]*announcement
	claims  map[claim]claimed
	timer   *time.Timer
	timerAt time.Time
	closed  bool
	// diagnosing are records that are diagnosed next, one after another.
	diagnosing   []diagnosis
	isDiagnosing bool
	working      sync.WaitGroup
	ctx          context.Context
	cancel       context.CancelFunc
}

type announcement struct {
	identifiers []string
	ca, account string
	also        *acmepersist.Record
	report      propagation.Report
	finding     acmepersist.Finding // what is published and is not the record
	misplaced   []string            // where else the record was found
	next        time.Time
	interval    time.Duration
	since       time.Time
	said        bool      // at least once
	onDemand    bool      // nobody but its owner has to act, who does not read this log
	diagnoseAt  time.Time // for the first time; zero once it is done
	checker     *propagation.Checker
	target      propagation.Target
}

func newAnnouncer(logger func() *zap.Logger) *announcer {
	a := &announcer{logger: logger, wanted: make(map[acmepersist.Record]*announcement), claims: make(map[claim]claimed)}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	return a
}

// want takes note of a record that is missing, for a configuration.
func (a *announcer) want(h *acmepersist.Hold, by *App, onDemand bool) {
	t := by.tuning
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return
	}
	mine := claim{h.CA, h.Domain}
	if was, ok := a.claims[mine]; ok && was.record != h.Record {
		a.drop(h.Domain, was.record) // another policy, dialect, account or delegation
	}
	a.claims[mine] = claimed{h.Record, by}
	now := time.Now()
	w := a.wanted[h.Record]
	if w == nil {
		w = &announcement{
			onDemand: onDemand, since: now, next: now.Add(tuning.Or(t.AnnounceWindow, announceWindow)),
			interval: tuning.Or(t.AnnounceAgain, announceAgain), diagnoseAt: now.Add(tuning.Or(t.DiagnoseAfter, diagnoseAfter)),
		}
		a.wanted[h.Record] = w
	}
	if !slices.Contains(w.identifiers, h.Domain) {
		w.identifiers = append(w.identifiers, h.Domain)
		sort.Strings(w.identifiers)
	}
	w.onDemand = w.onDemand && onDemand
	w.ca, w.account, w.also, w.report, w.finding = h.CA, h.Account, h.Also, h.Watch.Report, found(h, h.Watch.Report)
	w.checker, w.target = h.Watch.Checker, h.Watch.Target
	a.arm(w.due())
}

// saw takes what a later look at a record has shown, for its next announcement.
func (a *announcer) saw(record acmepersist.Record, r propagation.Report, f acmepersist.Finding) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w := a.wanted[record]; w != nil {
		w.report, w.finding = r, f
	}
}

// due is when something is to be done for the record.
func (w *announcement) due() time.Time {
	if w.diagnoseAt.IsZero() || w.next.Before(w.diagnoseAt) {
		return w.next
	}
	return w.diagnoseAt
}

// arm makes the timer fire at the given time at the latest.
func (a *announcer) arm(at time.Time) {
	if a.timer != nil && !a.timerAt.After(at) {
		return
	}
	if a.timer != nil {
		a.timer.Stop()
	}
	a.timerAt = at
	a.timer = time.AfterFunc(time.Until(at), a.fire)
}

// fire logs what is due for the first time, and has diagnosed what is due again.
func (a *announcer) fire() {
	a.mu.Lock()
	if a.closed {
		a.mu.Unlock()
		return
	}
	a.timer = nil
	now := time.Now()
	var due []acmepersist.Record
	for r, w := range a.wanted {
		switch {
		case !w.next.After(now):
			w.next = now.Add(w.interval)
			w.interval = min(w.interval*4, announceMost)
			if w.said {
				a.diagnose(diagnosis{r, true})
			} else {
				due = append(due, r)
			}
			w.said = true
		case !w.diagnoseAt.IsZero() && !w.diagnoseAt.After(now):
			w.diagnoseAt = time.Time{}
			a.diagnose(diagnosis{r, false})
		}
	}
	for _, w := range a.wanted {
		a.arm(w.due())
	}
	sort.Slice(due, func(i, j int) bool { return due[i].Name < due[j].Name })
	logger := a.logger()
	var entries []announcement
	waiting := 0
	for _, w := range a.wanted {
		if w.onDemand {
			waiting++
		}
	}
	for _, r := range due {
		entries = append(entries, a.wanted[r].clone())
	}
	a.mu.Unlock()

	asked := 0
	for _, e := range entries {
		if e.onDemand {
			asked++
		}
	}
	if asked > 0 {
		logger.Info("names that were asked for on demand wait for their owners to set records; which ones is logged at level DEBUG",
			zap.Int("records", asked), zap.Int("waiting", waiting))
	}
	if len(entries)-asked > 1 {
		logger.Warn("TXT records are needed before certificates can be obtained; publish each of the following once", zap.Int("records", len(entries)-asked))
	}
	for i, e := range entries {
		e.write(logger, due[i])
	}
}

// clone is the announcement for use without the lock.
func (w *announcement) clone() announcement {
	c := *w
	c.identifiers = slices.Clone(w.identifiers)
	return c
}

// write logs that a record is needed.
func (w announcement) write(logger *zap.Logger, record acmepersist.Record) {
	also := zap.Skip()
	if w.also != nil {
		also = zap.String("or_value", w.also.Value) // as long as the CA is of two minds
	}
	message, where := "publish this TXT record once; the certificate follows by itself", zap.Skip()
	if record.Target != "" {
		message = "delegate the validation name by this CNAME record once, and have the TXT record at its target; the certificate follows by itself"
		where = zap.Dict("alias", zap.String("name", record.Name), zap.String("type", "CNAME"), zap.String("value", record.Target+"."),
			zap.Int("ttl", operator.TTL), zap.String("zone_line", record.AliasLine()))
	}
	place, moved := record.AtEnd(w.report)
	if moved {
		where = zap.String("alias_of", record.Name)
	}
	wrong := []zap.Field{zap.Skip()}
	if w.report.Shadows != "" {
		wrong = append(wrong, zap.String("first", w.report.Shadows))
	}
	if len(w.finding.Values) > 0 {
		wrong = append(wrong, zap.Strings("found", foundTexts(w.finding)), zap.String("do", w.finding.Do))
	}
	if len(w.misplaced) > 0 {
		wrong = append(wrong, zap.Strings("misplaced", w.misplaced))
	}
	level := zapcore.WarnLevel
	if w.onDemand {
		level = zapcore.DebugLevel
	}
	logger.Log(level, message, append([]zap.Field{
		also, where,
		zap.String("name", place.Place()), zap.String("type", "TXT"), zap.String("value", place.Value), zap.Int("ttl", operator.TTL),
		zap.String("zone_line", place.ZoneLine()),
		zap.Strings("identifiers", w.identifiers), zap.String("ca", w.ca), zap.String("account", w.account),
		zap.String("dns", w.report.Summary()), zap.Duration("waiting", time.Since(w.since).Round(time.Second)),
	}, wrong...)...)
}

// done takes an identifier off a record; a record that nobody needs is not said again.
func (a *announcer) done(identifier string, r acmepersist.Record) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.drop(identifier, r)
}

// drop is done, under the lock.
func (a *announcer) drop(identifier string, r acmepersist.Record) {
	if w := a.wanted[r]; w != nil {
		if c := (claim{w.ca, identifier}); a.claims[c].record == r {
			delete(a.claims, c)
		}
		w.identifiers = slices.DeleteFunc(w.identifiers, func(s string) bool { return s == identifier })
		if len(w.identifiers) == 0 {
			delete(a.wanted, r)
		}
	}
}

// got takes an identifier that has its certificate off all records.
func (a *announcer) got(identifier string) {
	a.mu.Lock()
	var records []acmepersist.Record
	for r := range a.wanted {
		records = append(records, r)
	}
	a.mu.Unlock()
	for _, r := range records {
		a.done(identifier, r)
	}
}

// close ends the announcements.
func (a *announcer) close() {
	a.mu.Lock()
	a.closed = true
	if a.timer != nil {
		a.timer.Stop()
	}
	a.mu.Unlock()
	a.cancel()
	a.working.Wait()
}
