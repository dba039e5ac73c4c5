package publish

import (
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
	want := record.Want{IssuerDomainNames: []string{"ca.example"}, Dialect: record.DialectAccountURL, AccountURI: account, Domain: "www.example.com"}
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
		need := Need{Want: want, Margin: time.Hour, Accepted: c.accepted}
		need.Want.Wildcard = c.wide
		if got := keeper.isRetired(c.entry, c.others, need, now); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
