package publish

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/libdns/libdns"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

const placeName = "_validation-persist.www.example.test"

// emptying is a provider that deletes all at a name for each change, and creates anew what it
// is given. It fails in between so many times.
type emptying struct {
	dns    *lab.DNS
	fails  int
	calls  int
	values []string
}

var errEmptied = errors.New("HTTP 500 when creating")

func (p *emptying) set(values ...string) {
	p.values = values
	p.dns.SetTXT(0, placeName, values...)
}

func (p *emptying) AppendRecords(_ context.Context, _ string, recs []libdns.Record) ([]libdns.Record, error) {
	p.calls++
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

// place is a name with values, and its provider.
type place struct {
	*testing.T
	*emptying
	keeper *Keeper
	at     propagation.Target
}

func newPlace(t *testing.T, values ...string) *place {
	dns, err := lab.NewDNS(2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dns.Close)
	dns.AddZone("example.test")
	p := &emptying{dns: dns}
	p.set(values...)
	k := Keeper{
		Options: &Options{Provider: p, AllowShadowing: true, Wait: 300 * time.Millisecond, Interval: 5 * time.Millisecond},
		Store:   state.New(&certmagic.FileStorage{Path: t.TempDir()}, "https://ca.test/directory"),
		Checker: propagation.NewChecker(propagation.Config{Resolvers: []string{dns.Resolver()}, Exchanger: dns.Exchanger()}),
		Process: new(Process),
		Logger:  zap.NewNop(),
	}
	return &place{t, p, k.For(Identity{}), propagation.Target{Name: placeName}}
}

func (p *place) put() error {
	_, err := p.keeper.Put(p.Context(), p.write("ours"))
	return err
}

// write is a value that is added unless it is published.
func (p *place) write(value string) Write {
	return Write{At: p.at, Value: func(values []string) (string, error) {
		if slices.Contains(values, value) {
			return "", nil
		}
		return value, nil
	}}
}

func (p *place) note(e Entry) {
	p.Helper()
	e.Name, e.Value = placeName, "ours"
	if err := p.keeper.Inventory().Note(p.Context(), e); err != nil {
		p.Fatal(err)
	}
}

// is fails unless these values are published. It returns the entry of ours, if there is one.
func (p *place) is(values ...string) *Entry {
	p.Helper()
	if got := slices.Sorted(slices.Values(p.values)); !slices.Equal(got, values) {
		p.Errorf("there are %q, want %q", got, values)
	}
	all, err := p.keeper.Inventory().At(p.Context(), placeName)
	if err != nil || len(all) > 1 {
		p.Fatalf("%d entries, %v", len(all), err)
	}
	if len(all) == 0 {
		return nil
	}
	return &all[0]
}
