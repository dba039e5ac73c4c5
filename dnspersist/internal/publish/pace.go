package publish

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
)

const (
	// firstRetry is how long after a first failure a name is tried again, lastRetry the longest time
	// between two tries.
	firstRetry = time.Minute
	lastRetry  = 6 * time.Hour
	// pauseAtLeast is how long a provider is left alone that wants it, or fails.
	pauseAtLeast = 5 * time.Minute
	// longestPause is what a provider may ask for at most.
	longestPause = 24 * time.Hour
	// failingNames is at how many names a provider has to fail, without a success in between, to be left
	// alone: one may fail at a name that is in no zone of its account.
	failingNames = 3
	// atOnce is how many names are written at once.
	atOnce = 8
	// handshakePatience is how long a TLS handshake waits for a write of its record, which may
	// be all that a quick provider needs, and afterHandshake when one that took longer is gone on with.
	handshakePatience = 10 * time.Second
	afterHandshake    = time.Second
	// recordsAgain is when it is seen again whether there is room for another record.
	recordsAgain = time.Hour
	// mostKept bounds the names and registered domains that are remembered: those that have no effect
	// any more are forgotten then.
	mostKept = 10_000
)

// ErrInBackground is why a handshake has no certificate yet.
var ErrInBackground = errors.New("it takes longer than a TLS handshake can wait, and goes on in the background")

// Error means that a record could not be written yet. The name is watched all the same,
// for somebody may publish it.
type Error struct {
	Name string
	// RetryAt is when it is tried again.
	RetryAt time.Time
	Err     error
}

func (e *Error) Error() string {
	if errors.Is(e.Err, ErrInBackground) {
		return fmt.Sprintf("publishing at %s: %v", e.Name, e.Err)
	}
	return fmt.Sprintf("publishing at %s failed, it is tried again at %s: %v", e.Name, e.RetryAt.UTC().Format(time.RFC3339), e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// Bounds are how many records are written on demand.
type Bounds struct {
	// Domain is the registered domain of the name, PerHour how many may be written for its names.
	Domain  string
	PerHour int
	// MaxRecords is how many names may have records of ours.
	MaxRecords int
}

// BoundError means that a record is not written on demand yet, as there are so many.
type BoundError struct {
	// Option is what bounds it.
	Option string
	// Domain is the registered domain that has used up its part; empty if all have.
	Domain string
}

func (e *BoundError) Error() string {
	whose := "on demand"
	if e.Domain != "" {
		whose += " for names of " + e.Domain
	}
	return fmt.Sprintf("as many records as %s allows were written %s: let the permission (ask) list exact names, or raise the option", e.Option, whose)
}

// Try is Put at the pace of the provider, and logs what was written. What keeps it from writing is an
// Error, which has the time of the next try, or a WrittenBeforeError.
func (k *Keeper) Try(ctx context.Context, w Write) error {
	if w.Handshake {
		within, cancel := context.WithTimeoutCause(ctx, handshakePatience, ErrInBackground)
		defer cancel()
		ctx = within
	}
	err := k.atPace(ctx, w)
	if errors.Is(err, ErrInBackground) {
		// what was sent to the provider may be on its way already; it is noted
		return &Error{Name: w.At.Name, RetryAt: time.Now().Add(afterHandshake), Err: ErrInBackground}
	}
	return err
}

func (k *Keeper) atPace(ctx context.Context, w Write) error {
	o := k.Options
	p, what := k.Process.provider(o), try{k.identity.CA, w.At.Name, o.TTL, o.PersistFor, o.AllowShadowing}
	if err := p.refusal(what, time.Now()); err != nil {
		return err
	}
	if err := k.inBounds(ctx, w, time.Now()); err != nil {
		return err
	}
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	// it may have failed for others meanwhile
	if err := p.refusal(what, time.Now()); err != nil {
		return err
	}
	done, err := k.Put(ctx, w)
	k.log(done)
	if w.Done != nil && done.Value != "" {
		w.Done(done)
	}
	switch {
	case err == nil || errors.As(err, new(*WrittenBeforeError)): // trying again changes nothing
		_ = p.ended(what, nil, 0)
		return err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return p.ended(what, err, cmp.Or(o.Retry, firstRetry))
}

// inBounds holds a write on demand against its bounds.
func (k *Keeper) inBounds(ctx context.Context, w Write, now time.Time) error {
	b := w.Bounds
	if b == nil {
		return nil
	}
	if b.MaxRecords > 0 {
		keys, err := k.Store.List(ctx, folder)
		if err != nil {
			return err
		}
		if len(keys) >= b.MaxRecords {
			return &Error{Name: w.At.Name, RetryAt: now.Add(recordsAgain), Err: &BoundError{Option: "max_records"}}
		}
	}
	if b.PerHour > 0 {
		if wait := k.Process.takeOnDemand(k.identity.CA+" "+b.Domain, b.PerHour, now); wait > 0 {
			return &Error{Name: w.At.Name, RetryAt: now.Add(wait), Err: &BoundError{Option: "writes_per_hour", Domain: b.Domain}}
		}
	}
	return nil
}

// Process is what a process knows of its DNS providers, over reloads: without it a provider that wants
// to be left alone, and whoever has names written on demand, would begin anew with each of them. Its zero
// value is ready.
type Process struct {
	// Called is told how each call of a provider has ended. It must not block. May be nil.
	Called func(Operation, Outcome)

	mu        sync.Mutex
	providers map[string]*provider
	// running are the calls that were given up and have not ended.
	running map[runningCall]bool
	// onDemand are the writes on demand, by CA and registered domain.
	onDemand map[string]*rate.Limiter
}

// provider is that of the options.
func (p *Process) provider(o *Options) *provider {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.providers[o.Account]
	if known == nil {
		known = &provider{slots: make(chan struct{}, atOnce), tries: make(map[try]*failure), failing: make(map[string]bool)}
		if p.providers == nil {
			p.providers = make(map[string]*provider)
		}
		p.providers[o.Account] = known
	}
	return known
}

// takeOnDemand returns how long the next write on demand has to wait, zero if it may go on.
func (p *Process) takeOnDemand(domain string, perHour int, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.onDemand == nil {
		p.onDemand = make(map[string]*rate.Limiter)
	}
	if len(p.onDemand) >= mostKept {
		maps.DeleteFunc(p.onDemand, func(_ string, l *rate.Limiter) bool { return l.TokensAt(now) >= float64(l.Burst()) })
	}
	l := p.onDemand[domain]
	if l == nil {
		l = rate.NewLimiter(0, 0)
		p.onDemand[domain] = l
	}
	if l.Burst() != perHour {
		*l = *rate.NewLimiter(rate.Limit(float64(perHour)/time.Hour.Seconds()), perHour)
	}
	r := l.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait > 0 {
		r.CancelAt(now)
	}
	return wait
}

// try is what was tried: with other options it may succeed at once.
type try struct {
	ca, name        string
	ttl, persistFor time.Duration
	allowShadowing  bool
}

// provider remembers what went wrong, so that a provider is not asked for ever the same.
type provider struct {
	slots chan struct{}

	mu    sync.Mutex
	tries map[try]*failure
	// paused is until when the provider is not called at all, why is the error that led to it.
	paused time.Time
	why    error
	// failing are the names at which its calls have failed since the last one that succeeded.
	failing map[string]bool
}

// failure is that of a try.
type failure struct {
	times int
	last  *Error
}

// refusal is the error of a name that is not tried now: an earlier one whose time has not passed, or why
// the provider is left alone.
func (p *provider) refusal(what try, now time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f := p.tries[what]; f != nil && now.Before(f.last.RetryAt) {
		return f.last
	}
	if now.Before(p.paused) {
		return &Error{Name: what.name, RetryAt: p.paused, Err: p.why}
	}
	return nil
}

// ended remembers how a try has ended, and returns its error with the time of the next one.
func (p *provider) ended(what try, err error, first time.Duration) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		delete(p.tries, what)
		return nil
	}
	now := time.Now()
	if len(p.tries) >= mostKept {
		maps.DeleteFunc(p.tries, func(_ try, f *failure) bool { return now.Sub(f.last.RetryAt) > lastRetry })
	}
	f := p.tries[what]
	if f == nil {
		f = new(failure)
		p.tries[what] = f
	}
	f.last = &Error{Name: what.name, RetryAt: now.Add(min(first<<min(f.times, 12), lastRetry)), Err: err}
	if f.last.RetryAt.Before(p.paused) {
		f.last.RetryAt = p.paused
	}
	f.times++
	return f.last
}

// called remembers how a call of the provider at a name has ended. An error is shown as given by clean.
func (p *provider) called(name string, err error, clean func(error) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		clear(p.failing)
		return
	}
	p.failing[name] = true
	pause, why := pauseAtLeast, fmt.Sprintf("the provider has failed at %d names in a row", len(p.failing))
	if limited, after := tooOften(err); limited {
		pause, why = max(pause, min(after, longestPause)), "the provider wants to be asked less often"
	} else if len(p.failing) < failingNames {
		return
	}
	if until := time.Now().Add(pause); until.After(p.paused) {
		p.paused, p.why = until, fmt.Errorf("%s, and is left alone until then: %w", why, clean(err))
	}
	clear(p.failing)
}

// tooOften reports whether a provider is asked too often, and how long it wants to be left alone, if it
// reports that: errors of providers' clients have a status or a time to ask for.
func tooOften(err error) (limited bool, after time.Duration) {
	var wait interface{ RetryAfter() time.Duration }
	if errors.As(err, &wait) {
		after = max(wait.RetryAfter(), 0)
	}
	var (
		status interface{ StatusCode() int }
		http1  interface{ HTTPStatusCode() int } // of the SDK of AWS
	)
	return after > 0 ||
		errors.As(err, &status) && status.StatusCode() == http.StatusTooManyRequests ||
		errors.As(err, &http1) && http1.HTTPStatusCode() == http.StatusTooManyRequests, after
}

// runningCall is a call for a zone, of the client of one configuration, that was given up and has not
// ended: a provider that writes a zone back whole would undo what a second one has changed meanwhile.
// Other nodes are not kept waiting: nobody can notify them when it ends. Nor is another configuration, so that
// a reload helps.
type runningCall struct {
	by   *Options
	zone string
}

func (p *Process) isRunning(call runningCall) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running[call]
}

// runsOn remembers such a call until it ends.
func (p *Process) runsOn(call runningCall, ended <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running == nil {
		p.running = make(map[runningCall]bool)
	}
	p.running[call] = true
	go func() {
		<-ended
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.running, call)
	}()
}

// Operation is what a provider is called for.
type Operation int

// Operations of a provider.
const (
	OperationAdd Operation = iota
	OperationRemove
)

// Outcome is how a call of a provider has ended.
type Outcome int

// Outcomes of a call.
const (
	OutcomeOK Outcome = iota
	// OutcomeError: the provider reported an error.
	OutcomeError
	// OutcomeUnknown: the call was given up before it had ended, and may have done its work.
	OutcomeUnknown
)

// outcomeOf is how a call under ctx has ended.
func outcomeOf(ctx context.Context, err error) Outcome {
	switch {
	case err == nil:
		return OutcomeOK
	case ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded):
		return OutcomeUnknown
	}
	return OutcomeError
}

// providerCall is a call of the provider's client, and what it is for.
type providerCall struct {
	operation Operation
	run       func(ctx context.Context) error
}

// inZone runs a call of the provider while nobody else changes the zone, in the whole cluster: some read a
// zone, change it, and write it back whole. Its time begins when it is its turn.
func (c *change) inZone(ctx context.Context, zone string, call providerCall) error {
	key := runningCall{c.Options, zone}
	return c.Store.Locked(ctx, "dns_persist_zone_"+state.Safe(zone), nil, func() error {
		if c.Process.isRunning(key) {
			return fmt.Errorf("an earlier call of the provider for the zone %s was given up and has not ended; "+
				"it is not called again until then: look whether its API can be reached, and reload or restart Caddy", zone)
		}
		err := callWithin(ctx, c.Options.Timeout, call.run)
		if c.Process.Called != nil {
			c.Process.Called(call.operation, outcomeOf(ctx, err))
		}
		var runs *runsOnError
		if errors.As(err, &runs) {
			c.Process.runsOn(key, runs.ended)
		}
		if err == nil || ctx.Err() == nil {
			c.Process.provider(c.Options).called(c.at.Name, err, c.Options.redact)
		}
		return err
	})
}

// defaultTimeout is how long one call of a provider may take.
const defaultTimeout = 2 * time.Minute

// callGrace is how long a call that was cancelled has to end and return what came of it.
const callGrace = time.Second

// runsOnError means that a call of a provider was given up and has not ended: its client obeys neither
// cancellation nor time-outs. What it still does cannot be known.
type runsOnError struct {
	err error
	// ended is closed once the call has ended after all.
	ended <-chan struct{}
}

func (e *runsOnError) Error() string {
	return fmt.Sprintf("%v, and its call runs on although it was cancelled", e.err)
}

func (e *runsOnError) Unwrap() error { return e.err }

// callWithin runs a call of a provider, which has to end in time: some clients have no time-out of
// their own, and an API that accepts and never answers would hold the locks around it for ever.
// One that does not even end when it is cancelled is left to itself; the error is a runsOnError then.
func callWithin(ctx context.Context, limit time.Duration, call func(context.Context) error) error {
	limit = cmp.Or(limit, defaultTimeout)
	within, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var err error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("the provider's code has panicked: %v", p)
			}
		}()
		err = call(within)
	}()
	select {
	case <-ended:
	case <-within.Done():
		grace := time.NewTimer(callGrace)
		defer grace.Stop()
		select {
		case <-ended:
		case <-grace.C:
			return &runsOnError{inTime(ctx, within, within.Err(), limit), ended}
		}
	}
	return inTime(ctx, within, err, limit)
}

// inTime adds to an error that it comes from the limit, if it does.
func inTime(ctx, within context.Context, err error, limit time.Duration) error {
	if err != nil && ctx.Err() == nil && errors.Is(within.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("the provider did not answer within %s: look whether its API can be reached; it may have made the change all the same: %w", limit, err)
	}
	return err
}
