package parking

import (
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

// A process that starts again polls at once, whether its former self has stopped or was killed. Other
// nodes wait for a lease that has not run out, and follow whoever took it.
func TestLease(t *testing.T) {
	t.Parallel()
	const lasts = 6 * time.Minute
	ctx := t.Context()
	st := state.New(&certmagic.FileStorage{Path: t.TempDir()}, "https://ca.test/dir")
	st.Logger = zap.NewNop()
	takes := func(who string, l *leases, want bool) {
		t.Helper()
		if got := l.take(ctx, st, lasts); got != want {
			t.Errorf("%s polls: %v, want %v", who, got, want)
		}
	}
	here, there := newLeases("1", "here"), newLeases("2", "there")
	takes("the first", here, true)
	takes("another node", there, false)
	takes("the first still", here, true)

	killed := newLeases("3", "here") // no word of the one before
	takes("the one after a kill", killed, true)
	takes("another node", there, false)
	takes("the one that lives after all", here, false)
	takes("that one later", here, false)
	takes("the one after a kill", killed, true)

	here.giveBack(ctx) // it has nothing to give back
	takes("another node", there, false)
	killed.giveBack(ctx)
	takes("another node after a stop", there, true)
	takes("the one after the stop", newLeases("4", "here"), false)

	// an installation without a name of its own is nobody else
	there.giveBack(ctx)
	takes("one without instance", newLeases("5", ""), true)
	takes("another without instance", newLeases("6", ""), false)

	for _, damage := range []string{"", "null", "{}", "[", `{"node":1}`, `{"node":"7"}`} {
		if err := st.Storage.Store(ctx, st.Key(leaseFile), []byte(damage)); err != nil {
			t.Fatal(err)
		}
		takes("one that finds "+damage, newLeases("8", "x"), true)
	}
}

// A node whose clock is ahead, by less than a lease lasts, shares it with the others all the same.
func TestLeaseWithAClockThatIsAhead(t *testing.T) {
	const lasts = leaseTicks * leaseTick
	st := state.New(&certmagic.FileStorage{Path: t.TempDir()}, "https://ca.test/dir")
	st.Logger = zap.NewNop()
	ahead, right := newLeases("1", "ahead"), newLeases("2", "right")
	for _, first := range []*leases{ahead, right} {
		for _, l := range []*leases{first, ahead, right, first} {
			setBack := walltime.Set(0)
			if l == ahead {
				setBack = walltime.Set(30 * time.Second)
			}
			if got := l.take(t.Context(), st, lasts); got != (l == first) {
				t.Errorf("where %s took the lease %s polls: %v", first.instance, l.instance, got)
			}
			setBack()
		}
		first.giveBack(t.Context())
	}
}

// Only the last configuration of a process gives the leases back: over a reload they are kept.
func TestLeaseOverReload(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	st := state.New(&certmagic.FileStorage{Path: t.TempDir()}, "https://ca.test/dir")
	st.Logger = zap.NewNop()
	old, next := new(Configuration), new(Configuration)
	r := &Registry{leases: newLeases("1", "here"), configurations: []*Configuration{old, next}}
	r.leases.take(ctx, st, time.Minute)
	(&poller{r, old}).end(ctx)
	if !st.Storage.Exists(ctx, st.Key(leaseFile)) {
		t.Error("it was given back at the reload")
	}
	r.configurations = []*Configuration{next}
	(&poller{r, next}).end(ctx)
	if st.Storage.Exists(ctx, st.Key(leaseFile)) {
		t.Error("it was not given back at the end")
	}
}
