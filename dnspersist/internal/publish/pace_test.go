package publish

import (
	"context"
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
	return p.provider.ended(try{name: name}, result, time.Minute)
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
		p.waits(err, 5*time.Minute)
		p.waits(p.try("b", awsError(429)), 5*time.Minute)
		p.waits(p.try("b", waitError(time.Hour)), time.Hour)
		p.waits(p.try("c", waitError(48*time.Hour)), 24*time.Hour)
		if err := p.try("b", nil); err != nil {
			t.Fatal(err)
		}
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

// A name that has failed is not tried again before its time, also after a reload; with another credential, or
// with other options, it is.
func TestTryWaitsAfterAFailure(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.keeper.Options.Account, p.keeper.Options.Retry = "a", time.Hour
	p.fails = 1
	try := func(options Options) error {
		k := *p.keeper
		k.Options = &options
		return k.Try(t.Context(), p.write("ours"))
	}
	options := *p.keeper.Options
	for range 2 {
		var failed *Error
		if err := try(options); !errors.Is(err, errEmptied) || !errors.As(err, &failed) || failed.Name != placeName || time.Until(failed.RetryAt) < 50*time.Minute {
			t.Errorf("got %v", err)
		}
	}
	if p.calls != 1 {
		t.Errorf("the provider was called %d times, want once", p.calls)
	}
	for what, change := range map[string]func(*Options){
		"a longer TTL":         func(o *Options) { o.TTL = time.Minute },
		"a corrected password": func(o *Options) { o.Account = "b" },
	} {
		p.set()
		changed := options
		change(&changed)
		if err := try(changed); err != nil {
			t.Errorf("with %s: %v", what, err)
		}
	}
}

// An attempt that has ended is not a failure of the name.
func TestTryThatIsCancelled(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.keeper.Options.Provider = silent{p.emptying}
	ended := errors.New("the configuration has ended")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(100*time.Millisecond, func() { cancel(ended) })
	var published []string
	write := p.write("ours")
	write.Done = func(done Result) { published = append(published, done.Value) }
	if err := p.keeper.Try(ctx, write); !errors.Is(err, ended) || errors.As(err, new(*Error)) || len(published) > 0 {
		t.Errorf("got %v, and %q is reported as published", err, published)
	}
	p.keeper.Options.Provider = p.emptying
	for range 2 { // the second time there is nothing to do
		if err := p.keeper.Try(t.Context(), write); err != nil {
			t.Error(err)
		}
	}
	if len(published) != 1 || published[0] != "ours" {
		t.Errorf("%q is reported as published", published)
	}
}

// Over its bounds nothing is read or written on demand, and the error names the option.
func TestTryStaysInItsBounds(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	write := p.write("ours")
	for _, want := range []BoundError{{}, {Option: "writes_per_hour", Domain: "example.test"}, {Option: "max_records"}} {
		write.Bounds = &Bounds{Domain: "example.test", PerHour: 1}
		if want.Option == "max_records" {
			write.Bounds.MaxRecords = 1
		}
		err := p.keeper.Try(t.Context(), write)
		var bound *BoundError
		if errors.As(err, &bound) != (want.Option != "") || bound != nil && *bound != want {
			t.Errorf("got %v, want %+v", err, want)
		}
	}
	if p.calls != 1 {
		t.Errorf("the provider was called %d times, want once", p.calls)
	}
}
