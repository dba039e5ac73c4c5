package acmepersist

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

const (
	publishRetry    = time.Minute
	publishRetryMax = 6 * time.Hour
	// publishLimited is the shortest pause after a provider has said that it is asked too
	// often.
	publishLimited = 5 * time.Minute
	// publishLimitedMax is the longest pause that a provider may ask for.
	publishLimitedMax = 24 * time.Hour
	// publishAtOnce is how many names are written at once.
	publishAtOnce = 8
)

// PublishError says that a record could not be written. The name is watched all the same,
// for somebody may publish it.
type PublishError struct {
	Name string
	// RetryAt is when it is tried again.
	RetryAt time.Time
	Err     error
}

func (e *PublishError) Error() string {
	if errors.Is(e.Err, errInBackground) {
		return fmt.Sprintf("publishing at %s: %v", e.Name, e.Err)
	}
	return fmt.Sprintf("publishing at %s failed, it is tried again at %s: %v", e.Name, e.RetryAt.UTC().Format(time.RFC3339), e.Err)
}

func (e *PublishError) Unwrap() error { return e.Err }

// publisher remembers what went wrong, so that a provider is not asked for ever the same.
type publisher struct {
	mu    sync.Mutex
	slots chan struct{}
	// paused is until when the provider is not asked at all, and pauses how often it was.
	paused time.Time
	pauses int
	names  map[string]*failure
}

type failure struct {
	times int
	last  *PublishError
}

// begin waits for a slot. An error is one of before whose time has not passed.
func (p *publisher) begin(ctx context.Context, name string) (end func(), err error) {
	p.mu.Lock()
	if p.slots == nil {
		p.slots, p.names = make(chan struct{}, publishAtOnce), make(map[string]*failure)
	}
	slots, f, paused := p.slots, p.names[name], p.paused
	p.mu.Unlock()
	now := time.Now()
	switch {
	case f != nil && now.Before(f.last.RetryAt):
		return nil, f.last
	case now.Before(paused):
		return nil, &PublishError{Name: name, RetryAt: paused, Err: fmt.Errorf("the provider has said that it is asked too often, and is left alone until then")}
	}
	select {
	case slots <- struct{}{}:
		return func() { <-slots }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// ended notes how a write went, and returns the error with its next time.
func (p *publisher) ended(name string, err error, first time.Duration) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		delete(p.names, name)
		p.pauses = 0
		return nil
	}
	f := p.names[name]
	if f == nil {
		f = new(failure)
		p.names[name] = f
	}
	now := time.Now()
	at := now.Add(min(first<<min(f.times, 12), publishRetryMax))
	f.times++
	if limited, after := tooOften(err); limited {
		pause := min(max(publishLimited, first)<<min(p.pauses, 12), publishRetryMax)
		p.paused = now.Add(max(pause, min(after, publishLimitedMax)))
		p.pauses++
		at = later(at, p.paused)
	}
	f.last = &PublishError{Name: name, RetryAt: at, Err: err}
	return f.last
}

// publishMissing writes the record of a name that no server has. Nothing is written while
// one that is good stands or is on its way.
func (s *session) publishMissing(ctx context.Context, w wanted, t propagation.Target) error {
	p := s.iss.Publishing
	t, err := s.place(w, t)
	if err != nil {
		return err
	}
	end, err := s.iss.publisher.begin(ctx, t.Name)
	if err != nil {
		return err
	}
	defer end()
	err = s.write(ctx, p, w, t, func(values []string) bool {
		good, _ := t.Accept(values)
		return good
	})
	var before *WrittenBeforeError
	switch {
	case errors.As(err, &before):
		_ = s.iss.publisher.ended(t.Name, nil, 0)
		return before // no failure: trying again changes nothing
	case err != nil && ctx.Err() != nil:
		return context.Cause(ctx) // nor is this
	}
	return s.iss.publisher.ended(t.Name, err, orDefault(p.Retry, publishRetry))
}

// write adds the wanted value unless enough says that what stands will do.
func (s *session) write(ctx context.Context, p *Publishing, w wanted, t propagation.Target, enough func(values []string) bool) error {
	at := s.writing(p, s.iss.Checker, t)
	done, err := at.put(ctx, p.Mode == PublishOnce, func(values []string) string {
		if enough(values) {
			return ""
		}
		return p.Lasting(w.record.Value, time.Now())
	})
	at.say(done)
	return err
}

// Lasting gives a value the end that PersistFor asks for.
func (p *Publishing) Lasting(value string, now time.Time) string {
	v, err := record.Parse(value)
	if err != nil || p.PersistFor <= 0 {
		return value
	}
	v.PersistUntil = now.Add(p.PersistFor).Truncate(time.Second)
	return v.String()
}

// published writes the record if no server has it, and looks at the name anew. It comes
// before the clock's word: a certificate that runs out is better asked for with a record.
func (s *session) published(ctx context.Context, w *wanted, t propagation.Target, gate *propagation.Gate, r propagation.Report, known state.Name, o offer, c clock) (propagation.Report, error) {
	p := s.iss.Publishing
	lacking := r.Status == propagation.StatusAbsent ||
		w.target != "" && r.Status == propagation.StatusPartial // perhaps of the CNAME alone
	if p == nil || p.Mode == PublishNever || !lacking || w.disputed != nil || s.ownersTurn(*w, r) {
		return r, nil
	}
	// the account check of section 4.5 comes before each write
	err := s.checkAccount(ctx)
	if err == nil {
		err = s.claim(ctx, s.iss.Checker, w)
	}
	if err == nil {
		err = s.refine(w, r.Values, known, o)
	}
	if err == nil {
		err = s.mayWrite(ctx, *w)
	}
	var bound *WriteBoundError
	if errors.As(err, &bound) {
		s.logger.Debug("a record is not written on demand yet", zap.String("identifier", w.identifier), zap.Error(err))
		return r, err
	}
	if err == nil {
		waits, done := s.whileHandshakeWaits(ctx)
		err = s.publishMissing(waits, *w, t)
		done()
	}
	if errors.Is(err, errInBackground) {
		// what was sent to the provider may be on its way already; it is noted
		return r, &PublishError{Name: t.Name, RetryAt: time.Now().Add(afterHandshake), Err: err}
	}
	var before *WrittenBeforeError
	if errors.As(err, &before) {
		s.logger.Warn("the record was written once and is gone or was changed since; it is not written again",
			zap.String("identifier", w.identifier), zap.String("name", t.Name), zap.Time("written_at", before.At), zap.String("reason", before.Error()))
		return r, nil
	}
	if err != nil {
		if ctx.Err() == nil {
			s.logger.Error("the record could not be published; it may be published by hand meanwhile",
				zap.String("identifier", w.identifier), zap.String("name", t.Name), zap.Error(err))
		}
		return r, err
	}
	r = s.iss.Checker.Check(ctx, t, gate)
	return s.waitInline(ctx, w.identifier, t, gate, r, c), nil
}
