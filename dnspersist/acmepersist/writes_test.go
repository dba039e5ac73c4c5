package acmepersist

import (
	"context"
	"errors"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"
)

// written notes what is changed in a storage, and takes no order while full is true, nor as many as are to be lost.
type written struct {
	certmagic.Storage
	all   []string
	full  bool
	loses int
}

func (w *written) note(what, key string) {
	w.all = append(w.all, what+" "+path.Base(path.Dir(key)))
}

func (w *written) Store(ctx context.Context, key string, value []byte) error {
	w.note("store", key)
	if isOrder := strings.Contains(key, "/orders/"); isOrder && w.loses > 0 {
		w.loses--
		return errors.New("connection refused")
	} else if isOrder && w.full {
		return errors.New("no space left on device")
	}
	return w.Storage.Store(ctx, key, value)
}

func (w *written) Delete(ctx context.Context, key string) error {
	w.note("delete", key)
	return w.Storage.Delete(ctx, key)
}

// since returns what was done since the last look.
func (w *written) since() []string {
	all := w.all
	w.all = nil
	return all
}

// A write costs more than a request to the CA, so each is here with what it is for.
func TestWhatACertificateWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := new(written)
		r := newTrial(t, func(c *Config) { w.Storage = c.Storage; c.Storage = w })
		r.knowsTheCA()
		r.dns.set(wwwName, wwwValue)
		wants := func(what string, want ...string) {
			t.Helper()
			if got := w.since(); !slices.Equal(got, want) {
				t.Errorf("%s: %q, want %q", what, got, want)
			}
		}
		const orderMade, attempt, finalize, accepted, finished = "store orders", "store names", "store orders", "store names", "delete orders"
		const toBeMade, posted = "store orders", "store orders"
		w.since()
		r.succeeds()
		wants("a certificate", orderMade, attempt, accepted, finalize, finished)

		time.Sleep(2 * storageTrusted)
		r.succeeds()
		wants("one after a while, in which the storage may have filled up", toBeMade, orderMade, attempt, accepted, finalize, finished)

		r.ca.verdict = "pending"
		r.holds(ReasonProcessing)
		wants("a CA that takes its time", orderMade, attempt, posted)
		r.ca.verdict = "valid"
		r.succeeds()
		wants("the end of it", finalize, accepted, finished)

		r.succeeds()
		w.since()
		r.ca.asked()
		w.loses = 1
		r.succeeds()
		wants("a storage that does not take the order at first", orderMade, attempt, accepted, finalize, finished)
		if n := strings.Count(r.ca.asked(), "new-order"); n != 1 {
			t.Errorf("%d orders were made, want one", n)
		}

		r.succeeds()
		r.ca.asked()
		w.full = true
		if err := r.fails(); !strings.Contains(err.Error(), "no space left") { // the storage was trusted still, and one order is lost
			t.Errorf("the error does not show why: %v", err)
		}
		r.fails()
		if n := strings.Count(r.ca.asked(), "new-order"); n > 1 {
			t.Errorf("%d orders were made that could not be kept", n)
		}
	})
}
