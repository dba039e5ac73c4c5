package dnspersist

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
)

// A thousand jobs start a few at a time, in their order; the job that somebody waits for goes before them.
func TestJobsStartAFewAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStarts()
		came := make(chan string, 1000)
		start := func(domain string, isPreferred bool) {
			go func() {
				s.enter(t.Context(), domain, isPreferred)
				came <- domain
			}()
			synctest.Wait()
		}
		for i := range 40 {
			start(fmt.Sprint(i), false)
		}
		start("renewal", true)
		if len(came) != startsAtOnce {
			t.Fatalf("%d have started", len(came))
		}
		for range startsAtOnce {
			s.leave(<-came)
		}
		synctest.Wait()
		var then []string
		for range startsAtOnce {
			then = append(then, <-came)
		}
		if !slices.Contains(then, "renewal") || slices.Contains(then, "39") {
			t.Errorf("then %q have started", then)
		}
		for _, domain := range then {
			s.leave(domain)
		}
		synctest.Wait()
		for len(came) > 0 {
			s.leave(<-came)
			synctest.Wait()
		}
		if len(s.running) != 0 {
			t.Errorf("%v are remembered", s.running)
		}
	})
}

// Jobs that wait for a lock of another node, or for storage that is far away, keep nobody from starting, and one
// whose configuration ends does not wait for its turn.
func TestSlowStartsHoldNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStarts()
		for i := range startsAtOnce {
			s.enter(t.Context(), fmt.Sprint("slow", i), false)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		began := time.Now()
		s.enter(ended, "ended", false)
		if time.Since(began) != 0 {
			t.Errorf("a job that has ended has waited for %s", time.Since(began))
		}
		s.enter(t.Context(), "slow0", false) // a renewal that becomes an obtain
		if time.Since(began) != 0 {
			t.Errorf("a job has waited for itself for %s", time.Since(began))
		}
		s.enter(t.Context(), "good", false)
		if time.Since(began) != startPatience {
			t.Errorf("it has waited for %s", time.Since(began))
		}
		s.leave("slow0") // it comes to its issuer at last
		time.Sleep(startPatience)
		if synctest.Wait(); len(s.running) != 0 || len(s.queues[0])+len(s.queues[1]) != 0 {
			t.Errorf("%v are remembered, %v and %v wait", s.running, s.queues[0], s.queues[1])
		}
	})
}

// Of what CertMagic does only its jobs are paced, for a configuration is loaded through the same hook. A later
// version of it may call its functions by other names: then nothing would be.
func TestOnlyJobsArePaced(t *testing.T) {
	_, o := newOwner(t, aloneApps)
	m := newCertMagic(o)
	s := &o.iss.rt.app.shared.starts
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for i := range startsAtOnce {
		s.enter(t.Context(), fmt.Sprint("other", i), false)
		s.running[fmt.Sprint("other", i)].Stop() // they stay
	}
	waits := func(do func(context.Context)) bool {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		do(ctx)
		return ctx.Err() != nil
	}
	for what, tt := range map[string]struct {
		do   func(context.Context)
		want bool
	}{
		"loading a certificate": {do: func(ctx context.Context) { _, _ = m.CacheManagedCertificate(ctx, "a.test") }},
		"obtaining one":         {do: func(ctx context.Context) { _ = m.ObtainCertAsync(ctx, "a.test") }, want: true},
		"renewing one":          {do: func(ctx context.Context) { _ = m.RenewCertAsync(acmepersist.InBackground(ctx), "a.test", false) }, want: true},
		"obtaining it in a handshake, whose end is not the job's": {do: func(ctx context.Context) {
			_ = m.ObtainCertAsync(context.WithValue(ended, certmagic.ClientHelloInfoCtxKey, ctx), "a.test")
		}},
	} {
		if got := waits(tt.do); got != tt.want {
			t.Errorf("%s: has waited for a turn: %t", what, got)
		}
	}
}
