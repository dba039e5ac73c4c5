package acmepersist_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// waitFor waits until the CA was asked so often for a step.
func (i *issuing) waitFor(step string, times int) {
	i.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); i.ca.Count(step) < times; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			i.t.Fatalf("the CA was asked %d times for %s, want %d", i.ca.Count(step), step, times)
		}
	}
}

// A certificate that is issued is worth more patience than any other step has: the next attempt
// would cost another one.
func TestDownloadIsPatient(t *testing.T) {
	t.Parallel()
	i := newIssuing(t)
	i.ca.Inject(lab.Fault{Step: "certificate", Status: 500, RetryAfter: "1", Times: 8})
	if err := i.issue(t.Context()); err != nil {
		t.Error(err)
	}
	if n := len(i.ca.Orders()); n != 1 {
		t.Errorf("%d orders were made, want 1", n)
	}
}

// A CA whose frontends do not have the certificate yet has it soon.
func TestDownloadNotThereYet(t *testing.T) {
	t.Parallel()
	i := newIssuing(t)
	i.ca.Inject(lab.Fault{Step: "certificate", Status: 404, Type: "urn:ietf:params:acme:error:malformed", Times: 2})
	if err := i.issue(t.Context()); err != nil {
		t.Error(err)
	}
}

// A reload that comes while a certificate is fetched does not throw it away, and what goes on
// after it ends soon.
func TestDownloadOutlivesAReload(t *testing.T) {
	t.Parallel()
	for what, tc := range map[string]struct {
		faults int
		got    bool
	}{"a CA that recovers": {2, true}, "a CA that does not": {-1, false}} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			i := newIssuing(t)
			i.ca.Inject(lab.Fault{Step: "certificate", Status: 500, RetryAfter: "1", Times: tc.faults})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan error, 1)
			go func() { done <- i.issue(ctx) }()
			i.waitFor("certificate", 1)
			cancel()
			cancelled := time.Now()
			select {
			case err := <-done:
				if (err == nil) != tc.got {
					t.Errorf("the attempt ended with %v", err)
				}
				if took := time.Since(cancelled); took > 8*time.Second {
					t.Errorf("it ended %s after it was cancelled", took)
				}
			case <-time.After(20 * time.Second):
				t.Error("20 s after it was cancelled it still goes on")
			}
		})
	}
}

// The next attempt fetches the certificate of the last one where it has the same key.
func TestDownloadByTheNextAttempt(t *testing.T) {
	t.Parallel()
	i := newIssuing(t)
	i.ca.Inject(lab.Fault{Step: "certificate", Status: 500, RetryAfter: "60", Times: -1})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	key := i.newKey()
	done := make(chan error, 1)
	go func() { _, err := i.issueKey(ctx, issuedName, key); done <- err }()
	i.waitFor("certificate", 1)
	cancel()
	if err := <-done; err == nil {
		t.Fatal("there is a certificate")
	}
	i.ca.ClearFaults()
	i.Issuer = i.another()
	if _, err := i.issueKey(t.Context(), issuedName, key); err != nil {
		t.Fatal(err)
	}
	if n := len(i.ca.Orders()); n != 1 {
		t.Errorf("%d orders were made, want 1", n)
	}
	if err := i.issue(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(i.ca.Orders()); n != 2 {
		t.Errorf("with another key %d orders were made in all, want 2", n)
	}
}

// An order that a failure of the CA has ended is read at once, and its end told.
func TestFinalizeThatEndsTheOrder(t *testing.T) {
	t.Parallel()
	i := newIssuing(t)
	i.ca.Inject(lab.Fault{Step: "finalize", Status: 500, RetryAfter: "60", Invalidates: true, Detail: "Error finalizing order"})
	began := time.Now()
	i.refuse("finalizing the order", "a fault inside the CA has ended the order", "Error finalizing order")
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	if err := i.issue(t.Context()); err != nil {
		t.Error(err)
	}
	if n := len(i.ca.Orders()); n != 2 {
		t.Errorf("%d orders were made, want 2", n)
	}
}

// noOrders is a storage that takes no orders.
type noOrders struct{ certmagic.Storage }

var errNoOrders = errors.New("permission denied")

func (s noOrders) Store(ctx context.Context, key string, value []byte) error {
	if strings.Contains(key, "/orders/") {
		return &os.PathError{Op: "open", Path: key, Err: errNoOrders}
	}
	return s.Storage.Store(ctx, key, value)
}

// An order that could not be kept is not made: each attempt would make another one.
func TestOrderThatCannotBeKept(t *testing.T) {
	t.Parallel()
	i := newIssuing(t)
	i.with(nil, noOrders{i.Storage})
	i.refuse("no order was made", "permission denied")
	if n := i.ca.Count("new-order"); n != 0 {
		t.Errorf("%d orders were asked for", n)
	}
}
