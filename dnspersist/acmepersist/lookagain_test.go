package acmepersist_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// recordsSeen is an Observer of published records.
type recordsSeen struct {
	configured, onDemand acmepersist.Records
	notices              []acmepersist.Notice
}

func (*recordsSeen) Happened(acmepersist.Event)     {}
func (r *recordsSeen) Noticed(n acmepersist.Notice) { r.notices = append(r.notices, n) }
func (*recordsSeen) Issued(time.Duration)           {}
func (r *recordsSeen) Records(onDemand bool, seen acmepersist.Records) {
	if onDemand {
		r.onDemand = seen
	} else {
		r.configured = seen
	}
}

// A record that is gone is counted from the first look that misses it to the first that finds it again. It is
// looked at again after an hour, and logged once a day all the same.
func TestGoneRecordIsLookedAtAgainSoon(t *testing.T) {
	i := newIssuing(t)
	core, logs := observer.New(zap.ErrorLevel)
	i.with(zap.New(core), nil)
	cert, err := i.issueKey(t.Context(), issuedName, i.newKey())
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Storage.Store(t.Context(), certmagic.StorageKeys.SiteCert(i.IssuerKey(), issuedName), cert.Certificate); err != nil {
		t.Fatal(err)
	}
	seen := new(recordsSeen)
	i.Observer = seen
	const name = "_validation-persist." + issuedName
	// look looks after a time, as if it had gone by
	look := func(after time.Duration, absent, logged int) {
		t.Helper()
		err := state.New(i.Storage, i.CA).UpdateName(t.Context(), name, func(n *state.Name) bool {
			for _, at := range []*time.Time{&n.LookedAt, &n.ReportedAt, &n.Accepted[0].At} {
				*at = at.Add(-after)
			}
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := i.LookAtNames(t.Context(), 24*time.Hour); err != nil {
			t.Fatal(err)
		}
		want := make(map[propagation.Status]int)
		if absent > 0 {
			want[propagation.StatusAbsent] = absent
		}
		if f := seen.configured.Faults; len(f) != absent || absent > 0 && (f[0].Reason != acmepersist.ReasonAbsent || f[0].Record.Name != name || f[0].Since.IsZero() || f[0].NeededBy.IsZero()) {
			t.Fatalf("after %s: faults are %+v, want %d", after, f, absent)
		}
		remembered, err := i.Remembered(t.Context(), []string{issuedName})
		if err != nil || (remembered[0].Fault != nil) != (absent > 0) {
			t.Fatalf("after %s: %+v is remembered: %v", after, remembered, err)
		}
		seen.configured = acmepersist.Records{}
		if err := i.RememberRecords(t.Context(), 24*time.Hour); err != nil || len(seen.configured.Faults) != absent {
			t.Fatalf("after %s: another process finds %+v: %v", after, seen.configured, err)
		}
		if got := seen.configured.NotReady; !maps.Equal(got, want) || len(seen.onDemand.NotReady) > 0 {
			t.Fatalf("after %s: %v, want %v", after, got, want)
		}
		if n := logs.FilterMessageSnippet("is gone or was changed").Len(); n != logged {
			t.Fatalf("after %s: logged %d times, want %d", after, n, logged)
		}
	}
	look(0, 0, 0)
	i.dns.ClearName(0, name)
	look(time.Hour, 0, 0) // one that was good is looked at daily
	look(24*time.Hour, 1, 1)
	look(10*time.Minute, 1, 1)
	for range 10 {
		look(2*time.Hour, 1, 1)
	}
	look(2*time.Hour, 1, 2)
	i.publish(issuedName)
	look(10*time.Minute, 1, 2) // nobody has looked
	look(time.Hour, 0, 2)
}

// A record without policy=wildcard is found for the domain that is renewed by it, and not for the wildcard that waits
// for a wider one.
func TestFoundForTheDomainOnly(t *testing.T) {
	i := newIssuing(t)
	cert, err := i.issueKey(t.Context(), issuedName, i.newKey())
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Storage.Store(t.Context(), certmagic.StorageKeys.SiteCert(i.IssuerKey(), issuedName), cert.Certificate); err != nil {
		t.Fatal(err)
	}
	if err := i.issueFor(t.Context(), "*."+issuedName); err == nil {
		t.Fatal("the record is wide enough")
	}
	seen, cfg := new(recordsSeen), i.Config
	cfg.Observer = seen
	if err := acmepersist.New(cfg).LookAtNames(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if len(seen.notices) != 1 {
		t.Fatalf("noticed are %+v", seen.notices)
	}
	n := seen.notices[0]
	if n.Kind != acmepersist.NoticeFound || !slices.Equal(n.Domains, []string{issuedName}) || !strings.HasSuffix(n.Record.Value, "; policy=wildcard") {
		t.Errorf("noticed is %+v", n)
	}
}

// The records of tenants who have left are a number: nobody who reads the log can publish them.
func TestGoneRecordsOfTenantsAreANumber(t *testing.T) {
	i := newIssuing(t)
	core, logs := observer.New(zap.DebugLevel)
	i.with(zap.New(core), nil)
	cert, err := i.issueKey(t.Context(), issuedName, i.newKey())
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Storage.Store(t.Context(), certmagic.StorageKeys.SiteCert(i.IssuerKey(), issuedName), cert.Certificate); err != nil {
		t.Fatal(err)
	}
	cfg := i.Config
	cfg.OnDemand = true
	tenants := acmepersist.New(cfg)
	i.dns.ClearName(0, "_validation-persist."+issuedName)
	if err := tenants.LookAtNames(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if all := logs.FilterMessageSnippet("is gone or was changed").All(); len(all) != 1 || all[0].Level != zap.DebugLevel {
		t.Errorf("the record is logged as %v", all)
	}
	if all := logs.FilterMessageSnippet("are not as they should be").All(); len(all) != 1 || all[0].Level != zap.InfoLevel || all[0].ContextMap()["records"] != int64(1) {
		t.Errorf("the number is logged as %v", all)
	}
}
