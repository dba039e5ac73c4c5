package lab

import (
	"slices"
	"time"

	"github.com/letsencrypt/pebble/v2/acme"
	"github.com/letsencrypt/pebble/v2/core"
)

// Request is one HTTP request to the CA.
type Request struct {
	Time time.Time
	// Step is one of directory, nonce, new-account, account, new-order, order,
	// authz, challenge, finalize, certificate, renewal-info, revoke, key-change
	// and other.
	Step   string
	Method string
	Path   string
	// Status of the answer, 0 if there was none (yet).
	Status int
	// Account is the key id of the signature.
	Account string
	// Identifiers are those of the order, authorization or challenge, as far as
	// they are known; those of wildcards with "*.".
	Identifiers []string
	Replaces    string
	// Faulted says that a Fault hit the request.
	Faulted bool
}

// Order is a new-order that was accepted.
type Order struct {
	Time        time.Time
	URL         string
	Account     string
	Identifiers []string
	Replaces    string
}

// Challenge is a POST that Pebble accepted and that starts a validation.
type Challenge struct {
	Time       time.Time
	Identifier string // with "*." for wildcards
	Account    string
	Type       string
	URL        string
}

// Failure is an authorization that became invalid through its validation.
type Failure struct {
	Time       time.Time
	Identifier string // with "*." for wildcards
	Type       string
	Detail     string
}

// Event is something that happened, for narration.
type Event struct {
	Time       time.Time
	Kind       string // order, challenge, valid, invalid, certificate
	Identifier string
	Detail     string
}

// orderState, authzState and chalState are what is known about the objects of
// Pebble. Fields that change are guarded by CA.mu.
type orderState struct {
	store       *pebble
	order       *core.Order
	identifiers []string
	replaces    string
	account     string
	authzs      []*authzState
	heldUntil   time.Time // finalize delay
}

type authzState struct {
	order      *orderState
	authz      *core.Authorization
	challenges []*core.Challenge
	identifier string
	offered    []any // challenges as they were shown while all were pending
	posted     string
	heldUntil  time.Time // validation delay
	problem    *Problem  // that the validation is to fail with
}

type chalState struct {
	authz     *authzState
	challenge *core.Challenge
	kind      string
	seen      map[string]bool // good values of hashed records that its validation saw
}

// Requests returns the requests of these steps, or all.
func (c *CA) Requests(steps ...string) []Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	var requests []Request
	for _, r := range c.requests {
		if len(steps) == 0 || slices.Contains(steps, r.Step) {
			request := *r
			request.Identifiers = slices.Clone(r.Identifiers)
			requests = append(requests, request)
		}
	}
	return requests
}

// Count is the number of requests of a step, those under way included.
func (c *CA) Count(step string) int { return len(c.Requests(step)) }

// Orders returns the orders that were made, also those before Forget.
func (c *CA) Orders() []Order {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.orders)
}

// Challenges returns the challenges that were started.
func (c *CA) Challenges() []Challenge {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.challenges)
}

// Accounts returns the URLs of the accounts that were created.
func (c *CA) Accounts() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.accounts)
}

// Certificates is the number of certificates that were issued.
func (c *CA) Certificates() int {
	n := 0
	for _, o := range c.states() {
		if certificateOf(o.order) != nil {
			n++
		}
	}
	return n
}

// FailedValidations returns the authorizations that became invalid through
// validation, each of them once, whether or not anybody asked for them.
func (c *CA) FailedValidations() []Failure {
	var failures []Failure
	for _, o := range c.states() {
		for _, a := range o.authzs {
			for _, chal := range a.challenges {
				status, failed, kind, problem := chalStatus(chal)
				if status == acme.StatusInvalid && problem != nil {
					failures = append(failures, Failure{Time: failed, Identifier: a.identifier, Type: kind, Detail: problem.Detail})
					break
				}
			}
		}
	}
	slices.SortStableFunc(failures, func(a, b Failure) int { return a.Time.Compare(b.Time) })
	return failures
}

// PollGap is the shortest time between two requests in a row for the same path
// of a step, 0 if there are none. Requests that were faulted or rejected (as with
// a bad nonce, which is repeated at once) do not count.
func (c *CA) PollGap(step string) time.Duration {
	var gap time.Duration
	last := make(map[string]time.Time)
	for _, r := range c.Requests(step) {
		if r.Faulted || r.Status >= 400 {
			continue
		}
		if before, ok := last[r.Path]; ok {
			if d := r.Time.Sub(before); gap == 0 || d < gap {
				gap = max(d, 1)
			}
		}
		last[r.Path] = r.Time
	}
	return gap
}

// OnEvent adds a function that is called for events, from several goroutines and
// while the CA waits; it must not make requests to the CA itself.
func (c *CA) OnEvent(f func(Event)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listeners = append(c.listeners, f)
}

func (c *CA) emit(kind, identifier, detail string) {
	c.mu.Lock()
	listeners := slices.Clone(c.listeners)
	c.mu.Unlock()
	for _, f := range listeners {
		f(Event{Time: time.Now(), Kind: kind, Identifier: identifier, Detail: detail})
	}
}

func (c *CA) states() []*orderState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.known)
}

func chalStatus(chal *core.Challenge) (status string, validated time.Time, kind string, problem *acme.ProblemDetails) {
	chal.RLock()
	defer chal.RUnlock()
	return chal.Status, chal.ValidatedDate, chal.Type, chal.Error
}
