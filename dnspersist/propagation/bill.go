package propagation

import (
	"context"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// bill counts what a poll or a look takes, retransmissions included. A nil bill counts
// nothing.
type bill struct {
	servers   atomic.Int64 // questions to name servers
	resolvers atomic.Int64 // questions to resolvers
	octets    atomic.Int64 // of answers over TCP
	// over is called when there are more questions than a cheap poll may ask. It may be nil.
	over func()

	mu     sync.Mutex
	active int // questions that wait for a server
	since  time.Time
	busy   time.Duration
}

// begin and end enclose the time in which a question waits for a server. That it waits since
// much is asked by others is not its name's fault.
func (b *bill) begin() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.active++; b.active == 1 {
		b.since = time.Now()
	}
}

func (b *bill) end() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.active--; b.active == 0 {
		b.busy += time.Since(b.since)
	}
}

// took is for how long servers were waited for until now.
func (b *bill) took() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.active > 0 {
		return b.busy + time.Since(b.since)
	}
	return b.busy
}

// What time and text count for, in questions. An honest server answers in freeTime; in a second
// beyond it a worker could have asked three, with the defaults of [SchedulerConfig]. Who keeps
// a worker for longer than patience is dear, however little is asked.
const (
	freeTime           = 250 * time.Millisecond
	questionsPerSecond = 4
	octetsPerQuestion  = 4 << 10
	patience           = time.Second
)

// maxCheap is how many questions a poll may ask before it counts as a dear one. A zone with 13
// servers and an alias takes fewer.
const maxCheap = 48

func (b *bill) question(resolver bool) {
	if b == nil {
		return
	}
	if resolver {
		b.resolvers.Add(1)
	} else {
		b.servers.Add(1)
	}
	if b.over != nil && b.servers.Load()+b.resolvers.Load() > maxCheap {
		b.over()
	}
}

func (b *bill) answer(octets int) {
	if b != nil {
		b.octets.Add(int64(octets))
	}
}

// used is what was taken of what all names share, in questions.
func (b *bill) used() float64 {
	return float64(b.servers.Load()+b.resolvers.Load()) + b.time() + b.text()
}

// cost is how dear a name is, to be compared with others. Questions to name servers count for
// each of the servers asked at the name, so that a look at all of them is no dearer than one
// at a single one; those to resolvers count a quarter, for they are asked only where a zone
// is not known.
func (b *bill) cost(servers int) float64 {
	cost := b.costOfQuestions(servers) + b.time()
	if b.took() >= patience {
		cost = max(cost, 2*dearCost)
	}
	return cost
}

// costOfQuestions is cost without the time that they took.
func (b *bill) costOfQuestions(servers int) float64 {
	questions := float64(b.servers.Load()) + float64(b.resolvers.Load())/4
	return questions/float64(max(servers, 1)) + b.text()
}

func (b *bill) time() float64 { return questionsPerSecond * max(b.took()-freeTime, 0).Seconds() }
func (b *bill) text() float64 { return float64(b.octets.Load() / octetsPerQuestion) }

type billKey struct{}

// withBill has what is asked under ctx counted by b.
func withBill(ctx context.Context, b *bill) context.Context {
	return context.WithValue(ctx, billKey{}, b)
}

func billOf(ctx context.Context) *bill {
	b, _ := ctx.Value(billKey{}).(*bill)
	return b
}

// class holds names of about the same cost: 0 those below two questions a poll, 1 those below
// four, and so on.
type class int

const (
	firstDear class = 3 // eight questions, or a second
	lastClass class = 7
)

// dearCost is the least cost of a dear name.
const dearCost = 1 << firstDear

func classOf(cost float64) class {
	return min(class(max(bits.Len(uint(cost))-1, 0)), lastClass)
}

func (c class) isDear() bool { return c >= firstDear }
