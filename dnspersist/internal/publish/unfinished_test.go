package publish

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
)

func (p *place) finish() {
	p.Helper()
	if err := p.keeper.Finish(p.Context(), p.at); err != nil {
		p.Fatal(err)
	}
}

// lose has the provider lose the published values.
func (p *place) lose() {
	p.Helper()
	p.fails = 2 // the write, and putting back
	var lost *lostError
	if err := p.put(); !errors.As(err, &lost) || !slices.Equal(lost.Values, []string{"theirs"}) {
		p.Fatal(err)
	}
	if e := p.is(); e == nil || !slices.Equal(e.Beside, []string{"theirs"}) || !e.WrittenAt.IsZero() {
		p.Fatalf("noted is %+v", e)
	}
}

// What a failed write has taken away comes back although the value itself is not published.
func TestFailedWriteIsEnded(t *testing.T) {
	u := newPlace(t, "theirs")
	u.lose()
	u.finish()
	if e := u.is("theirs"); e == nil || !e.WrittenAt.IsZero() {
		t.Errorf("noted is %+v", e)
	}
	if err := u.put(); err != nil {
		t.Fatal(err)
	}
	if e := u.is("ours", "theirs"); e == nil || e.unfinished() {
		t.Errorf("noted is %+v", e)
	}
}

// The next write does not forget it either, where nobody has ended the first.
func TestNextWriteKnowsTheFailedOne(t *testing.T) {
	u := newPlace(t, "theirs")
	u.lose()
	first := u.is()
	u.fails = 1
	if err := u.put(); !errors.Is(err, errEmptied) {
		t.Fatal(err)
	}
	// but not for ever
	if e := u.is(); e == nil || !slices.Equal(e.Beside, []string{"theirs"}) || !e.At.Equal(first.At) {
		t.Fatalf("noted is %+v", e)
	}
	if err := u.put(); err != nil {
		t.Fatal(err)
	}
	if e := u.is("ours", "theirs"); e == nil || e.unfinished() {
		t.Errorf("noted is %+v", e)
	}
}

// A removal that takes all away and is cut short is ended by the next one.
func TestFailedRemovalIsEnded(t *testing.T) {
	u := newPlace(t, "theirs", "ours")
	u.note(Entry{WrittenAt: time.Now()})
	u.fails = 1
	var lost *lostError
	if _, err := u.keeper.Remove(t.Context(), u.at, "ours", nil); !errors.As(err, &lost) {
		t.Fatal(err)
	}
	if e := u.is(); e == nil || e.RemovingAt.IsZero() || !slices.Equal(e.Beside, []string{"theirs"}) {
		t.Errorf("noted is %+v", e)
	}
	if done, err := u.keeper.Remove(t.Context(), u.at, "ours", nil); err != nil || done.Gone {
		t.Errorf("%+v, %v", done, err)
	}
	if e := u.is("theirs"); e != nil {
		t.Errorf("noted is %+v", e)
	}
}

// What a process leaves that ends in the middle.
func TestFinish(t *testing.T) {
	now := time.Now().UTC()
	old := now.Add(-unfinishedFor - time.Hour)
	beside := []string{"theirs"}
	for name, c := range map[string]struct {
		values []string
		entry  Entry
		want   []string
		kept   func(*Entry) bool
	}{
		"replaced": {
			[]string{"ours"},
			Entry{At: now, Beside: beside},
			[]string{"ours", "theirs"},
			func(e *Entry) bool { return !e.unfinished() },
		},
		"replaced long ago": {
			[]string{"ours"},
			Entry{At: old, Beside: beside},
			[]string{"ours"},
			func(e *Entry) bool { return !e.unfinished() },
		},
		"emptied": {
			nil,
			Entry{At: now, Beside: beside},
			[]string{"theirs"},
			func(e *Entry) bool { return e.WrittenAt.IsZero() && slices.Equal(e.Beside, beside) },
		},
		"emptied long ago": {
			nil,
			Entry{At: old, Beside: beside},
			nil,
			func(e *Entry) bool { return e.WrittenAt.IsZero() && len(e.Beside) == 0 },
		},
		"removed": {[]string{"theirs"}, Entry{WrittenAt: old, RemovingAt: now, Beside: beside}, []string{"theirs"}, nil},
		"removed with the others": {
			nil, Entry{WrittenAt: old, RemovingAt: now, Beside: beside}, []string{"theirs"}, nil,
		},
		"removed with the others long ago": {nil, Entry{WrittenAt: old, RemovingAt: old, Beside: beside}, nil, nil},
		"not removed yet": {
			[]string{"ours", "theirs"},
			Entry{WrittenAt: old, RemovingAt: now, Beside: beside},
			[]string{"ours", "theirs"},
			func(e *Entry) bool { return e.RemovingAt.Equal(now) && slices.Equal(e.Beside, beside) },
		},
		"never removed": {
			[]string{"ours", "theirs"},
			Entry{WrittenAt: old, RemovingAt: old, Beside: beside},
			[]string{"ours", "theirs"},
			func(e *Entry) bool { return !e.unfinished() },
		},
	} {
		t.Run(name, func(t *testing.T) {
			u := newPlace(t, c.values...)
			u.note(c.entry)
			u.finish()
			e := u.is(c.want...)
			if (e != nil) != (c.kept != nil) || e != nil && !c.kept(e) {
				t.Errorf("noted is %+v", e)
			}
		})
	}
}

// While a server still shows what may be lost, it is not forgotten.
func TestFinishWaitsForServers(t *testing.T) {
	u := newPlace(t, "ours")
	u.dns.SetTXT(2, placeName, "theirs")
	u.note(Entry{At: time.Now(), Beside: []string{"theirs"}})
	u.finish()
	if e := u.is("ours"); e == nil || e.WrittenAt.IsZero() || !slices.Equal(e.Beside, []string{"theirs"}) {
		t.Fatalf("noted is %+v", e)
	}
	u.dns.SetTXT(2, placeName, "ours")
	u.finish()
	if e := u.is("ours", "theirs"); e == nil || e.unfinished() {
		t.Errorf("noted is %+v", e)
	}
}

// What we have removed is not put back as something that was beside another one of ours.
func TestRemovedIsNotPutBack(t *testing.T) {
	u := newPlace(t, "theirs", "ours")
	u.note(Entry{WrittenAt: time.Now()})
	e := Entry{Name: placeName, Value: "next", At: time.Now(), Beside: []string{"theirs", "ours"}}
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
	u := newPlace(t, "theirs", "ours")
	u.note(Entry{WrittenAt: time.Now()})
	other := &Inventory{Store: state.New(u.keeper.Store.Storage, "https://other.test/directory")}
	if err := other.Note(t.Context(), Entry{Name: placeName, Value: "next", At: time.Now(), Beside: []string{"theirs", "ours"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := u.keeper.Remove(t.Context(), u.at, "ours", nil); err != nil {
		t.Fatal(err)
	}
	all, err := other.At(t.Context(), placeName)
	if err != nil || len(all) != 1 || !slices.Equal(all[0].Beside, []string{"theirs"}) {
		t.Errorf("noted is %+v, %v", all, err)
	}
}

// A value that is gone again and again is one that its owner does not want any more.
func TestNotPutBackForEver(t *testing.T) {
	u := newPlace(t, "theirs")
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
