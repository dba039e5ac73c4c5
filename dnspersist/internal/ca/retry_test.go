package ca

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

type leasing struct {
	certmagic.Storage
	keys []string
}

func (l *leasing) RenewLockLease(_ context.Context, key string, _ time.Duration) error {
	l.keys = append(l.keys, key)
	return nil
}

func TestLockLeaseIsExtendedWhileWaiting(t *testing.T) {
	storage := &leasing{}
	c := New(Config{Store: state.Store{Storage: storage}, Logger: zap.NewNop()}).At(&Directory{})
	c.KeepLock(t.Context(), "example.com")
	if len(storage.keys) != 0 {
		t.Fatal("the lease was extended right after it was taken")
	}
	c.leased = time.Now().Add(-leaseEvery)
	c.KeepLock(t.Context(), "example.com")
	c.KeepLock(t.Context(), "example.com")
	if len(storage.keys) != 1 || storage.keys[0] != "issue_cert_example.com" {
		t.Errorf("extended %v, want issue_cert_example.com once", storage.keys)
	}
	// a storage without leases needs nothing
	New(Config{Store: state.Store{Storage: &certmagic.FileStorage{}}}).At(&Directory{}).KeepLock(t.Context(), "example.com")
}

// answers is a CA that answers one request after the other, with the last answer from then on. A status of
// 0 is a connection that is lost.
type answers struct {
	list []answer
	seen int
}

type answer struct {
	status     int
	retryAfter string
	problem    string
}

func (a *answers) RoundTrip(r *http.Request) (*http.Response, error) {
	now := a.list[min(a.seen, len(a.list)-1)]
	a.seen++
	if now.status == 0 {
		return nil, errors.New("connection reset by peer")
	}
	resp := &http.Response{
		StatusCode: now.status, Status: http.StatusText(now.status), Request: r,
		Header: http.Header{"Retry-After": {now.retryAfter}, "Content-Type": {"application/problem+json"}},
		Body:   io.NopCloser(strings.NewReader(fmt.Sprintf(`{"type":%q,"detail":"a reason"}`, acme.ProblemTypeNamespace+now.problem))),
	}
	return resp, nil
}

// ask sends one request as acmez does.
func ask(c *Client) error {
	resp, err := c.ACME.HTTPClient.Get("https://ca.test/thing")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode < 400 {
		return nil
	}
	var problem acme.Problem
	if err := json.NewDecoder(resp.Body).Decode(&problem); err != nil {
		return err
	}
	return problem
}

// A request is repeated after what may pass, as late as the CA asks, and no longer than an attempt may wait.
func TestRetries(t *testing.T) {
	const none, limited, down, refused = "", "limited", "down", "refused"
	for name, tc := range map[string]struct {
		answers []answer
		toLose  bool // a certificate that is issued
		asked   int
		wait    time.Duration
		outcome string
	}{
		"at once":                      {answers: []answer{{status: 200}}, asked: 1},
		"overloaded for a while":       {answers: []answer{{status: 503}, {status: 500}, {status: 200}}, asked: 3, wait: 3 * time.Second},
		"a lost connection":            {answers: []answer{{}, {status: 200}}, asked: 2, wait: time.Second},
		"a nonce that is not known":    {answers: []answer{{status: 400, problem: "badNonce"}, {status: 200}}, asked: 2, wait: time.Second},
		"the CA gives a time":          {answers: []answer{{status: 503, retryAfter: "7"}, {status: 200}}, asked: 2, wait: 7 * time.Second},
		"a time of no length":          {answers: []answer{{status: 503, retryAfter: "0"}, {status: 200}}, asked: 2, wait: time.Second},
		"a time that is too long":      {answers: []answer{{status: 503, retryAfter: "3600"}}, asked: 1, outcome: limited},
		"a limit without a time":       {answers: []answer{{status: 429, problem: "rateLimited"}}, asked: 2, wait: 5 * time.Second, outcome: limited},
		"a refusal":                    {answers: []answer{{status: 403, problem: "unauthorized"}}, asked: 1, outcome: refused},
		"down":                         {answers: []answer{{}}, asked: MaxRetries + 1, wait: 47 * time.Second, outcome: down},
		"down with something to lose":  {answers: append(make([]answer, 20), answer{status: 200}), toLose: true, asked: 21, wait: 3135 * time.Second},
		"a limit with a lot to lose":   {answers: []answer{{status: 429, retryAfter: "600"}, {status: 200}}, toLose: true, asked: 2, wait: 600 * time.Second},
		"a refusal, whatever there is": {answers: []answer{{status: 403, problem: "unauthorized"}}, toLose: true, asked: 1, outcome: refused},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				transport := &answers{list: tc.answers}
				c := New(Config{URL: "https://ca.test/dir", Transport: transport}).At(&Directory{})
				if tc.toLose {
					c.PersistUntil = time.Now().Add(24 * time.Hour)
				}
				began := time.Now()
				err := c.Do(t.Context(), "asking for a thing", func() error { return ask(c) })
				outcome := none
				switch gone := (*DownError)(nil); {
				case IsRateLimited(err):
					outcome = limited
				case errors.As(err, &gone):
					outcome = down
				case err != nil:
					outcome = refused
				}
				if wait := time.Since(began); transport.seen != tc.asked || wait != tc.wait || outcome != tc.outcome {
					t.Errorf("%d requests in %s, %q: %v, want %d in %s, %q", transport.seen, wait, outcome, err, tc.asked, tc.wait, tc.outcome)
				}
				if err != nil && !strings.HasPrefix(err.Error(), "asking for a thing: ") {
					t.Errorf("the error does not begin with the step: %v", err)
				}
			})
		})
	}
}

// A signature that is refused right after the key was changed passes soon.
// What a CA is at work on is looked at as often as it asks for, and else at a public CA no sooner than after a second.
func TestIntervalsBetweenLooks(t *testing.T) {
	ms := func(all ...int) (list []time.Duration) {
		for _, n := range all {
			list = append(list, time.Duration(n)*time.Millisecond)
		}
		return list
	}
	for name, tc := range map[string]struct {
		private    bool
		retryAfter string
		want       []time.Duration
	}{
		"public":                      {want: ms(1000, 2000, 4000, 8000, 10_000, 10_000)},
		"private":                     {private: true, want: ms(20, 20, 20, 30, 45, 67, 101, 151)},
		"public, asks for a time":     {retryAfter: "3", want: ms(3000, 3000, 3000)},
		"private, asks for a time":    {private: true, retryAfter: "3", want: ms(3000, 3000, 3000)},
		"private, asks for an hour":   {private: true, retryAfter: "3600", want: ms(120_000)},
		"public, a time of no length": {retryAfter: "0", want: ms(1000, 2000)},
		"private, asks for no time":   {private: true, retryAfter: "0", want: ms(20, 20, 20, 30)},
	} {
		c := New(Config{URL: "https://ca.test/dir", Private: tc.private, Transport: &answers{list: []answer{{status: 200, retryAfter: tc.retryAfter}}}}).At(&Directory{})
		if _, _, err := c.Once("making the order", func() error { return ask(c) }); err != nil {
			t.Fatal(err)
		}
		for looks, want := range tc.want {
			if got := c.Interval(looks).Truncate(time.Millisecond); got != want {
				t.Errorf("%s: %s after %d looks, want %s", name, got, looks, want)
			}
		}
		if got := c.Interval(10_000); got > maxRetryWait {
			t.Errorf("%s: %s after ten thousand looks", name, got)
		}
	}
}

func TestRetryAfterTheKeyWasChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport := &answers{list: []answer{{status: 400, problem: "malformed"}, {status: 400, problem: "malformed"}, {status: 200}}}
		c := New(Config{URL: "https://ca.test/dir", Transport: transport}).At(&Directory{})
		if err := c.Do(t.Context(), "a step", func() error { return ask(c) }); !IsProblem(err, "malformed") || transport.seen != 1 {
			t.Errorf("%d requests without a change: %v", transport.seen, err)
		}
		c.RolledAt = walltime.Now()
		if err := c.Do(t.Context(), "a step", func() error { return ask(c) }); err != nil || transport.seen != 3 {
			t.Errorf("%d requests after one: %v", transport.seen, err)
		}
	})
}

// The end of an attempt ends its waits, and the error has why.
func TestRetriesEndWithTheAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		why := errors.New("the configuration has ended")
		ctx, cancel := context.WithCancelCause(t.Context())
		c := New(Config{URL: "https://ca.test/dir", Transport: &answers{list: []answer{{status: 503, retryAfter: "60"}}}}).At(&Directory{})
		time.AfterFunc(10*time.Second, func() { cancel(why) })
		began := time.Now()
		err := c.Do(ctx, "a step", func() error { return ask(c) })
		if !errors.Is(err, why) || time.Since(began) != 10*time.Second {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
	})
}
