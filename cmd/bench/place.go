package main

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

const (
	// jobs is how many attempts CertMagic makes at a time.
	jobs = 1000
	// longest is how long is waited for names that have their record, at most.
	longest = 24 * time.Hour
)

// place is one process's names, and what watches them, as the plugin does.
type place struct {
	world     *world
	checker   *propagation.Checker
	scheduler *propagation.Scheduler
	order     []int // names that have no record yet, in a random order that is always the same
	beside    []int // the same for those that have zones of their own
	stop      []func()

	heap     uint64 // before there were names
	polling  load   // of all observations
	patience time.Duration

	mu        sync.Mutex
	published time.Time
	took      map[int]time.Duration
}

func newPlace(names, zones, beside int) (*place, error) {
	w, err := newWorld(names, zones, beside)
	if err != nil {
		return nil, err
	}
	p := newPlaceIn(w, propagation.Config{Resolvers: []string{resolver}, Exchanger: w})
	p.order = rand.New(rand.NewPCG(1, 2)).Perm(names)
	for i := range beside {
		p.beside = append(p.beside, names+i)
	}
	p.heap = heapInUse()
	return p, nil
}

// newPlaceIn is a place for all names of a world.
func newPlaceIn(w *world, c propagation.Config) *place {
	return &place{
		world:     w,
		checker:   propagation.NewChecker(c),
		scheduler: propagation.NewScheduler(propagation.SchedulerConfig{}),
		stop:      make([]func(), len(w.visible)),
		took:      make(map[int]time.Duration),
		patience:  longest,
	}
}

func (p *place) close() { p.scheduler.Close() }

func heapInUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// perName is the memory that each name takes, with what is known of its zone.
func (p *place) perName() int64 {
	n := (int64(heapInUse()) - int64(p.heap)) / int64(len(p.stop))
	runtime.KeepAlive(p)
	return n
}

// cpu is the load of all observations together.
func (p *place) cpu() float64 { return p.polling.share() }

// begin has the first look at all names, as many at a time as CertMagic has jobs,
// and leaves them to the scheduler.
func (p *place) begin() load {
	return p.measure(func() int {
		todo := make(chan int)
		var wg sync.WaitGroup
		for range min(jobs, len(p.stop)) {
			wg.Go(func() {
				for i := range todo {
					p.watch(i)
				}
			})
		}
		busy := 0
		for i := range p.stop {
			todo <- i
			if i%100 == 0 {
				busy = max(busy, runtime.NumGoroutine())
			}
		}
		close(todo)
		wg.Wait()
		return busy
	})
}

// watch does with a name what an attempt does that finds no record.
func (p *place) watch(i int) {
	host := p.world.host(i)
	target := propagation.Target{Name: record.Label + "." + host, Host: host, Accept: accept}
	gate := p.checker.NewGate()
	p.checker.Check(context.Background(), target, gate)
	stop := p.scheduler.Watch(host, p.checker, target, gate, func(r propagation.Report) {
		if r.Status == propagation.StatusReady {
			p.ready(i)
		}
	})
	p.mu.Lock()
	p.stop[i] = stop
	p.mu.Unlock()
}

func accept(values []string) (good bool, reason string) {
	want := wantOf(record.DialectAccountURL)
	if record.Evaluate(values, want, time.Now()).Good() {
		return true, ""
	}
	return false, "no value fits"
}

// ready takes a name whose record stands everywhere.
func (p *place) ready(i int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stop[i] == nil {
		return
	}
	p.took[i] = time.Since(p.published)
	p.stop[i]()
	p.stop[i] = nil
}

// observe lets some time pass.
func (p *place) observe(d time.Duration) load {
	l := p.measure(func() int {
		busy := 0
		end := time.Now().Add(d)
		for left := d; left > 0; left = time.Until(end) {
			time.Sleep(min(left, time.Second))
			busy = max(busy, runtime.NumGoroutine())
		}
		return busy
	})
	p.polling.took += l.took
	p.polling.cpu += l.cpu
	return l
}

func (p *place) queries() int64 { return p.world.txt.Load() + p.world.discovery.Load() }

func (p *place) measure(fn func() (goroutines int)) load {
	start, used, asked := time.Now(), cpuTime(), p.queries()
	busy := fn()
	return load{queries: p.queries() - asked, took: max(time.Since(start), time.Nanosecond), cpu: cpuTime() - used, goroutines: busy}
}

// news is how long it took until the records of so many names were noticed.
type news struct {
	names int
	took  []time.Duration
}

// take takes the first so many names off the list.
func take(list *[]int, names int) []int {
	some := (*list)[:names]
	*list = (*list)[names:]
	return some
}

// publish makes the records of the names in all groups visible on both servers, and
// waits until they are ready.
func (p *place) publish(groups ...[]int) []news {
	p.mu.Lock()
	clear(p.took)
	p.published = time.Now()
	p.mu.Unlock()
	all := 0
	for _, g := range groups {
		all += len(g)
		for _, i := range g {
			p.world.visible[i].Store(true)
		}
	}
	ready := func() int {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.took)
	}
	for time.Since(p.published) < p.patience && ready() < all {
		time.Sleep(100 * time.Millisecond)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	result := make([]news, len(groups))
	for n, g := range groups {
		result[n].names = len(g)
		for _, i := range g {
			if took, ok := p.took[i]; ok {
				result[n].took = append(result[n].took, took)
			}
		}
	}
	return result
}
