package publish

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

type statusError int

func (e statusError) Error() string   { return "no" }
func (e statusError) StatusCode() int { return int(e) }

type awsError int

func (e awsError) Error() string       { return "no" }
func (e awsError) HTTPStatusCode() int { return int(e) }

type waitError time.Duration

func (e waitError) Error() string             { return "busy" }
func (e waitError) RetryAfter() time.Duration { return time.Duration(e) }

// Only an error that has a status or a time to wait means that a provider is asked too often: a text may
// have any number in it.
func TestTooOften(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err     error
		limited bool
		after   time.Duration
	}{
		{statusError(429), true, 0},
		{statusError(500), false, 0},
		{fmt.Errorf("adding: %w", awsError(429)), true, 0},
		{awsError(400), false, 0},
		{fmt.Errorf("adding: %w", waitError(time.Minute)), true, time.Minute},
		{waitError(0), false, 0},
		{errors.New("HTTP 429: Too Many Requests"), false, 0},
	} {
		if limited, after := tooOften(c.err); limited != c.limited || after != c.after {
			t.Errorf("%v: %v, %s", c.err, limited, after)
		}
	}
}

// paced is a provider that is called for names, in simulated time.
type paced struct {
	*testing.T
	provider *provider
}

func newPaced(t *testing.T) *paced { return &paced{t, new(Process).provider(new(Options))} }

// try calls the provider for a name, with that result, if it is to be called now.
func (p *paced) try(name string, result error) error {
	if err := p.provider.refusal(try{name: name}, time.Now()); err != nil {
		return err
	}
	p.provider.called(name, result, func(err error) error { return err })
	if result == nil {
		p.provider.succeeded(try{name: name})
		return nil
	}
	return p.provider.failed(try{name: name}, result, time.Minute)
}

// waits waits for as long as an error asks for, which is to be so long.
func (p *paced) waits(err error, want time.Duration) {
	p.Helper()
	var failed *Error
	if !errors.As(err, &failed) || time.Until(failed.RetryAt) != want {
		p.Fatalf("%v, want a wait of %s", err, want)
	}
	time.Sleep(want)
}

// A name that fails is tried again later and later.
func TestFailuresAreTriedAgainLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPaced(t)
		for _, want := range []time.Duration{1, 2, 4, 8, 16, 32, 64, 128, 256, 360, 360} {
			err := p.try("a", errors.New("HTTP 500"))
			if again := p.try("a", nil); !errors.Is(again, err) {
				t.Fatalf("it was tried again at once: %v", again)
			}
			if err := p.try("b", nil); err != nil {
				t.Fatalf("another name is held up: %v", err)
			}
			p.waits(err, want*time.Minute)
		}
		if err := p.try("a", nil); err != nil {
			t.Fatal(err)
		}
		p.waits(p.try("a", errors.New("HTTP 500")), time.Minute)
	})
}

// A provider that wants to be asked less often is left alone for all names.
func TestLimitingProviderIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPaced(t)
		err := p.try("a", statusError(429))
		var other *Error
		if refused := p.try("b", nil); !errors.As(refused, &other) || !other.RetryAt.Equal(time.Now().Add(5*time.Minute)) || !errors.Is(refused, statusError(429)) {
			t.Errorf("the provider is not left alone: %v", refused)
		}
		// those that were under way count once
		p.provider.called("c", statusError(429), func(err error) error { return err })
		p.waits(err, 5*time.Minute)
		p.waits(p.try("b", awsError(429)), 10*time.Minute)
		p.waits(p.try("b", waitError(time.Hour)), time.Hour)
		if err := p.try("b", nil); err != nil {
			t.Fatal(err)
		}
		p.waits(p.try("b", statusError(429)), 5*time.Minute)
	})
}

// So is one that fails at one name after the other, whatever the texts of its errors; but not one that works
// for some, and never for longer.
func TestFailingProviderIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPaced(t)
		broken := errors.New("HTTP 429: Too Many Requests")
		for _, name := range []string{"a", "b"} {
			_ = p.try(name, broken)
		}
		if err := p.try("good", nil); err != nil {
			t.Fatal(err)
		}
		for round := range 3 {
			for i := range failingNames {
				if err := p.try(fmt.Sprint(round, i), broken); !errors.Is(err, broken) || strings.Contains(err.Error(), "left alone") {
					t.Fatalf("the name is not tried: %v", err)
				}
			}
			err := p.try("good", nil)
			if !errors.Is(err, broken) || !strings.Contains(err.Error(), "failed at 3 names in a row") {
				t.Errorf("the provider is not left alone: %v", err)
			}
			p.waits(err, 5*time.Minute)
		}
		if err := p.try("good", nil); err != nil {
			t.Error(err)
		}
	})
}

// What one registered domain may write on demand comes back within the hour, and is not another's.
func TestOnDemandWritesArePaced(t *testing.T) {
	t.Parallel()
	var p Process
	now := time.Now()
	for i := range 4 {
		if wait := p.takeOnDemand("a.example", 4, now); wait != 0 {
			t.Errorf("write %d waits %s", i, wait)
		}
	}
	for range 3 { // what waits takes nothing
		if wait := p.takeOnDemand("a.example", 4, now); wait != 15*time.Minute {
			t.Errorf("the fifth write waits %s, want a quarter of an hour", wait)
		}
	}
	if wait := p.takeOnDemand("b.example", 4, now); wait != 0 {
		t.Errorf("another domain waits %s", wait)
	}
	if wait := p.takeOnDemand("a.example", 4, now.Add(15*time.Minute)); wait != 0 {
		t.Errorf("a quarter of an hour later it waits %s", wait)
	}
	for i := range 2 * mostKept {
		p.takeOnDemand(fmt.Sprintf("d%d.example", i), 4, now.Add(time.Duration(i)*time.Hour))
	}
	if n := len(p.onDemand); n > mostKept {
		t.Errorf("%d domains are remembered", n)
	}
}
