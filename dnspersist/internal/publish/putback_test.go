package publish

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
)

// While a server still shows what may be lost, it is not forgotten.
func TestFinishWaitsForServers(t *testing.T) {
	u := newUnfinished(t, "ours")
	u.dns.SetTXT(2, unfinishedName, "theirs")
	u.note(Entry{At: time.Now(), Beside: []string{"theirs"}})
	u.finish()
	if e := u.is("ours"); e == nil || e.WrittenAt.IsZero() || !slices.Equal(e.Beside, []string{"theirs"}) {
		t.Fatalf("noted is %+v", e)
	}
	u.dns.SetTXT(2, unfinishedName, "ours")
	u.finish()
	if e := u.is("ours", "theirs"); e == nil || e.Unfinished() {
		t.Errorf("noted is %+v", e)
	}
}

// What we have removed is not put back as something that stood beside another one of ours.
func TestRemovedIsNotPutBack(t *testing.T) {
	u := newUnfinished(t, "theirs", "ours")
	u.note(Entry{WrittenAt: time.Now()})
	e := Entry{Name: unfinishedName, Value: "next", At: time.Now(), Beside: []string{"theirs", "ours"}}
	if err := u.keeper.Inventory().Note(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if _, err := u.keeper.Remove(t.Context(), u.at, "ours", nil); err != nil {
		t.Fatal(err)
	}
	u.finish()
	if e := u.is("theirs"); e == nil || !slices.Equal(e.Beside, []string{"theirs"}) {
		t.Errorf("noted is %+v", e)
	}
}

// Nor is it put back by what is noted for another CA.
func TestRemovedIsNotPutBackForAnotherCA(t *testing.T) {
	u := newUnfinished(t, "theirs", "ours")
	u.note(Entry{WrittenAt: time.Now()})
	other := &Inventory{Store: state.New(u.keeper.Store.Storage, "https://other.test/directory")}
	if err := other.Note(t.Context(), Entry{Name: unfinishedName, Value: "next", At: time.Now(), Beside: []string{"theirs", "ours"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := u.keeper.Remove(t.Context(), u.at, "ours", nil); err != nil {
		t.Fatal(err)
	}
	all, err := other.At(t.Context(), unfinishedName)
	if err != nil || len(all) != 1 || !slices.Equal(all[0].Beside, []string{"theirs"}) {
		t.Errorf("noted is %+v, %v", all, err)
	}
}

// A value that is gone again and again is one that its owner does not want any more.
func TestNotPutBackForEver(t *testing.T) {
	u := newUnfinished(t, "theirs")
	u.note(Entry{At: time.Now(), Beside: []string{"theirs"}})
	for range putBacks {
		u.set()
		u.finish()
		u.is("theirs")
	}
	u.set()
	u.finish()
	u.is()
	u.fails = 1
	if err := u.put(); !errors.Is(err, errEmptied) {
		t.Fatal(err)
	}
	if err := u.put(); err != nil {
		t.Fatal(err)
	}
	u.is("ours")
}
