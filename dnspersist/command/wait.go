package command

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/operator"
)

const (
	// mostInFull is how many names get lines of their own while they are waited for; of more there
	// are counts.
	mostInFull = 20
	// thoroughWait is for how many names every look finds out what is wrong, such as a record at
	// another name: nobody who waits for one name sits through an hour because of it.
	thoroughWait = 5
)

// waiting is what is known of the names that are waited for.
type waiting struct {
	*looks
	states map[string]acmepersist.State
	seen   map[string]string // what was reported of a name
	// heldBack is why Caddy does not obtain the certificates, by name.
	heldBack map[string][]operator.NameStatus
}

// wait looks again at those that are not ok or held until none is, or the time is over.
func (l *looks) wait() error {
	limit, err := l.cmd.Flags().GetDuration("timeout")
	if err != nil {
		return err
	}
	w := &waiting{looks: l, states: make(map[string]acmepersist.State), seen: make(map[string]string), heldBack: make(map[string][]operator.NameStatus)}
	open := l.checks
	for began := time.Now(); ; {
		var still []acmepersist.Wanted
		var changed []acmepersist.Checked
		err := l.at(open, len(l.checks) <= thoroughWait, func(c acmepersist.Checked) {
			holds := slices.DeleteFunc(l.holds(c), func(n operator.NameStatus) bool { return !n.IsHeld() })
			if w.heldBack[keyOf(c.Wanted)] = holds; !c.State.IsOK() || len(holds) > 0 {
				still = append(still, c.Wanted)
			}
			if w.isNews(c) {
				changed = append(changed, c)
			}
		})
		if err != nil {
			return err
		}
		isFirst := w.counts == ""
		w.counts = w.count() + "; "
		w.report(changed, isFirst)
		open = still
		waited := time.Since(began)
		if len(open) == 0 || waited >= limit {
			return nil
		}
		// a tenth of what was waited, and no more than 50 names a second
		pause := max(waited/10, 2*time.Second, time.Duration(len(open))*time.Second/50)
		pause = min(pause, time.Minute+time.Duration(len(open))*time.Second/50, limit-waited)
		if !w.pause(time.Now().Add(pause), func() {
			l.progress("%swaited %s of %s", w.counts, time.Since(began).Round(time.Second), limit)
		}) {
			return fmt.Errorf("interrupted while waiting: %s", strings.TrimSuffix(w.counts, "; "))
		}
	}
}

// pause waits until then, showing every second how far it is; false if somebody has interrupted it.
func (l *looks) pause(until time.Time, show func()) bool {
	clock := time.NewTicker(time.Second)
	defer clock.Stop()
	over := time.NewTimer(time.Until(until))
	defer over.Stop()
	for {
		show()
		select {
		case <-over.C:
			return true
		case <-clock.C:
		case <-l.Done():
			return false
		}
	}
}

// isNews notes what a name has come to, and reports whether a person has to know. The rest of a
// report changes from look to look: times, serials, how long a server was silent.
func (w *waiting) isNews(c acmepersist.Checked) bool {
	w.states[keyOf(c.Wanted)] = c.State
	now := string(c.State)
	for _, v := range c.Published {
		now += fmt.Sprintf(" %q %s", v.Value, v.Code)
	}
	for _, s := range c.Report.Servers {
		now += " " + s.Host + s.Addr + string(s.Verdict)
	}
	if c.State != acmepersist.StatePartial && c.State != acmepersist.StateBlocked {
		now += c.Do
	}
	for _, n := range w.heldBack[keyOf(c.Wanted)] {
		now += " " + n.Domain + n.Code
	}
	isNew := w.seen[keyOf(c.Wanted)] != now
	w.seen[keyOf(c.Wanted)] = now
	return isNew
}

// report reports what has changed: each name with what to do, and where there are many their
// number.
func (w *waiting) report(changed []acmepersist.Checked, isFirst bool) {
	areMany := len(w.checks) > mostInFull
	switch {
	case w.flag("quiet") || len(changed) == 0:
	case areMany && isFirst:
		w.looks.report("%d names: %s", len(w.checks), w.count())
	case len(changed) > mostInFull:
		w.looks.report("%d names have changed: %s", len(changed), w.count())
	default:
		for _, c := range changed {
			w.looks.report("%s: %s", c.Name, paint(w.err, colourOf(c.State), string(c.State)))
			if c.Do != "" {
				wrap(w.err, columnsOf(w.err), "    ", foreign.Line(c.Do))
			}
			for _, n := range w.heldBack[keyOf(c.Wanted)] {
				wrap(w.err, columnsOf(w.err), "    ", strings.TrimSuffix(foreign.Text(n.Domain)+": held, "+foreign.Text(n.Code)+": "+foreign.Line(n.Do), ": "))
			}
		}
		if areMany && !canOverwrite(w.err) { // else the line of progress shows it
			w.looks.report("%d names: %s", len(w.checks), w.count())
		}
	}
}

// count counts the names by their states.
func (w *waiting) count() string {
	of := make(map[acmepersist.State]int)
	for _, s := range w.states {
		of[s]++
	}
	var all []string
	for _, s := range []acmepersist.State{
		acmepersist.StateGood, acmepersist.StateDepends, acmepersist.StatePartial, acmepersist.StateMissing,
		acmepersist.StateWrong, acmepersist.StateBlocked, acmepersist.StateForbidden,
	} {
		if of[s] > 0 {
			all = append(all, fmt.Sprintf("%d %s", of[s], s))
		}
	}
	held := 0
	for _, holds := range w.heldBack {
		if len(holds) > 0 {
			held++
		}
	}
	if held > 0 {
		all = append(all, fmt.Sprintf("%d held", held))
	}
	return strings.Join(all, ", ")
}
