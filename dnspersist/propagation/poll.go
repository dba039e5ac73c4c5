package propagation

import (
	"container/heap"
	"context"
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
	rep, ok := s.poll(j)
	if !ok {
		return
	}
	// Reported before it is queued again, so never twice at a time.
	if notify := s.note(j, rep); notify != nil {
		notify(rep)
	}
}

// poll asks, and has the gate observe it. A look that was cut short, by Close or as it took too much, does
// not count. Where those that lacked the record cannot all be asked again, for they were taken
// off the delegation or are behind a zone above that has to be asked first, all are: else
// nothing would be heard, and the old "no" would stay.
func (s *Scheduler) poll(j *job) (Report, bool) {
	spent := &ask.Account{Limiter: s.limiter, Sent: func(all int64) {
		if all > maxCheap {
			s.over(j)
		}
	}}
	ctx, cancel := context.WithTimeout(spent.ChargeTo(s.ctx), pollTimeout)
	defer cancel()
	j.cancel = cancel
	s.watchOver(j, spent)
	var r Round
	if len(j.again) > 0 {
		r = j.checker.lookAgain(ctx, j.target, j.again)
		if r.Err == nil && !asked(r, j.again) {
			j.again = nil
			r = j.checker.Look(ctx, j.target)
		}
	} else if j.nth < 0 {
		r = j.checker.Look(ctx, j.target)
	} else {
		r = j.checker.glance(ctx, j.target, j.nth)
	}
	if s.ctx.Err() != nil {
		return Report{}, false
	}
	taken := spent.Usage()
	j.watch.questions = int(taken.Servers)
	if counts := s.settle(j, costOfAll(taken), costOf(taken, r.askedAtName())); !counts {
		return Report{}, false
	}
	j.watch.gate.Observe(r)
	return j.watch.gate.Report(), true // which is what may be kept
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
	s.wakeUp()
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
