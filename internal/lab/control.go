package lab

import (
	"slices"
	"strings"
	"time"
)

// Fault is something that goes wrong with matching requests. The first of
// several that match takes effect.
type Fault struct {
	// Step is the step of the requests, all if it is empty.
	Step string
	// Below hits only requests about this name or names below it.
	Below string
	// Times is how many of them are hit: 0 means one, -1 all.
	Times int
	// Skip is how many are spared first.
	Skip int
	// Status is answered instead of asking Pebble, with a problem document.
	Status int
	// RetryAfter is the header that goes with Status.
	RetryAfter string
	// Type and Detail of the problem; by default rateLimited for 429 and
	// serverInternal for the others.
	Type, Detail string
	// CutBefore closes the connection before Pebble has seen the request,
	// CutAfter when Pebble has acted upon it.
	CutBefore, CutAfter bool
	// Hang waits that long, or until the client is gone, and closes the
	// connection then. Pebble does not see the request.
	Hang time.Duration
	// Invalidates makes the order invalid that the request is about.
	Invalidates bool
}

type faultState struct {
	Fault
	seen, hits int
}

// Inject adds a fault.
func (c *CA) Inject(f Fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.Times == 0 {
		f.Times = 1
	}
	c.faults = append(c.faults, &faultState{Fault: f})
}

// ClearFaults ends all faults.
func (c *CA) ClearFaults() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = nil
}

// fault is the fault that hits a request of this step about these names. c.mu is held.
func (c *CA) fault(step string, identifiers []string) *Fault {
	below := func(f *faultState) bool {
		return slices.ContainsFunc(identifiers, func(id string) bool { return strings.HasSuffix("."+id, "."+f.Below) })
	}
	for _, f := range c.faults {
		if f.Step != "" && f.Step != step || f.Times > 0 && f.hits >= f.Times || f.Below != "" && !below(f) {
			continue
		}
		if f.seen++; f.seen <= f.Skip {
			continue
		}
		f.hits++
		hit := f.Fault
		return &hit
	}
	return nil
}

// SetOffer says whether authorizations have a dns-persist-01 challenge.
func (c *CA) SetOffer(offer bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.withhold = !offer
}

// MutateAuthz changes authorizations as they are answered; nil ends it.
func (c *CA) MutateAuthz(f func(map[string]any)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mutateAuthz = f
}

// MutateDirectory changes the directory as it is answered; nil ends it.
func (c *CA) MutateDirectory(f func(map[string]any)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mutateDirectory = f
}

// SetValidationDelay hides the result of validations that start from now on for
// so long: their challenge is processing, the authorization and order pending.
func (c *CA) SetValidationDelay(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.validationDelay = d
}

// SetFinalizeDelay keeps orders processing for so long after finalize.
func (c *CA) SetFinalizeDelay(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finalizeDelay = d
}

// SetRetryAfter sets the header of answers that are held back by a delay; ""
// is none.
func (c *CA) SetRetryAfter(value string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.retryAfter = value
}
