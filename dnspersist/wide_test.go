package dnspersist

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddytls"
)

func TestWildcards(t *testing.T) {
	at := func(ca string) *Issuer {
		return &Issuer{ACMEIssuer: &caddytls.ACMEIssuer{CA: ca}}
	}
	a, b := at("a"), at("b")
	p := plan{
		policies: []planned{
			{subjects: []string{"*.sub.example.com", "plain.example.com"}, issuers: []*Issuer{a}},
			{subjects: []string{"*.both.example.com"}, issuers: []*Issuer{a, b}},
			{subjects: []string{"*.other.example.com"}}, // another issuer's
			{issuers: []*Issuer{b}},
		},
		names: []string{"*.sub.example.com", "*.Site.example.com", "*.other.example.com", "www.example.com", "*"},
	}.indexed()
	for ca, want := range map[string][]string{
		"a": {"both.example.com", "sub.example.com"},
		"b": {"both.example.com", "site.example.com"},
		"c": nil,
	} {
		if got := slices.Sorted(maps.Keys(p.wildcards(ca))); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", ca, got, want)
		}
	}
}

// What was seen in earlier runs is read once, and counts as what is managed.
func TestWide(t *testing.T) {
	const name = "_validation-persist.seen.example.com"
	reads := 0
	w := &wide{bases: map[string]bool{"managed.example.com": true}}
	seen := func(context.Context) ([]string, error) {
		reads++
		return []string{"*.seen.example.com", "plain.example.com"}, nil
	}
	for n, want := range map[string]bool{name: true, "_validation-persist.managed.example.com": true, "_validation-persist.plain.example.com": false} {
		if got, err := w.has(t.Context(), n, seen); got != want || err != nil {
			t.Errorf("%s: %v, %v", n, got, err)
		}
	}
	if reads != 1 {
		t.Errorf("storage was read %d times", reads)
	}
	broken := &wide{bases: map[string]bool{"seen.example.com": true}}
	if got, err := broken.has(t.Context(), name, func(context.Context) ([]string, error) { return nil, errors.New("no storage") }); !got || err == nil {
		t.Errorf("%v, %v", got, err)
	}
}

// A failed read of earlier names is not the last one, nor is the end of the caller that began
// it; and nobody waits longer than their own time.
func TestWideReadsAgain(t *testing.T) {
	const name = "_validation-persist.seen.example.com"
	synctest.Test(t, func(t *testing.T) {
		reads, broken := 0, errors.New("no storage")
		w := &wide{bases: make(map[string]bool)}
		seen := func(ctx context.Context) ([]string, error) {
			reads++
			time.Sleep(10 * time.Second)
			if broken != nil {
				return nil, broken
			}
			return []string{"*.seen.example.com"}, ctx.Err()
		}
		for range 3 {
			if got, err := w.has(t.Context(), name, seen); got || !errors.Is(err, broken) {
				t.Errorf("%v, %v", got, err)
			}
		}
		if reads != 1 {
			t.Errorf("storage was read %d times within a minute of a failure", reads)
		}
		time.Sleep(rereadAfter)
		broken = nil
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if got, err := w.has(short, name, seen); got || !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("%v, %v after %s", got, err, time.Since(began))
		}
		for range 2 {
			if got, err := w.has(t.Context(), name, seen); !got || err != nil {
				t.Errorf("%v, %v", got, err)
			}
		}
		if reads != 2 {
			t.Errorf("storage was read %d times", reads)
		}
	})
}
