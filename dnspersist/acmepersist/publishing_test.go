package acmepersist

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libdns/libdns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/publish"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// A write that was begun is repeated with the same end, or values that differ in nothing
// else would pile up.
func TestBegunValueIsRepeated(t *testing.T) {
	now := time.Unix(1_000_000_000, 0)
	w := &writing{Publishing: &Publishing{PersistFor: 30 * time.Hour}}
	value := func(account string, end time.Time, wide bool) string {
		return record.Value{IssuerDomainName: "ca.example", AccountURI: account, PersistUntil: end, Wildcard: wide}.String()
	}
	const account = "https://ca.example/1"
	wanted := value(account, now.Add(30*time.Hour), false)
	fresh := value(account, now.Add(29*time.Hour), false)
	for name, c := range map[string]struct {
		entry publish.Entry
		want  string
	}{
		"begun":           {publish.Entry{Value: fresh}, fresh},
		"seen to stand":   {publish.Entry{Value: fresh, WrittenAt: now}, wanted},
		"ends soon":       {publish.Entry{Value: value(account, now.Add(20*time.Hour), false)}, wanted},
		"another account": {publish.Entry{Value: value("https://ca.example/2", now.Add(29*time.Hour), false)}, wanted},
		"another policy":  {publish.Entry{Value: value(account, now.Add(29*time.Hour), true)}, wanted},
	} {
		if got := w.begun(wanted, []publish.Entry{c.entry}, now); got != c.want {
			t.Errorf("%s: %s", name, got)
		}
	}
	endless := value(account, time.Time{}, false)
	if got := w.begun(endless, []publish.Entry{{Value: fresh}}, now); got != endless {
		t.Errorf("without an end: %s", got)
	}
}

// Failures are tried again later and later; a rate limit is for all names.
func TestPublisherPaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p publisher
		try := func(name string, result error) error {
			end, err := p.begin(t.Context(), name)
			if err != nil {
				return err
			}
			defer end()
			return p.ended(name, result, time.Minute)
		}
		waits := func(err error, want time.Duration) {
			t.Helper()
			var failed *PublishError
			if !errors.As(err, &failed) || time.Until(failed.RetryAt) != want {
				t.Fatalf("%v, want a wait of %s", err, want)
			}
			time.Sleep(want)
		}
		broken := errors.New("HTTP 500")
		for _, want := range []time.Duration{1, 2, 4, 8, 16, 32, 64, 128, 256, 360, 360} {
			err := try("a", broken)
			if again := try("a", nil); !errors.Is(again, err) {
				t.Fatalf("it was tried again at once: %v", again)
			}
			waits(err, want*time.Minute)
		}
		if err := try("a", nil); err != nil {
			t.Fatal(err)
		}
		err := try("a", errors.New("HTTP 429: Too Many Requests"))
		var other *PublishError
		if blocked := try("b", nil); !errors.As(blocked, &other) || !other.RetryAt.Equal(time.Now().Add(5*time.Minute)) {
			t.Errorf("the provider is not left alone: %v", blocked)
		}
		waits(err, 5*time.Minute)
		waits(try("b", errors.New("Throttling: Rate exceeded")), 10*time.Minute)
		if err := try("b", nil); err != nil {
			t.Fatal(err)
		}
	})
}

// A value of ours goes only where nothing is lost by it, and nobody wants it.
func TestRetired(t *testing.T) {
	const account, thumb = "https://ca.example/1", "thumb"
	now := time.Now()
	old := now.Add(-30 * 24 * time.Hour)
	plain := record.Value{IssuerDomainName: "ca.example", AccountURI: account}
	wide := plain
	wide.Wildcard = true
	iss := New(Config{Publishing: &Publishing{Mode: PublishKeep}})
	s := &session{iss: iss, thumbprint: thumb}
	s.account.Location = account
	want := record.Want{IssuerDomainNames: []string{"ca.example"}, Dialect: record.DialectAccountURL, AccountURI: account, Domain: "www.example.com"}
	used := state.Name{Accepted: []state.AcceptedValue{{Value: wide.String(), Account: account, Wildcard: true}, {Value: plain.String(), Account: account}}}
	entry := func(v record.Value, change func(*publish.Entry)) publish.Entry {
		e := publish.Entry{Value: v.String(), Account: account, Thumbprint: thumb, WrittenAt: old, WantedAt: old}
		if change != nil {
			change(&e)
		}
		return e
	}
	for name, c := range map[string]struct {
		entry  publish.Entry
		others []string
		known  state.Name
		wide   bool
		want   bool
	}{
		"followed and used":       {entry(plain, nil), []string{wide.String()}, used, true, true},
		"not used yet":            {entry(plain, nil), []string{wide.String()}, state.Name{}, true, false},
		"nothing else stands":     {entry(plain, nil), nil, used, true, false},
		"only a foreign one":      {entry(plain, nil), []string{"other.example; accounturi=" + account}, used, true, false},
		"it would narrow":         {entry(wide, nil), []string{plain.String()}, used, false, false},
		"wanted lately":           {entry(plain, func(e *publish.Entry) { e.WantedAt = now.Add(-24 * time.Hour) }), []string{wide.String()}, used, true, false},
		"written lately":          {entry(plain, func(e *publish.Entry) { e.WrittenAt = now }), []string{wide.String()}, used, true, false},
		"another account's":       {entry(plain, func(e *publish.Entry) { e.Account = "https://ca.example/2" }), []string{wide.String()}, used, true, false},
		"another key's":           {entry(plain, func(e *publish.Entry) { e.Thumbprint = "other" }), []string{wide.String()}, used, true, false},
		"ended, follower not yet": {entry(plain, func(e *publish.Entry) { e.EndsAt = now.Add(-time.Minute) }), []string{wide.String()}, state.Name{}, true, true},
	} {
		w := wanted{want: want, wide: c.wide}
		if got := s.retired(w, c.known, c.entry, c.others, s.enduring(w, time.Hour), now); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

type appendOnly struct{}

func (appendOnly) AppendRecords(context.Context, string, []libdns.Record) ([]libdns.Record, error) {
	return nil, nil
}

// A provider that cannot remove is not taken for one that can.
func TestLockingZoneKeepsWhatAProviderCan(t *testing.T) {
	w := &writing{Publishing: &Publishing{Provider: appendOnly{}}}
	if _, ok := w.lockingZone().(libdns.RecordDeleter); ok {
		t.Error("it can remove")
	}
}
