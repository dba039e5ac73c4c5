package acmepersist

import (
	"context"
	"errors"
	"net/http"
	"path"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"
)

// mortal is a process that ends after so many operations on its storage and requests to the CA: none of those that
// follow has an effect.
type mortal struct {
	certmagic.Storage
	transport http.RoundTripper
	left      int
	last      string // what it did last
	end       context.CancelFunc
}

var errKilled = errors.New("the process was killed")

// lives counts an operation, and reports whether there is time for it.
func (m *mortal) lives(what string) bool {
	if m.left == 0 {
		m.end()
		return false
	}
	m.left--
	m.last = what
	return true
}

func (m *mortal) RoundTrip(req *http.Request) (*http.Response, error) {
	if step, _, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/"), "/"); !m.lives(step) {
		return nil, errKilled
	}
	return m.transport.RoundTrip(req)
}

func (m *mortal) Store(ctx context.Context, key string, value []byte) error {
	if !m.lives("store " + path.Base(path.Dir(key))) {
		return errKilled
	}
	return m.Storage.Store(ctx, key, value)
}

func (m *mortal) Delete(ctx context.Context, key string) error {
	if !m.lives("delete " + path.Base(path.Dir(key))) {
		return errKilled
	}
	return m.Storage.Delete(ctx, key)
}

// cost is what a certificate has cost at the CA.
type cost struct{ orders, posts, finalized int }

// killedAfter has a process killed after n operations, and another one go on until it has the certificate. It returns
// what the first one did last, empty if it was not killed.
func killedAfter(t *testing.T, n int, isSlow, hasNewKey bool) (c cost, last string) {
	r := newTrial(t)
	r.knowsTheCA()
	r.dns.set(wwwName, wwwValue)
	c.orders = -len(r.ca.orders)
	if isSlow {
		r.ca.verdict = "pending"
	}
	looks := 0
	r.ca.asking = func(step string) {
		switch step {
		case "challenge":
			c.posts++
		case "finalize":
			c.finalized++
		case "authz":
			if looks++; looks > 4 {
				r.ca.verdict = "valid"
			}
		}
	}
	healthy := r.Config
	healthy.Lanes = nil
	ctx, end := context.WithCancel(t.Context())
	defer end()
	m := &mortal{Storage: r.storage, transport: r.ca, left: n, end: end}
	dying := healthy
	dying.Storage, dying.Transport = m, m
	if _, err := New(dying).Obtain(ctx, r.csr, Request{}); err != nil {
		if hasNewKey {
			r.wants("www.example.test")
		}
		time.Sleep(time.Minute)
		r.Issuer = New(healthy)
		err := r.obtain(Request{})
		for hold := (*Hold)(nil); errors.As(err, &hold); err = r.obtain(Request{}) {
			time.Sleep(max(time.Until(hold.Until), time.Second))
		}
		if err != nil {
			t.Fatalf("killed after %q, the next process fails: %v", m.last, err)
		}
		if _, found := r.kept(); found {
			t.Errorf("killed after %q, an order stays in storage", m.last)
		}
	}
	if attempts := r.name().Attempts; len(attempts) > 1 {
		t.Errorf("killed after %q, %d attempts stay counted", m.last, len(attempts))
	}
	c.orders += len(r.ca.orders)
	if ctx.Err() == nil {
		return c, ""
	}
	return c, m.last
}

// A process may be killed at any moment: it costs an order where the CA has made one whose URL nobody knows, or has
// issued for a key that is gone, and a validation nowhere but there.
func TestKilledAtEachMoment(t *testing.T) {
	for _, isSlow := range []bool{false, true} {
		for _, hasNewKey := range []bool{false, true} {
			for n, isKilled := 0, true; isKilled; n++ {
				synctest.Test(t, func(t *testing.T) {
					c, last := killedAfter(t, n, isSlow, hasNewKey)
					want := cost{1, 1, 1}
					switch {
					case last == "new-order":
						want.orders = 2
					case last == "finalize" && hasNewKey:
						want = cost{2, 2, 2}
					}
					if c != want {
						t.Errorf("killed after %q (slow CA %v, new key %v) it costs %+v, want %+v", last, isSlow, hasNewKey, c, want)
					}
					isKilled = last != "" || n == 0
				})
			}
		}
	}
}
