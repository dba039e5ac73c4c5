package propagation

import (
	"math/bits"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/ask"
)

// share is whose names take turns: those of a registered domain or of a name server's
// address. Names of which a server has the record have turns of their own, for they are
// nearly ready, and so have dear names, lest cheap ones of the same domain or at the same
// provider wait behind them.
type share struct {
	of   string
	lane lane
}

type lane int

const (
	laneCheap lane = iota
	laneSeen
	laneDear
)

// dearShare is what all dear names share.
var dearShare = share{lane: laneDear}

// turn returns when it is w's turn among the names of its domain and of its servers. If that
// is later than now, it is kept for it.
func (s *Scheduler) turn(w *watch, now time.Time) time.Time {
	if w.hasTurn {
		return now
	}
	at := s.pace.Reserve(share{w.domain, w.lane()}, now, s.hold(w.last))
	for _, server := range w.servers {
		asked := 1.0
		if !w.urgent {
			asked = server.part
		}
		at = later(at, s.pace.Reserve(share{server.addr, w.lane()}, now, s.hold(asked)))
	}
	w.hasTurn = at.After(now)
	return at
}

func (w *watch) lane() lane {
	switch {
	case classOf(w.cost).isDear():
		return laneDear
	case w.urgent:
		return laneSeen
	}
	return laneCheap
}

// hold is how long a share is busy with so many questions at a server.
func (s *Scheduler) hold(questions float64) time.Duration {
	return time.Duration(questions / perServerRate * float64(time.Second))
}

// holdDear counts what dear names use, who have half of all questions.
func (s *Scheduler) holdDear(now time.Time, questions float64) {
	s.pace.Hold(dearShare, now, time.Duration(2*questions/globalRate*float64(time.Second)))
}

// maxDear is how many workers dear names may have.
const maxDear = maxWorkers / 2

// watchOver calls over once j has waited for servers for longer than a cheap poll may wait.
func (s *Scheduler) watchOver(j *job, spent *ask.Account) {
	left := patience - spent.Usage().Waited
	if left <= 0 {
		s.over(j)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !j.ended && !j.done {
		j.timer = time.AfterFunc(left, func() { s.watchOver(j, spent) })
	}
}

// over turns a poll that takes more than was expected of its name into a dear one. Where dear
// names have all that they may have, it ends, and its name waits among them.
func (s *Scheduler) over(j *job) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if j.dear || j.ended || j.done {
		return
	}
	if s.dear < maxDear {
		s.dear++
		j.dear = true
		return
	}
	j.ended = true
	j.cancel()
}

// settle accounts for a poll that used so much at such a cost, and reports whether it counts.
func (s *Scheduler) settle(j *job, used, cost float64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	w, now := j.watch, time.Now()
	j.done = true
	more := used - j.expected
	s.due.Charge(j.class, more)
	s.pace.Hold(share{w.domain, w.lane()}, now, s.hold(cost-w.last))
	switch {
	case j.class.isDear():
		s.holdDear(now, more)
	case j.dear:
		s.holdDear(now, used)
	}
	w.used, w.last = used, cost
	if w.polls > 0 {
		cost = (w.cost + cost) / 2
	}
	switch turned := j.dear && !j.class.isDear(); {
	case turned || j.ended:
		cost = max(cost, dearCost)
	case j.dear:
		// It takes some cheap polls to be a cheap name again, or names that are dear at every
		// other one would have the share of cheap ones.
		cost = max(cost, w.cost*7/8)
	}
	w.cost = cost
	return !j.ended
}

// polled is a server that a name's polls ask: at the name, or behind its alias.
type polled struct {
	addr string
	part float64 // of the polls that ask one server, those that ask it
}

// note takes from a report which servers the name has. Every one of them counts: if one did
// not, names that differ in all others would wait for it with a worker each.
func (w *watch) note(rep Report) {
	at := make(map[string]int) // how many servers a name on the way has
	for _, s := range rep.Servers {
		if s.Addr != "" {
			at[s.Name]++
		}
	}
	w.servers = make([]polled, 0, len(rep.Servers))
	for _, s := range rep.Servers {
		if s.Addr != "" {
			w.servers = append(w.servers, polled{s.Addr, 1 / float64(at[s.Name])})
		}
	}
}

// What time and text count for, in questions. An honest server answers in freeTime; in a second
// beyond it a worker could have asked three, at globalRate with maxWorkers. Who keeps
// a worker for longer than patience is dear, however little is asked.
const (
	freeTime           = 250 * time.Millisecond
	questionsPerSecond = 4
	octetsPerQuestion  = 4 << 10
	patience           = time.Second
)

// maxCheap is how many questions a poll may send before it counts as a dear one. A zone with 13
// servers and an alias takes fewer.
const maxCheap = 48

// costOfAll is what was taken of what all names share, in questions.
func costOfAll(u ask.Usage) float64 {
	return float64(u.Servers+u.Resolvers) + costOfTime(u) + costOfText(u)
}

// costOf is how dear a name is, to be compared with others. Questions to name servers count for
// each of the servers asked at the name, so that a look at all of them is no dearer than one
// at a single one; those to resolvers count a quarter, for they are asked only where a zone
// is not known.
func costOf(u ask.Usage, servers int) float64 {
	cost := costOfQuestions(u, servers) + costOfTime(u)
	if u.Waited >= patience {
		cost = max(cost, 2*dearCost)
	}
	return cost
}

// costOfQuestions is costOf without the time that they took.
func costOfQuestions(u ask.Usage, servers int) float64 {
	return (float64(u.Servers)+float64(u.Resolvers)/4)/float64(max(servers, 1)) + costOfText(u)
}

func costOfTime(u ask.Usage) float64 { return questionsPerSecond * max(u.Waited-freeTime, 0).Seconds() }
func costOfText(u ask.Usage) float64 { return float64(u.Octets / octetsPerQuestion) }

// class holds names of about the same cost: 0 those below two questions a poll, 1 those below
// four, and so on.
type class int

const (
	firstDear class = 3 // eight questions, or a second
	lastClass class = 7
)

// dearCost is the least cost of a dear name.
const dearCost = 1 << firstDear

// unknownCost is that of a name that nobody has asked for.
const unknownCost = dearCost / 2

func classOf(cost float64) class {
	return min(class(max(bits.Len(uint(cost))-1, 0)), lastClass)
}

func (c class) isDear() bool { return c >= firstDear }
