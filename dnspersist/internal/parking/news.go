package parking

import (
	"maps"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

const (
	// newsWindow is in what time newsMost changes of what DNS shows of a name are logged. A zone
	// whose servers differ, or its owner, may change it at every look.
	newsWindow = time.Hour
	newsMost   = 10
)

// newsKind is what a report shows that the log does not have yet.
type newsKind int

const (
	newsNone newsKind = iota
	// newsDiffers: something is different on the way to the record.
	newsDiffers
	// newsStatus: the record has appeared or gone.
	newsStatus
	// newsWrong: something is published that is not the record.
	newsWrong
	// newsTooMuch: it changes so often that the rest of the hour is not logged.
	newsTooMuch
)

// news is what the log has of a name that waits.
type news struct {
	known   bool // a first report was taken
	status  propagation.Status
	codes   []propagation.Code
	lacking []string
	values  []string
	found   []string

	since time.Time // begin of the window
	count int       // of changes in the window
}

// take compares a report, and what is wrong with the published values, with what is known.
// The first one is no news: it is what the wait began with.
func (n *news) take(r propagation.Report, f acmepersist.Finding, now time.Time) newsKind {
	next := news{
		known: true, status: r.Status, codes: wayCodes(r), lacking: r.Lacking(), values: r.ValuesSeen(), found: foundTexts(f),
		since: n.since, count: n.count,
	}
	kind := newsNone
	switch {
	case !n.known:
	case len(next.found) > 0 && !slices.Equal(next.found, n.found):
		kind = newsWrong
	case next.status != n.status:
		kind = newsStatus
	case !slices.Equal(next.codes, n.codes) || !slices.Equal(next.lacking, n.lacking) || !slices.Equal(next.values, n.values):
		kind = newsDiffers
	}
	*n = next
	if kind == newsNone {
		return kind
	}
	if now.Sub(n.since) >= newsWindow {
		n.since, n.count = now, 0
	}
	switch n.count++; {
	case n.count == newsMost+1:
		return newsTooMuch
	case n.count > newsMost:
		return newsNone
	}
	return kind
}

// wayCodes are the codes of what is wrong on the way to the record. What is wrong with a server
// is logged once for all names, see serverFaults.
func wayCodes(r propagation.Report) []propagation.Code {
	var codes []propagation.Code
	for _, d := range r.Diagnostics() {
		if d.Addr == "" && !slices.Contains(codes, d.Code) {
			codes = append(codes, d.Code)
		}
	}
	slices.Sort(codes)
	return codes
}

// foundTexts lists the published values with what is wrong with them.
func foundTexts(f acmepersist.Finding) []string {
	var all []string
	for _, v := range f.Values {
		all = append(all, string(v.Code)+": "+v.Reason)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// logNews logs what is new of a domain.
func (e *entry) logNews(k newsKind, r propagation.Report, f acmepersist.Finding) {
	hold, onDemand, level := e.hold, e.isOnDemand(), zapcore.InfoLevel
	switch {
	case k == newsNone:
		return
	case k == newsStatus && r.Status == propagation.StatusBlocked && e.isHeld:
		return // logWait says what to do
	case k == newsWrong, k == newsTooMuch, k == newsStatus && r.Status == propagation.StatusAbsent && e.asked != nil:
		level = zapcore.WarnLevel
	}
	write := func(l *zap.Logger) { k.write(l, levelFor(onDemand, level), hold, r, f) }
	if level == zapcore.WarnLevel {
		reason := acmepersist.ReasonWrong
		if k != newsWrong {
			reason = hold.Reason
		}
		e.registry.logOneOfMany(matter{reason, onDemand}, e.timing(), level, write)
		return
	}
	e.registry.log(write)
}

// write logs what is new of a domain that waits with a Hold.
func (k newsKind) write(logger *zap.Logger, level zapcore.Level, h *acmepersist.Hold, r propagation.Report, f acmepersist.Finding) {
	message := ""
	fields := []zap.Field{zap.String("domain", h.Domain), zap.String("name", h.Record.Name), zap.String("dns", r.Summary())}
	switch k {
	case newsNone:
		return
	case newsDiffers:
		message = "what DNS shows of a record has changed"
		fields = append(fields, zap.Any("codes", r.Codes()), zap.Strings("diagnostics", texts(r)))
	case newsStatus:
		message = "record changed in DNS"
		fields = append(fields, zap.String("status", string(r.Status)), zap.Any("codes", r.Codes()), zap.Strings("diagnostics", texts(r)))
	case newsWrong:
		message = "a TXT record is published at the validation name, and it is not the one that the CA wants"
		fields = append(fields, zap.String("code", string(f.Code)), zap.Strings("found", foundTexts(f)), zap.String("do", f.Do))
	case newsTooMuch:
		message = "what DNS shows at the validation name keeps changing; the next changes are not logged"
		fields = append(fields, zap.Int("changes", newsMost), zap.Duration("within", newsWindow))
	}
	logger.Log(level, message, fields...)
}

// logged is the wait of a domain that the log has.
type logged struct {
	reason   acmepersist.Reason
	severity Severity
}

// logWait logs why a domain waits, once: when that is another reason than before, or a certificate has
// begun to run out. Not where the reason has an entry of its own.
func (e *entry) logWait(now time.Time, hasEntry bool) {
	s := e.status()
	before, severity := e.logged, s.Severity(now)
	e.logged = logged{s.Reason, severity}
	isNew := s.Reason != before.reason || severity > before.severity
	if !isNew || hasEntry && !s.IsRunningOut(now) {
		return
	}
	level, onDemand := severity.level(), e.isOnDemand()
	e.registry.logOneOfMany(matter{s.Reason, onDemand}, e.timing(), level, func(l *zap.Logger) {
		writeWait(l, levelFor(onDemand, level), s)
	})
}

// level is that of a log entry about it.
func (s Severity) level() zapcore.Level {
	switch s {
	case SeverityWarning:
		return zapcore.WarnLevel
	case SeverityError:
		return zapcore.ErrorLevel
	}
	return zapcore.InfoLevel
}

// writeWait logs why a domain waits.
func writeWait(logger *zap.Logger, level zapcore.Level, s Status) {
	entry := logger.Check(level, "this domain has to wait for its certificate")
	if entry == nil {
		return
	}
	x := s.Explain()
	fields := []zap.Field{
		zap.String("domain", s.Domain), zap.String("ca", s.CA), zap.String("reason", string(s.Reason)), zap.String("code", x.Code), zap.String("why", x.Text),
	}
	if x.Do != "" {
		fields = append(fields, zap.String("do", x.Do))
	}
	if s.Reason == acmepersist.ReasonBlocked && s.Record.Name != "" { // it is not announced, and may have to be published
		fields = append(fields, zap.String("name", s.Record.Place()), zap.String("value", s.Record.Value))
	}
	if !s.Next.IsZero() {
		fields = append(fields, zap.Time("next_at", s.Next))
	}
	if !s.NotAfter.IsZero() {
		fields = append(fields, zap.Time("certificate_until", s.NotAfter))
	}
	entry.Write(fields...)
}

// levelFor is the level of a log entry: about what was asked for on demand nobody has to act here.
func levelFor(onDemand bool, level zapcore.Level) zapcore.Level {
	if onDemand {
		return zapcore.DebugLevel
	}
	return level
}

// texts lists what a report has beside its summary.
func texts(r propagation.Report) []string {
	var all []string
	for _, d := range r.Diagnostics()[1:] {
		all = append(all, string(d.Code)+": "+d.Text)
	}
	return all
}

const (
	// faultAgain is when a fault of a name server is logged again, if it lasts.
	faultAgain = 24 * time.Hour
	// mostFaults bounds how many are remembered: tenants choose their servers.
	mostFaults = 1024
)

// serverFaults are when faults of name servers were logged: a server has many names, and what
// is wrong with it is one fact.
type serverFaults map[serverFault]time.Time

type serverFault struct {
	addr string
	code propagation.Code
}

// news are the faults in a report that were not logged lately, and are now.
func (s serverFaults) news(report propagation.Report, now time.Time) []propagation.Diagnostic {
	var all []propagation.Diagnostic
	for _, d := range report.Diagnostics()[1:] {
		if d.Addr != "" && s.isNew(serverFault{d.Addr, d.Code}, now) {
			all = append(all, d)
		}
	}
	return all
}

// writeFault logs a fault of a name server.
func writeFault(logger *zap.Logger, d propagation.Diagnostic, zone string, onDemand bool) {
	logger.Log(levelFor(onDemand, zapcore.WarnLevel), "a name server does not answer as it should; this is logged once for all its names",
		zap.String("server", d.Host), zap.String("address", d.Addr), zap.String("zone", zone),
		zap.String("code", string(d.Code)), zap.String("diagnostic", strings.TrimSpace(d.Text)))
}

// isNew notes a fault, and reports whether it was not logged lately. Where too many are known
// the older half is forgotten.
func (s serverFaults) isNew(f serverFault, now time.Time) bool {
	if at, ok := s[f]; ok && now.Sub(at) < faultAgain {
		return false
	}
	if len(s) >= mostFaults {
		times := slices.SortedFunc(maps.Values(s), time.Time.Compare)
		middle := times[len(times)/2]
		maps.DeleteFunc(s, func(_ serverFault, at time.Time) bool { return !at.After(middle) })
	}
	s[f] = now
	return true
}
