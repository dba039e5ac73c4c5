package propagation

import (
	"math/bits"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/ask"
)

// What time and text count for, in questions. An honest server answers in freeTime; in a second
// beyond it a worker could have asked three, with the defaults of [SchedulerConfig]. Who keeps
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
