package acmepersist

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/libdns/libdns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/publish"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

const unfinishedName = "_validation-persist.www.example.test"

// emptying is a provider that deletes all at a name for each change, and creates anew what it
// is given. It fails in between so many times.
type emptying struct {
	dns    *lab.DNS
	fails  int
	values []string
}

var errEmptied = errors.New("HTTP 500 when creating")

func (p *emptying) set(values ...string) {
	p.values = values
	p.dns.SetTXT(0, unfinishedName, values...)
}

func (p *emptying) AppendRecords(_ context.Context, _ string, recs []libdns.Record) ([]libdns.Record, error) {
	p.set()
	if p.fails > 0 {
		p.fails--
		return nil, errEmptied
	}
	var values []string
	for _, r := range recs {
		values = append(values, r.(libdns.TXT).Text)
	}
	p.set(values...)
	return recs, nil
}

func (p *emptying) DeleteRecords(_ context.Context, _ string, recs []libdns.Record) ([]libdns.Record, error) {
	p.set()
	return recs, nil
}

// unfinished is a name at which there stands something, and its provider.
type unfinished struct {
	*testing.T
	*emptying
	w *writing
}

func newUnfinished(t *testing.T, values ...string) *unfinished {
	dns, err := lab.NewDNS(2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dns.Close)
	dns.AddZone("example.test")
	p := &emptying{dns: dns}
	p.set(values...)
	checker := propagation.NewChecker(propagation.Config{Resolvers: []string{dns.Resolver()}, Exchanger: dns.Exchanger()})
	iss := New(Config{CA: "https://ca.test/directory", Storage: &certmagic.FileStorage{Path: t.TempDir()}, Checker: checker})
	publishing := &Publishing{Provider: p, AllowShadowing: true, Wait: 300 * time.Millisecond, Interval: 5 * time.Millisecond}
	target := propagation.Target{Name: unfinishedName}
	return &unfinished{t, p, iss.offline().writing(publishing, checker, target)}
}

func (u *unfinished) put() error {
	_, err := u.w.put(u.Context(), false, func(values []string) string {
		if slices.Contains(values, "ours") {
			return ""
		}
		return "ours"
	})
	return err
}

func (u *unfinished) endWrites() {
	u.Helper()
	if err := u.w.endWrites(u.Context(), u.w.Publishing, u.w.checker, u.w.target); err != nil {
		u.Fatal(err)
	}
}

func (u *unfinished) note(e publish.Entry) {
	u.Helper()
	e.Name, e.Value = unfinishedName, "ours"
	if err := u.w.iss.Inventory().Note(u.Context(), e); err != nil {
		u.Fatal(err)
	}
}

// is fails unless these values stand. It returns the entry of ours, if there is one.
func (u *unfinished) is(values ...string) *publish.Entry {
	u.Helper()
	if got := slices.Sorted(slices.Values(u.values)); !slices.Equal(got, values) {
		u.Errorf("there are %q, want %q", got, values)
	}
	all, err := u.w.iss.Inventory().At(u.Context(), unfinishedName)
	if err != nil || len(all) > 1 {
		u.Fatalf("%d entries, %v", len(all), err)
	}
	if len(all) == 0 {
		return nil
	}
	return &all[0]
}

// lose has the provider lose what stands.
func (u *unfinished) lose() {
	u.Helper()
	u.fails = 2 // the write, and putting back
	var lost *publish.LostError
	if err := u.put(); !errors.As(err, &lost) || !slices.Equal(lost.Values, []string{"theirs"}) {
		u.Fatal(err)
	}
	if e := u.is(); e == nil || !slices.Equal(e.Beside, []string{"theirs"}) || !e.WrittenAt.IsZero() {
		u.Fatalf("noted is %+v", e)
	}
}

// What a failed write has taken away comes back although the value itself does not stand.
func TestFailedWriteIsEnded(t *testing.T) {
	u := newUnfinished(t, "theirs")
	u.lose()
	u.endWrites()
	if e := u.is("theirs"); e == nil || !e.WrittenAt.IsZero() {
		t.Errorf("noted is %+v", e)
	}
	if err := u.put(); err != nil {
		t.Fatal(err)
	}
	if e := u.is("ours", "theirs"); e == nil || e.Unfinished() {
		t.Errorf("noted is %+v", e)
	}
}

// The next write does not forget it either, where nobody has ended the first.
func TestNextWriteKnowsTheFailedOne(t *testing.T) {
	u := newUnfinished(t, "theirs")
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
	if e := u.is("ours", "theirs"); e == nil || e.Unfinished() {
		t.Errorf("noted is %+v", e)
	}
}

// A removal that takes all away and is cut short is ended by the next one.
func TestFailedRemovalIsEnded(t *testing.T) {
	u := newUnfinished(t, "theirs", "ours")
	u.note(publish.Entry{WrittenAt: time.Now()})
	u.fails = 1
	var lost *publish.LostError
	if _, err := u.w.remove(t.Context(), "ours", nil); !errors.As(err, &lost) {
		t.Fatal(err)
	}
	if e := u.is(); e == nil || e.RemovingAt.IsZero() || !slices.Equal(e.Beside, []string{"theirs"}) {
		t.Errorf("noted is %+v", e)
	}
	if done, err := u.w.remove(t.Context(), "ours", nil); err != nil || done.Gone {
		t.Errorf("%+v, %v", done, err)
	}
	if e := u.is("theirs"); e != nil {
		t.Errorf("noted is %+v", e)
	}
}

// What a process leaves that ends in the middle.
func TestEndWrites(t *testing.T) {
	now := time.Now().UTC()
	old := now.Add(-unfinishedFor - time.Hour)
	beside := []string{"theirs"}
	for name, c := range map[string]struct {
		stands []string
		entry  publish.Entry
		want   []string
		kept   func(*publish.Entry) bool
	}{
		"replaced": {
			[]string{"ours"},
			publish.Entry{At: now, Beside: beside},
			[]string{"ours", "theirs"},
			func(e *publish.Entry) bool { return !e.Unfinished() },
		},
		"replaced long ago": {
			[]string{"ours"},
			publish.Entry{At: old, Beside: beside},
			[]string{"ours"},
			func(e *publish.Entry) bool { return !e.Unfinished() },
		},
		"emptied": {
			nil,
			publish.Entry{At: now, Beside: beside},
			[]string{"theirs"},
			func(e *publish.Entry) bool { return e.WrittenAt.IsZero() && slices.Equal(e.Beside, beside) },
		},
		"emptied long ago": {
			nil,
			publish.Entry{At: old, Beside: beside},
			nil,
			func(e *publish.Entry) bool { return e.WrittenAt.IsZero() && len(e.Beside) == 0 },
		},
		"removed": {[]string{"theirs"}, publish.Entry{WrittenAt: old, RemovingAt: now, Beside: beside}, []string{"theirs"}, nil},
		"removed with the others": {
			nil, publish.Entry{WrittenAt: old, RemovingAt: now, Beside: beside}, []string{"theirs"}, nil,
		},
		"removed with the others long ago": {nil, publish.Entry{WrittenAt: old, RemovingAt: old, Beside: beside}, nil, nil},
		"not removed yet": {
			[]string{"ours", "theirs"},
			publish.Entry{WrittenAt: old, RemovingAt: now, Beside: beside},
			[]string{"ours", "theirs"},
			func(e *publish.Entry) bool { return e.RemovingAt.Equal(now) && slices.Equal(e.Beside, beside) },
		},
		"never removed": {
			[]string{"ours", "theirs"},
			publish.Entry{WrittenAt: old, RemovingAt: old, Beside: beside},
			[]string{"ours", "theirs"},
			func(e *publish.Entry) bool { return !e.Unfinished() },
		},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUnfinished(t, c.stands...)
			u.note(c.entry)
			u.endWrites()
			e := u.is(c.want...)
			if (e != nil) != (c.kept != nil) || e != nil && !c.kept(e) {
				t.Errorf("noted is %+v", e)
			}
		})
	}
}
