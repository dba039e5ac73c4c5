package parking

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// Of very many domains whose time comes at once few are begun, those first that have the least time, whatever else waits
// without a certificate; and a domain that has come to a lane makes room for the next one.
func TestFewAreOnTheWay(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		o := w.configure("a")
		defer w.end(o)
		const many = 300
		enter, end, begun := make(chan struct{}), make(chan struct{}), make(chan string, many)
		o.obtain = func(domain string) (bool, error) { // as CertMagic does, and the issuer then
			a, err := w.Begin(t.Context(), o, domain)
			if err != nil {
				t.Errorf("%s is retried in vain: %v", domain, err)
				return false, err
			}
			begun <- domain
			<-enter
			a.Progress(acmepersist.PhaseOrdering)
			<-end
			a.Settle(t.Context(), nil)
			return true, nil
		}
		for i := range many {
			h := missing(fmt.Sprintf("d%d.test", i), fmt.Sprint(i))
			if i%2 == 0 { // the later ones end sooner
				h.NotAfter, h.Urgent = time.Now().Add(time.Duration(many-i)*time.Hour), time.Now().Add(time.Duration(many/2-i)*time.Hour)
			}
			_ = w.attempt(t.Context(), o, h.Domain, h)
			w.change(o, h.Domain, func(e *entry) { e.since = time.Now().Add(-time.Minute) })
		}
		for i := range many {
			w.show(o, fmt.Sprintf("d%d.test", i), propagation.StatusReady)
		}
		synctest.Wait()
		if len(begun) != mostOnTheWay {
			t.Fatalf("%d are on the way at once, want %d", len(begun), mostOnTheWay)
		}
		for range mostOnTheWay { // who came first was not made to wait
			<-begun
		}
		var order []int
		for range many - mostOnTheWay {
			enter <- struct{}{}
			synctest.Wait()
			var i int
			if _, err := fmt.Sscanf(<-begun, "d%d.test", &i); err != nil {
				t.Fatal(err)
			}
			order = append(order, i)
		}
		group := func(i int) int { // those that run out, those that have no certificate, and those with time left
			switch {
			case i%2 == 0 && i > many/2:
				return 0
			case i%2 == 1:
				return 1
			}
			return 2
		}
		if !slices.IsSortedFunc(order, func(a, b int) int {
			if group(a) != group(b) {
				return group(a) - group(b)
			}
			if a%2 == 0 {
				return b - a
			}
			return 0
		}) {
			t.Errorf("they are begun in the order %v", order)
		}
		close(enter)
		close(end)
		synctest.Wait()
		if n := len(w.Snapshot()); n != 0 {
			t.Errorf("%d still wait", n)
		}
		w.mu.Lock()
		defer w.unlock()
		if l := w.lines[testCA]; l.onTheWay != 0 || len(l.waiting) != 0 {
			t.Errorf("the line is left with %+v", l)
		}
	})
}

// A reload leaves those in line where they are: they are retried through the configuration that lives then.
func TestLineOutlivesReloads(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		old := w.configure("a")
		goOn := make(chan struct{})
		old.obtain = func(string) (bool, error) {
			<-goOn
			return true, nil
		}
		const many = 2 * mostOnTheWay
		for i := range many {
			_ = w.attempt(t.Context(), old, fmt.Sprintf("d%d.test", i), missing(fmt.Sprintf("d%d.test", i), "v"))
		}
		for i := range many {
			w.show(old, fmt.Sprintf("d%d.test", i), propagation.StatusReady)
		}
		next := w.configure("a")
		defer w.end(next)
		for i := range many {
			w.change(old, fmt.Sprintf("d%d.test", i), func(e *entry) { e.own(next) })
		}
		next.obtain = func(string) (bool, error) { return true, nil }
		close(goOn)
		w.end(old)
		synctest.Wait()
		if old.retries() != mostOnTheWay || next.retries() != many-mostOnTheWay || len(w.Snapshot()) != 0 {
			t.Errorf("%d are retried through the ended configuration, %d through the one that lives, %d wait", old.retries(), next.retries(), len(w.Snapshot()))
		}
	})
}
