package events

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/parking"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

const (
	// mostPerRecord is how many events about one record there may be in perRecordWindow. Its owner, or servers
	// that differ, may change it at every look; the last of what was too much is one event then.
	mostPerRecord   = 6
	perRecordWindow = time.Hour
	// rememberFor is how long a record is remembered that no domain waits for: a wait that begins again is no
	// news. It is more than two daily looks at the record, which come up to 25 hours apart.
	rememberFor = 72 * time.Hour
	sweepEvery  = time.Hour
	// mostRemembered bounds how many are remembered.
	mostRemembered = 50000
)

// state is the state of a record, the worse the greater.
type state int

const (
	stateUnknown state = iota
	stateComplete
	// stateComing: some servers show it, or all for too short a time.
	stateComing
	stateNeeded
	// stateGone: it was published, and a certificate is renewed by it.
	stateGone
	stateWrong
)

// names are those of the events.
var names = map[state]string{
	stateComplete: RecordComplete, stateNeeded: RecordNeeded, stateGone: RecordGone, stateWrong: RecordWrong,
}

// view is the state of a record for one domain: what is good for a domain need not be for its wildcard.
type view struct {
	state state
	code  string
}

// tracked is a record that domains need, with what was reported of it.
type tracked struct {
	recordKey
	account string
	views   map[string]view // by domain that waits
	// missed is what the last look at a published record has found to be wrong with it, for the domains with
	// a certificate that are in missedBy; both are zero if nothing is.
	missed   view
	missedBy []string
	// domains are those that have needed it.
	domains []string
	// reported is the last one that somebody had to know.
	reported view
	// recent are the times of its events, held the one that has to wait for the bound.
	recent []time.Time
	held   *event
	// ends is the end of the record that was reported.
	ends       time.Time
	seen       time.Time
	isOnDemand bool
}

// recordKey is what a record is. A domain and its wildcard share it.
type recordKey struct{ ca, name, value string }

// tracker turns where domains are into events: one for each record and state.
type tracker struct {
	records map[recordKey]*tracked
	// byDomain are the records of each domain, the one that it needed last at the end.
	byDomain map[string][]*tracked
	// held are those with an event that has to wait.
	held    map[*tracked]bool
	lost    map[string]bool // accounts, with their CA
	sweepAt time.Time
	// emit takes the events.
	emit func(*event)
}

func newTracker(emit func(*event)) *tracker {
	return &tracker{
		records: make(map[recordKey]*tracked), byDomain: make(map[string][]*tracked), held: make(map[*tracked]bool), lost: make(map[string]bool), emit: emit,
	}
}

// record is the tracked record with a key.
func (t *tracker) record(key recordKey, now time.Time) *tracked {
	r := t.records[key]
	if r == nil {
		t.sweep(now)
		r = &tracked{recordKey: key, views: make(map[string]view, 1)}
		t.records[key] = r
	}
	r.seen = now
	return r
}

// of has a record be the one that a domain needs.
func (t *tracker) of(domain string, r *tracked) {
	others := t.byDomain[domain]
	if n := len(others); n > 0 && others[n-1] == r {
		return
	}
	t.byDomain[domain] = append(slices.DeleteFunc(others, func(o *tracked) bool { return o == r }), r)
	if !slices.Contains(r.domains, domain) {
		r.domains = append(r.domains, domain)
	}
}

// update takes where a domain is.
func (t *tracker) update(domain string, statuses []parking.Status, now time.Time) {
	var needed []*tracked
	for i, s := range statuses {
		if s.Record == (acmepersist.Record{}) {
			continue
		}
		r := t.record(recordKey{s.CA, s.Record.Name, s.Record.Value}, now)
		t.of(domain, r)
		needed = append(needed, r)
		r.account, r.isOnDemand = s.Account, s.IsOnDemand
		if v := viewOf(&statuses[i]); v.state != stateUnknown {
			r.views[domain] = v
			r.found(domain) // its wait knows better
			t.judge(r, v, &event{status: &statuses[i]}, now)
		} else if _, known := r.views[domain]; !known {
			r.views[domain] = v
		}
	}
	for _, r := range slices.Backward(slices.Clone(t.byDomain[domain])) {
		if slices.Contains(needed, r) {
			continue
		}
		delete(r.views, domain)
		isAccepted := isServed(statuses, r.ca) && !slices.ContainsFunc(needed, func(o *tracked) bool { return o.ca == r.ca })
		if isAccepted {
			r.found(domain)
		}
		switch {
		case len(r.views) > 0 || r.missed != view{}:
			t.judge(r, view{}, &event{}, now)
		case isAccepted:
			t.report(r, view{state: stateComplete}, &event{domains: []string{domain}}, now)
			return // the others are of former records
		case r.isOnDemand:
			t.forget(r)
		}
	}
}

// isServed reports whether a domain has a certificate of a CA, and waits for none.
func isServed(statuses []parking.Status, ca string) bool {
	return slices.ContainsFunc(statuses, func(s parking.Status) bool {
		return s.Phase == parking.PhaseServed && s.Issuer == acmepersist.IssuerKey(ca)
	})
}

// viewOf is the state of the record for a domain that waits. What is not known of it changes nothing.
func viewOf(s *parking.Status) view {
	switch {
	case s.IsComplete():
		return view{state: stateComplete}
	case s.Reason == acmepersist.ReasonWrong:
		return view{stateWrong, s.Explain().Code}
	case s.Reason == acmepersist.ReasonPartial, s.Reason == acmepersist.ReasonConfirming:
		return view{state: stateComing}
	case s.Reason == acmepersist.ReasonAbsent, s.Reason == acmepersist.ReasonPublish,
		s.Report != nil && s.Report.Status == propagation.StatusAbsent:
		return view{state: stateNeeded}
	}
	return view{}
}

// found has a record be no longer missed by a domain.
func (r *tracked) found(domain string) {
	r.missedBy = slices.DeleteFunc(r.missedBy, func(other string) bool { return other == domain })
	if len(r.missedBy) == 0 {
		r.missed = view{}
	}
}

// judge reports the state of a record if that is news: the worst that it is in for any domain. The event may
// have something that explains one state.
func (t *tracker) judge(r *tracked, explained view, e *event, now time.Time) {
	worst := r.missed
	for _, v := range r.views {
		if v.state > worst.state || v.state == worst.state && v.code > worst.code {
			worst = v
		}
	}
	for domain, v := range r.views {
		if v.state == worst.state {
			e.domains = append(e.domains, domain)
		}
	}
	if r.missed.state == worst.state {
		e.domains = append(e.domains, r.missedBy...)
	}
	if explained != worst {
		e.status, e.notice = nil, nil
	}
	t.report(r, worst, e, now)
}

// report reports the state of a record, if that is news.
func (t *tracker) report(r *tracked, v view, e *event, now time.Time) {
	was := r.reported
	switch {
	case v.state == stateUnknown, v.state == stateComing, v == was:
		return
	case v.state == stateNeeded && was.state == stateGone:
		return // that was the same
	}
	r.reported = v
	if v.state == stateComplete && was.state < stateNeeded && !e.isBack() {
		return // nobody was asked for it
	}
	e.name, e.code = names[v.state], v.code
	t.about(r, e, now)
}

// about adds an event about a record, within its bound.
func (t *tracker) about(r *tracked, e *event, now time.Time) {
	e.record, e.onDemand = r, r.isOnDemand
	r.recent = slices.DeleteFunc(r.recent, func(at time.Time) bool { return now.Sub(at) >= perRecordWindow })
	if r.held == nil && len(r.recent) < mostPerRecord {
		r.recent = append(r.recent, now)
		t.emit(e)
		return
	}
	if r.held != nil {
		e.count = max(r.held.count, 1) + 1
	}
	r.held, t.held[r] = e, true
}

// release adds the events whose bound has passed, and returns when the next one's does; zero if there is none.
func (t *tracker) release(now time.Time) (next time.Time) {
	for r := range t.held {
		if at := r.recent[0].Add(perRecordWindow); at.After(now) {
			if next.IsZero() || at.Before(next) {
				next = at
			}
			continue
		}
		e := r.held
		r.held, r.recent = nil, append(r.recent[1:], now)
		delete(t.held, r)
		t.emit(e)
	}
	return next
}

// notice takes what an issuer has found.
func (t *tracker) notice(n acmepersist.Notice, now time.Time) {
	e := &event{notice: &n, domains: slices.Clone(n.Domains)}
	key := recordKey{n.CA, n.Record.Name, n.Record.Value}
	switch n.Kind {
	case acmepersist.NoticeGone:
		t.looked(key, view{stateGone, cmp.Or(string(n.Finding.Code), "record_absent")}, e, now)
	case acmepersist.NoticeNeeded:
		t.looked(key, view{state: stateNeeded}, e, now)
	case acmepersist.NoticeFound:
		if t.records[key] != nil || n.WasMissing { // else it is as it has ever been
			t.looked(key, view{state: stateComplete}, e, now)
		}
	case acmepersist.NoticeEnding:
		if r := t.record(key, now); !r.ends.Equal(n.Ends) {
			r.ends = n.Ends
			e.name = RecordEnding
			t.about(r, e, now)
		}
	case acmepersist.NoticePublished:
		r := t.record(key, now)
		r.isOnDemand = n.OnDemand
		e.name = RecordPublished
		t.about(r, e, now)
	case acmepersist.NoticeCAChanged:
		e.name = CAChanged
		t.emit(e)
	case acmepersist.NoticeAccountLost:
		if account := n.CA + " " + n.Account; !t.lost[account] {
			t.lost[account] = true
			e.name = AccountLost
			t.emit(e)
		}
	case acmepersist.NoticeAccountUsable:
		delete(t.lost, n.CA+" "+n.Account)
		delete(t.lost, n.CA+" ") // it was not known which
	}
}

// looked takes what a look at a published record has found. It was for the domains of the notice, which are all that
// are renewed by the record: what a wildcard waits for may be wrong while it is good for the domain.
func (t *tracker) looked(key recordKey, v view, e *event, now time.Time) {
	r := t.record(key, now)
	r.isOnDemand = e.notice.OnDemand
	for _, domain := range e.domains {
		t.of(domain, r)
	}
	// a domain that waits is known from its wait
	r.missed, r.missedBy = view{}, slices.DeleteFunc(e.domains, func(domain string) bool { return r.views[domain].state != stateUnknown })
	if len(r.missedBy) > 0 {
		r.missed = v
	}
	e.domains = nil
	t.judge(r, v, e, now)
	if v.state == stateComplete {
		r.missed, r.missedBy = view{}, nil
	}
}

// sweep forgets records that no domain has waited for for long and that are not missed, now and then, and others if
// there are too many.
func (t *tracker) sweep(now time.Time) {
	isFull := len(t.records) >= mostRemembered
	if now.Before(t.sweepAt) && (!isFull || now.Before(t.sweepAt.Add(time.Minute-sweepEvery))) {
		return
	}
	t.sweepAt = now.Add(sweepEvery)
	for _, r := range slices.Collect(maps.Values(t.records)) {
		if len(r.views) == 0 && r.held == nil && (isFull || r.missed == view{} && now.Sub(r.seen) >= rememberFor) {
			t.forget(r)
		}
	}
}

func (t *tracker) forget(r *tracked) {
	delete(t.records, r.recordKey)
	delete(t.held, r)
	for _, domain := range r.domains {
		if others := slices.DeleteFunc(t.byDomain[domain], func(o *tracked) bool { return o == r }); len(others) > 0 {
			t.byDomain[domain] = others
		} else {
			delete(t.byDomain, domain)
		}
	}
}
