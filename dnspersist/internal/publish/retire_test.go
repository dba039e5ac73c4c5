package publish

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// A value of ours goes only where nothing is lost by it, and nobody wants it.
func TestRetired(t *testing.T) {
	const account, thumb = "https://ca.example/1", "thumb"
	now := time.Now()
	old := now.Add(-30 * 24 * time.Hour)
	plain := record.Value{IssuerDomainName: "ca.example", AccountURI: account}
	wide := plain
	wide.Wildcard = true
	keeper := Keeper{Options: new(Options)}.For(Identity{Account: account, Thumbprint: thumb})
	want := record.Requirement{IssuerDomainNames: []string{"ca.example"}, Dialect: record.DialectAccountURL, AccountURI: account, Domain: "www.example.com"}
	used := []string{wide.String(), plain.String()}
	entry := func(v record.Value, change func(*Entry)) Entry {
		e := Entry{Value: v.String(), Account: account, Thumbprint: thumb, WrittenAt: old, WantedAt: old}
		if change != nil {
			change(&e)
		}
		return e
	}
	for name, c := range map[string]struct {
		entry    Entry
		others   []string
		accepted []string
		wide     bool
		want     bool
	}{
		"followed and used":       {entry(plain, nil), []string{wide.String()}, used, true, true},
		"not used yet":            {entry(plain, nil), []string{wide.String()}, nil, true, false},
		"nothing else is there":   {entry(plain, nil), nil, used, true, false},
		"only a foreign one":      {entry(plain, nil), []string{"other.example; accounturi=" + account}, used, true, false},
		"it would narrow":         {entry(wide, nil), []string{plain.String()}, used, false, false},
		"wanted lately":           {entry(plain, func(e *Entry) { e.WantedAt = now.Add(-24 * time.Hour) }), []string{wide.String()}, used, true, false},
		"written lately":          {entry(plain, func(e *Entry) { e.WrittenAt = now }), []string{wide.String()}, used, true, false},
		"another account's":       {entry(plain, func(e *Entry) { e.Account = "https://ca.example/2" }), []string{wide.String()}, used, true, false},
		"another key's":           {entry(plain, func(e *Entry) { e.Thumbprint = "other" }), []string{wide.String()}, used, true, false},
		"ended, follower not yet": {entry(plain, func(e *Entry) { e.EndsAt = now.Add(-time.Minute) }), []string{wide.String()}, nil, true, true},
	} {
		need := Need{Requirement: want, Margin: time.Hour, Accepted: c.accepted}
		need.Requirement.Wildcard = c.wide
		if got := keeper.isRetired(c.entry, c.others, need, now); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// A value of ours that was followed goes, and nothing else does.
func TestRetire(t *testing.T) {
	t.Parallel()
	const account = "https://ca.example/1"
	plain := record.Value{IssuerDomainName: "ca.example", AccountURI: account}
	wide := plain
	wide.Wildcard = true
	p := newPlace(t, "theirs", plain.String(), wide.String())
	p.keeper = p.keeper.For(Identity{CA: "https://ca.example", Account: account})
	old := time.Now().Add(-30 * 24 * time.Hour).UTC()
	for _, v := range []record.Value{plain, wide} {
		e := Entry{Name: placeName, Value: v.String(), Account: account, At: old, WrittenAt: old, WantedAt: old}
		if err := p.keeper.Inventory().Note(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	need := Need{
		Requirement: record.Requirement{IssuerDomainNames: []string{"ca.example"}, Dialect: record.DialectAccountURL, AccountURI: account, Domain: "www.example.test", Wildcard: true},
		Accepted:    []string{plain.String()},
	}
	retire := func() {
		t.Helper()
		if err := p.keeper.Retire(t.Context(), p.at, p.values, need); err != nil {
			t.Fatal(err)
		}
	}
	retire()
	if len(p.values) != 3 {
		t.Errorf("%q are left before the CA has accepted the other one", p.values)
	}
	need.Accepted = append(need.Accepted, wide.String())
	retire()
	if e := p.is(wide.String(), "theirs"); e == nil || time.Since(e.WantedAt) > time.Minute {
		t.Errorf("noted is %+v, which is wanted", e)
	}
}

// A value stays that is needed after all.
func TestNeededValueIsNotRemoved(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "ours", "theirs")
	p.note(Entry{At: time.Now(), WrittenAt: time.Now()})
	var beside []string
	_, err := p.keeper.Remove(t.Context(), p.at, "ours", func(others []string) bool { beside = others; return true })
	if !errors.Is(err, ErrNeeded) || !slices.Equal(beside, []string{"theirs"}) {
		t.Errorf("%v, beside it are %q", err, beside)
	}
	p.is("ours", "theirs")
}

// That a record is wanted on demand is noted once a day.
func TestNoteInterest(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "ours")
	for age, isNoted := range map[time.Duration]bool{time.Hour: false, 25 * time.Hour: true} {
		for _, onDemand := range []bool{false, true} {
			at := time.Now().Add(-age).UTC()
			p.note(Entry{At: at, WrittenAt: at, WantedAt: at, OnDemand: onDemand})
			if err := p.keeper.NoteInterest(t.Context(), p.at); err != nil {
				t.Fatal(err)
			}
			if e := p.is("ours"); e.WantedAt.After(at) != (isNoted && onDemand) {
				t.Errorf("%s old, on demand %v: noted is %+v", age, onDemand, e)
			}
		}
	}
}
