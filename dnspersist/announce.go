package dnspersist

import (
	"slices"
	"sort"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

const (
	// announceWindow collects the records of a start, so that they are said in one go.
	announceWindow = 2 * time.Second
	announceAgain  = time.Hour
	announceMost   = 24 * time.Hour
	// RecordTTL is the TTL that is proposed for records, in seconds.
	RecordTTL = 3600
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
}

type announcement struct {
	identifiers []string
	ca, account string
	also        *acmepersist.Record
	report      propagation.Report
	next        time.Time
	interval    time.Duration
	since       time.Time
}

func newAnnouncer(logger func() *zap.Logger) *announcer {
	return &announcer{logger: logger, wanted: make(map[acmepersist.Record]*announcement), claims: make(map[claim]claimed)}
}

// want takes note of a record that is missing, for a configuration.
func (a *announcer) want(p acmepersist.Parking, by *App) {
	t := tuning.Get()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return
	}
	mine := claim{p.CA, p.Identifier}
	if was, ok := a.claims[mine]; ok && was.record != p.Record {
		a.drop(p.Identifier, was.record) // another policy, dialect, account or delegation
	}
	a.claims[mine] = claimed{p.Record, by}
	now := time.Now()
	w := a.wanted[p.Record]
	if w == nil {
		w = &announcement{
			since: now, next: now.Add(tuning.Or(t.AnnounceWindow, announceWindow)),
			interval: tuning.Or(t.AnnounceAgain, announceAgain),
		}
		a.wanted[p.Record] = w
	}
	if !slices.Contains(w.identifiers, p.Identifier) {
		w.identifiers = append(w.identifiers, p.Identifier)
		sort.Strings(w.identifiers)
	}
	w.ca, w.account, w.also, w.report = p.CA, p.Account, p.Also, p.Report
	a.arm(w.next)
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

// fire says what is due.
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
		if !w.next.After(now) {
			due = append(due, r)
			w.next = now.Add(w.interval)
			w.interval = min(w.interval*4, announceMost)
		}
	}
	for _, w := range a.wanted {
		a.arm(w.next)
	}
	sort.Slice(due, func(i, j int) bool { return due[i].Name < due[j].Name })
	logger := a.logger()
	type entry struct {
		record acmepersist.Record
		announcement
	}
	var entries []entry
	for _, r := range due {
		w := *a.wanted[r]
		w.identifiers = slices.Clone(w.identifiers)
		entries = append(entries, entry{r, w})
	}
	a.mu.Unlock()

	if len(entries) > 1 {
		logger.Warn("TXT records are needed before certificates can be obtained; publish each of the following once", zap.Int("records", len(entries)))
	}
	for _, e := range entries {
		also := zap.Skip()
		if e.also != nil {
			also = zap.String("or_value", e.also.Value) // as long as the CA is of two minds
		}
		message, where := "publish this TXT record once; the certificate follows by itself", zap.Skip()
		if e.record.Target != "" {
			message = "delegate the validation name by this CNAME record once, and have the TXT record at its target; the certificate follows by itself"
			where = zap.Dict("alias", zap.String("name", e.record.Name), zap.String("type", "CNAME"), zap.String("value", e.record.Target+"."),
				zap.Int("ttl", RecordTTL), zap.String("zone_line", e.record.AliasLine()))
		}
		place := e.record
		if end := e.report.AliasEnd(); place.Target == "" && end != "" {
			// somebody has set a CNAME there, beside which nothing can stand
			place.Target, where = end, zap.String("alias_of", e.record.Name)
		}
		logger.Warn(message, also, where,
			zap.String("name", place.Place()), zap.String("type", "TXT"), zap.String("value", place.Value), zap.Int("ttl", RecordTTL),
			zap.String("zone_line", place.ZoneLine()),
			zap.Strings("identifiers", e.identifiers), zap.String("ca", e.ca), zap.String("account", e.account),
			zap.String("dns", e.report.Summary()), zap.Duration("waiting", time.Since(e.since).Round(time.Second)))
	}
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
	defer a.mu.Unlock()
	a.closed = true
	if a.timer != nil {
		a.timer.Stop()
	}
}
