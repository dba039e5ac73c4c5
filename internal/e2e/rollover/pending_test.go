package rollover

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
)

// cutShort leaves a rollover as a killed process does: with the CA's key changed, or not.
func (w *world) cutShort(atCA bool) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	defer cancel()
	iss := w.issuer(func(c *acmepersist.Config) {
		base := c.Transport
		c.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
			if !strings.HasSuffix(r.URL.Path, "/rollover-account-key") {
				return base.RoundTrip(r)
			}
			defer cancel()
			if atCA {
				resp, err := base.RoundTrip(r)
				if err == nil {
					resp.Body.Close()
				}
			}
			return nil, errors.New("killed")
		})
	})
	if _, err := iss.RollKey(ctx); err == nil {
		w.t.Fatal("the rollover was not cut short")
	}
	if w.text("next_key") == "" {
		w.t.Fatal("no next key in storage")
	}
}

// roundTripper is a transport made of a function.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A rollover that was cut short goes on with the next call, and until then ordinary
// sessions use the key that the CA knows.
func TestPendingRollover(t *testing.T) {
	t.Parallel()
	for _, atCA := range []bool{true, false} {
		w := newWorld(t, "01")
		account := w.bind()
		old := w.text("key")
		w.cutShort(atCA)
		next := w.text("next_key")
		if s := w.status(); s.Status != "valid" || !s.PendingRollover {
			t.Errorf("the state while a rollover is pending: %+v", s)
		}
		r := w.roll(w.issuer())
		if !r.Resumed || r.URL != account || w.text("key") != next {
			t.Errorf("resumed %+v", r)
		}
		w.assertGood(account)
		w.assertGone(old)

		w.cutShort(atCA)
		next = w.text("next_key")
		iss := w.issuer(func(c *acmepersist.Config) { c.ReloadAccount = time.Millisecond })
		s := w.site(iss, "pending")
		s.publish(s.value(account, false))
		s.obtain(t.Context())
		asked := w.ca.Count("new-account")
		if atCA != (w.text("key") == next) || atCA != (w.text("next_key") == "") {
			t.Errorf("at the CA %v: the key was promoted: %v", atCA, w.text("key") == next)
		}
		s.renew(t.Context())
		if n := w.ca.Count("new-account"); n != asked {
			t.Errorf("the CA was asked about the next key %d times more within a minute", n-asked)
		}
		w.roll(w.issuer())
		w.assertGood(account)
	}
}
