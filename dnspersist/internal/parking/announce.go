package parking

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

const (
	// announceWindow collects the records of a start, so that they are logged in one go.
	announceWindow = 2 * time.Second
	announceAgain  = time.Hour
	announceMost   = 24 * time.Hour
	// diagnoseAfter is how long a record is missing before it is looked for in wrong places: it
	// may have been published there.
	diagnoseAfter = 10 * time.Minute
	// diagnoseEvery is the time between two diagnoses, of some 25 questions each. Names that
	// began to wait together also come to this together.
	diagnoseEvery = time.Second
)

// announcements are the records that somebody has to publish: each is logged once, then at growing
// intervals while it is missing, never at every poll, and with many others as a number only.
type announcements struct {
	registry *Registry
	byRecord map[acmepersist.Record]*announcement
	// began is what slots count from.
	began   time.Time
	timer   *time.Timer
	timerAt time.Time
	// diagnosing are records that are diagnosed next, one after another, and queued the same.
	diagnosing   []diagnosis
	queued       map[diagnosis]bool
	isDiagnosing bool
	working      sync.WaitGroup
	ctx          context.Context
	cancel       context.CancelFunc
}

// announcement is a record with the domains that need it.
type announcement struct {
	entries    map[*entry]bool
	misplaced  []string // where else the record was found
	next       time.Time
	interval   time.Duration
	slot       time.Duration // see slotOf
	since      time.Time
	wasLogged  bool
	diagnoseAt time.Time // for the first time; zero once it is done
}

// diagnosis is a record that is to be looked for where it is put by mistake.
type diagnosis struct {
	record acmepersist.Record
	// announce is true if the record is to be announced again after that.
	announce bool
}

func newAnnouncements(r *Registry) *announcements {
	a := &announcements{registry: r, byRecord: make(map[acmepersist.Record]*announcement), began: time.Now(), queued: make(map[diagnosis]bool)}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	return a
}

// add has the record of an entry asked for. What was asked for before for the domain, by another
// policy, dialect, account or delegation, is wanted no more.
func (a *announcements) add(e *entry) {
	record := e.hold.Record
	for _, other := range a.registry.byDomain[e.domain] {
		if other != e && other.hold.CA == e.hold.CA && other.asked != nil && other.asked.Record != record {
			a.remove(other)
		}
	}
	w := a.byRecord[record]
	if w == nil {
		t, now := e.newest().Configuration().Timing, time.Now()
		window := cmp.Or(t.AnnounceWindow, announceWindow)
		w = &announcement{
			entries: make(map[*entry]bool), since: now, slot: window / 2, interval: cmp.Or(t.AnnounceAgain, announceAgain),
			next: a.slotOf(now.Add(window), window/2), diagnoseAt: a.slotOf(now.Add(cmp.Or(t.DiagnoseAfter, diagnoseAfter)), window/2),
		}
		a.byRecord[record] = w
	}
	w.entries[e], e.asked, e.announced = true, e.hold, w
	a.arm(w.due())
}

// remove takes an entry off the record that it is announced with. A record that nobody needs is not
// announced again.
func (a *announcements) remove(e *entry) {
	if e.asked == nil {
		return
	}
	w := e.announced
	if delete(w.entries, e); len(w.entries) == 0 {
		delete(a.byRecord, e.asked.Record)
	}
	e.asked, e.announced = nil, nil
}

// slotOf is the end of the slot of time that a time is in. All records are gone through when one is due: those of
// many domains that begin to wait one after another have to come due together.
func (a *announcements) slotOf(at time.Time, slot time.Duration) time.Time {
	since := at.Sub(a.began)
	if over := since % max(slot, 1); over > 0 {
		since += slot - over
	}
	return a.began.Add(since)
}

// due is when something is to be done for the record.
func (w *announcement) due() time.Time {
	if w.diagnoseAt.IsZero() || w.next.Before(w.diagnoseAt) {
		return w.next
	}
	return w.diagnoseAt
}

// arm makes the timer fire at the given time at the latest.
func (a *announcements) arm(at time.Time) {
	if a.registry.closed || a.timer != nil && !a.timerAt.After(at) {
		return
	}
	if a.timer != nil {
		a.timer.Stop()
	}
	a.timerAt = at
	a.timer = time.AfterFunc(time.Until(at), a.fire)
}

// fire logs what is due for the first time, and has diagnosed what is due again.
func (a *announcements) fire() {
	a.registry.mu.Lock()
	defer a.registry.unlock()
	if a.registry.closed {
		return
	}
	a.timer = nil
	now := time.Now()
	var first []entryOfLog
	var due time.Time
	for record, w := range a.byRecord {
		switch {
		case !w.next.After(now):
			w.next = a.slotOf(now.Add(w.interval), w.slot)
			w.interval = min(w.interval*4, announceMost)
			if w.wasLogged {
				a.diagnose(diagnosis{record, true})
			} else {
				first = append(first, w.logEntry(record))
			}
			w.wasLogged = true
		case !w.diagnoseAt.IsZero() && !w.diagnoseAt.After(now):
			w.diagnoseAt = time.Time{}
			a.diagnose(diagnosis{record, false})
		}
		if at := w.due(); due.IsZero() || at.Before(due) {
			due = at
		}
	}
	if !due.IsZero() {
		a.arm(due)
	}
	slices.SortFunc(first, func(a, b entryOfLog) int { return strings.Compare(a.record.Name, b.record.Name) })
	for _, e := range first {
		a.log(e)
	}
}

// log logs that a record is needed.
func (a *announcements) log(e entryOfLog) {
	a.registry.logOneOfMany(matter{onDemand: e.onDemand}, e.timing, zapcore.WarnLevel, e.write)
}

// missing is how many records are missing, of domains that were asked for on demand or of others.
func (a *announcements) missing(onDemand bool) (n int) {
	for _, w := range a.byRecord {
		if w.isOnDemand() == onDemand {
			n++
		}
	}
	return n
}

// isOnDemand reports whether nobody but their owners has to act, who do not read this log.
func (w *announcement) isOnDemand() bool {
	for e := range w.entries {
		if !e.isOnDemand() {
			return false
		}
	}
	return true
}

// entryOfLog is an announcement for use without the lock.
type entryOfLog struct {
	record    acmepersist.Record
	domains   []string
	hold      *acmepersist.Hold // of the domain that was looked at last
	status    Status            // of the same
	misplaced []string
	onDemand  bool
	since     time.Time
	timing    Timing
}

func (w *announcement) logEntry(record acmepersist.Record) entryOfLog {
	l := entryOfLog{record: record, misplaced: w.misplaced, onDemand: w.isOnDemand(), since: w.since, hold: w.latest().asked, status: w.latest().status()}
	for e := range w.entries {
		l.domains = append(l.domains, e.domain)
		l.timing = e.timing()
	}
	slices.Sort(l.domains)
	l.domains = slices.Compact(l.domains)
	return l
}

// latest is the entry that was looked at last.
func (w *announcement) latest() (last *entry) {
	for e := range w.entries {
		if last == nil || e.asked.Watch.Report.When.After(last.asked.Watch.Report.When) {
			last = e
		}
	}
	return last
}

// write logs that a record is needed.
func (e entryOfLog) write(logger *zap.Logger) {
	message := "publish this TXT record once; the certificate follows by itself; if it does not, run caddy dns-persist check"
	if e.record.Target != "" {
		message = "delegate the validation name once by the CNAME record, and have this TXT record at its target; the certificate follows by itself; if it does not, run caddy dns-persist check"
	}
	entry := logger.Check(levelFor(e.onDemand, zapcore.WarnLevel), message)
	if entry == nil {
		return
	}
	report := e.hold.Watch.Report
	fields := append(e.record.LogFields(report), zap.Strings("domains", e.domains))
	if e.hold.Also != nil {
		fields = append(fields, zap.String("or_value", e.hold.Also.Value)) // as long as the CA is of two minds
	}
	if report.Shadows != "" {
		fields = append(fields, zap.String("first", report.Shadows))
	}
	finding := found(e.hold, report)
	if len(finding.Values) > 0 {
		fields = append(fields, zap.Strings("found", foundTexts(finding)))
	}
	if len(e.misplaced) > 0 {
		fields = append(fields, zap.Strings("misplaced", e.misplaced))
	}
	if len(finding.Values)+len(e.misplaced) > 0 {
		x := e.status.Explain()
		fields = append(fields, zap.String("code", x.Code), zap.String("do", x.Do))
	}
	entry.Write(append(fields, zap.String("ca", e.hold.CA), zap.String("account", e.hold.Account),
		zap.String("dns", report.Summary()), zap.Duration("waiting", time.Since(e.since).Round(time.Second)))...)
}

// diagnose puts a diagnosis behind those that wait. Nothing runs while none does.
func (a *announcements) diagnose(d diagnosis) {
	if a.queued[d] {
		return
	}
	a.queued[d] = true
	a.diagnosing = append(a.diagnosing, d)
	if !a.isDiagnosing {
		a.isDiagnosing = true
		a.working.Go(a.diagnoseAll)
	}
}

// diagnoseAll goes on until no diagnosis waits.
func (a *announcements) diagnoseAll() {
	for {
		a.registry.mu.Lock()
		if a.registry.closed || len(a.diagnosing) == 0 {
			a.diagnosing, a.isDiagnosing = nil, false
			clear(a.queued)
			a.registry.unlock()
			return
		}
		next := a.diagnosing[0]
		a.diagnosing = a.diagnosing[1:]
		delete(a.queued, next)
		var watch *acmepersist.Watch
		if w := a.byRecord[next.record]; w != nil {
			watch = w.latest().asked.Watch
		}
		a.registry.unlock()
		if watch == nil {
			continue
		}
		if watch.Checker == nil {
			a.diagnosed(next, nil)
			continue
		}
		_, diagnostics := watch.Checker.Diagnose(a.ctx, watch.Target)
		a.diagnosed(next, misplaced(diagnostics))
		_ = ca.Sleep(a.ctx, diagnoseEvery)
	}
}

// misplaced lists where the record was found.
func misplaced(diagnostics []propagation.Diagnostic) []string {
	var all []string
	for _, d := range diagnostics {
		if d.Code == propagation.CodeWrongName {
			all = append(all, d.Text)
		}
	}
	slices.Sort(all)
	return all
}

// diagnosed logs what a diagnosis has found, once, and the announcement behind it.
func (a *announcements) diagnosed(d diagnosis, places []string) {
	a.registry.mu.Lock()
	defer a.registry.unlock()
	w := a.byRecord[d.record]
	if w == nil || a.registry.closed {
		return
	}
	isNew := len(places) > 0 && !slices.Equal(places, w.misplaced)
	w.misplaced = places
	for e := range w.entries {
		a.registry.changed(e.domain)
	}
	e := w.logEntry(d.record)
	switch {
	case d.announce:
		a.log(e)
	case isNew:
		m := matter{reason: acmepersist.ReasonWrong, onDemand: e.onDemand}
		a.registry.logOneOfMany(m, e.timing, zapcore.WarnLevel, func(l *zap.Logger) {
			l.Log(levelFor(e.onDemand, zapcore.WarnLevel), "the TXT record was found at another name than the validation name",
				zap.Strings("domains", e.domains), zap.String("name", d.record.Name), zap.Strings("misplaced", places),
				zap.String("code", string(propagation.CodeWrongName)), zap.String("do", e.status.Explain().Do))
		})
	}
}
