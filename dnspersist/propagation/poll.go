package propagation

import (
	"container/heap"
	"context"
	"math/bits"
	"runtime/debug"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/ask"
)

// job is one poll.
type job struct {
	watch   *watch
	checker *Checker
	target  Target
	nth     int // server to ask, all if negative
	// again are the addresses to ask, if there are any: those that lacked the record.
	again []string
	// anew has the way to the record found anew; mayMove that it is if a server is no longer responsible.
	anew, mayMove bool

	class    class
	expected float64 // what it is expected to use
	dear     bool    // it counts as one of a dear name
	ended    bool    // it was, as it took too much
	cancel   context.CancelFunc
	timer    *time.Timer // calls watchOver
	done     bool        // nobody is asked any more
}

func (s *Scheduler) work(j *job) {
	defer s.requeue(j)
	defer s.recovered(j)
	rep, is := s.poll(j)
	switch is {
	case pollVoid:
	case pollSame:
		s.noteSame(j)
	case pollNews:
		// Reported before it is queued again, so never twice at a time.
		if notify := s.note(j, rep); notify != nil {
			notify(rep)
		}
	}
}

// What came of a poll.
const (
	pollVoid = iota // it does not count
	pollSame        // nothing is new
	pollNews        // the gate has observed it
)

// poll asks, and has the gate observe it. A look that was cut short, by Close or as it took too much, does
// not count. Where those that lacked the record cannot all be asked again, for they were taken
// off the delegation or are behind a zone above that has to be asked first, all are: else
// nothing would be heard, and the old "no" would stay.
func (s *Scheduler) poll(j *job) (Report, int) {
	spent := &ask.Account{Limiter: s.limiter, Sent: func(all int64) {
		if all > maxCheap {
			s.over(j)
		}
	}}
	ctx, cancel := context.WithTimeout(spent.ChargeTo(s.ctx), pollTimeout)
	defer cancel()
	j.cancel = cancel
	s.watchOver(j, spent)
	r, isSame, isAnew := j.ask(ctx)
	if s.ctx.Err() != nil {
		return Report{}, pollVoid
	}
	taken := spent.Usage()
	w := j.watch
	w.questions = int(taken.Servers)
	if counts := s.settle(j, costOfAll(taken), costOf(taken, r.askedAtName())); !counts {
		return Report{}, pollVoid
	}
	if isAnew {
		w.found = r.When
	}
	if isSame {
		w.gate.unchanged(r.When)
		return Report{}, pollSame
	}
	w.gate.Observe(r)
	return w.gate.Report(), pollNews // which is what may be kept
}

// noteSame is note for a poll after which all is as it was.
func (s *Scheduler) noteSame(j *job) {
	s.mu.Lock()
	defer s.mu.Unlock()
	j.watch.polls++
	j.watch.due = s.next(j.watch, Report{}, time.Now())
}

// note draws the conclusions for the schedule, and returns whom to notify.
func (s *Scheduler) note(j *job, rep Report) func(Report) {
	w := j.watch
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	was := w.status
	w.status = rep.Status
	w.polls++
	seen := !rep.FirstYes.IsZero()
	firstYes := seen && !w.urgent
	if firstYes || (was == StatusReady && rep.Status != StatusReady) {
		w.event(now)
	}
	w.urgent = seen
	w.note(rep)
	before := len(w.missing)
	w.missing = missing(rep)
	w.due = s.next(w, rep, now)
	if firstYes && j.nth >= 0 || len(j.again) > 0 && len(w.missing) < before {
		w.due, w.missing = now, nil // all at once
	}
	codes, lacking := rep.Codes(), rep.Lacking()
	news := was != rep.Status || rep.Status == StatusReady || !slices.Equal(codes, w.codes) || !slices.Equal(lacking, w.lacking) ||
		!slices.Equal(rep.ValuesSeen(), w.values)
	w.codes, w.lacking, w.values = codes, lacking, rep.ValuesSeen()
	if s.watches[w.key] != w || !news {
		return nil
	}
	return w.notify
}

// requeue gives w its place by its due time again, unless it was stopped.
func (s *Scheduler) requeue(j *job) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := j.watch
	j.done = true
	if j.timer != nil {
		j.timer.Stop()
	}
	s.active--
	if j.dear {
		s.dear--
	}
	w.asked = false
	if s.watches[w.key] == w {
		if w.poked {
			w.poked, w.urgent, w.missing = false, true, nil
			w.due = later(time.Now(), w.gate.Report().NextLookNotBefore)
		}
		heap.Push(&s.queue, w)
	}
	s.wakeUp(w.due)
}

// recovered keeps a panic in a target's or a watcher's function from ending
// the process.
func (s *Scheduler) recovered(j *job) {
	if p := recover(); p != nil {
		j.checker.logger.Error("panic while polling a validation name",
			zap.String("watch", j.watch.key), zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
		s.mu.Lock()
		j.watch.due = time.Now().Add(s.cfg.MaxInterval)
		s.mu.Unlock()
	}
}

// Lacking lists the servers without the record, each "host ip:port", sorted, while others have it: nil in every
// other state. The first report after a look at a single server may be wrong about the others.
func (r Report) Lacking() []string {
	if r.Status != StatusPartial {
		return nil
	}
	var all []string
	for _, s := range r.Servers {
		if s.Verdict != VerdictYes {
			all = append(all, s.Host+" "+s.Addr)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// asked reports whether all addrs were asked in r.
func asked(r Round, addrs []string) bool {
	return !slices.ContainsFunc(addrs, func(addr string) bool {
		return !slices.ContainsFunc(r.Servers, func(s ServerReport) bool { return s.Addr == addr })
	})
}

// missing lists the addresses that lack the record while others have it: the others need
// not be asked again before these have it, too. With a CNAME on the way all are asked.
func missing(rep Report) []string {
	if rep.Status != StatusPartial || rep.Mode == ModeRecursive {
		return nil
	}
	var addrs []string
	for _, s := range rep.Servers {
		switch {
		case s.Alias != "":
			return nil
		case s.Verdict != VerdictYes && s.Addr != "":
			addrs = append(addrs, s.Addr)
		}
	}
	return addrs
}

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

// holdDear counts what dear names use.
func (s *Scheduler) holdDear(now time.Time, questions float64) {
	s.pace.Hold(dearShare, now, time.Duration(questions/dearRate*float64(time.Second)))
}

// maxDear is how many workers dear names may have.
const maxDear = 16

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
