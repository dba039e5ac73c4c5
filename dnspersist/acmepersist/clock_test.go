package acmepersist

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
)

func TestClockDue(t *testing.T) {
	start := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	cert := func(life time.Duration) *x509.Certificate {
		return &x509.Certificate{NotBefore: start, NotAfter: start.Add(life)}
	}
	const day = 24 * time.Hour
	for _, tc := range []struct {
		name  string
		clock clock
		want  time.Duration // after start; negative for never
	}{
		{"90 days: half of the window", clock{certificate: cert(90 * day), ratio: 1.0 / 3}, 75 * day},
		{"10 days: 48 hours", clock{certificate: cert(10 * day), ratio: 1.0 / 3}, 8 * day},
		{"6 days: a quarter of the life", clock{certificate: cert(6 * day), ratio: 1.0 / 3}, 6*day - 36*time.Hour},
		{"6 days, wide window", clock{certificate: cert(6 * day), ratio: 0.5}, 6*day - 36*time.Hour},
		{"after an attempt: six hours later", clock{certificate: cert(90 * day), ratio: 1.0 / 3, lastAttempt: start.Add(80 * day)}, 80*day + 6*time.Hour},
		{"an attempt long ago counts no more", clock{certificate: cert(90 * day), ratio: 1.0 / 3, lastAttempt: start.Add(20 * day)}, 75 * day},
		{"a minute's certificate: not more often than a minute", clock{certificate: cert(time.Minute), ratio: 1.0 / 3, lastAttempt: start.Add(50 * time.Second)}, 110 * time.Second},
		{"first, nothing visible: never", clock{}, -1},
		{"first, partly visible: an hour", clock{partialSince: start}, time.Hour},
		{"first, partly visible, tried", clock{partialSince: start, lastAttempt: start.Add(time.Hour)}, 7 * time.Hour},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := tc.clock.due()
			if tc.want < 0 {
				if !got.IsZero() {
					t.Fatalf("due %s, want never", got)
				}
				return
			}
			if diff := got.Sub(start.Add(tc.want)).Abs(); diff > time.Second {
				t.Fatalf("due %s after the start, want %s", got.Sub(start), tc.want)
			}
		})
	}
}

func TestBudget(t *testing.T) {
	start := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	var n state.Name
	at := start
	for i := range 4 {
		if next := n.NextAttempt(); at.Before(next) {
			t.Fatalf("attempt %d is refused until %s", i+1, next)
		}
		n.CountAttempt(at)
		at = at.Add(time.Minute)
	}
	if next, want := n.NextAttempt(), start.Add(3*time.Minute+6*time.Hour); !next.Equal(want) {
		t.Errorf("the fifth attempt is allowed at %s, want %s", next, want)
	}
	at = start.Add(7 * time.Hour)
	if next := n.NextAttempt(); at.Before(next) {
		t.Errorf("after seven hours the next attempt is refused until %s", next)
	}
	n.CountAttempt(at)
	if next, want := n.NextAttempt(), at.Add(6*time.Hour); !next.Equal(want) {
		t.Errorf("after one more attempt the next is allowed at %s, want %s", next, want)
	}
	at = at.Add(48 * time.Hour)
	n.CountAttempt(at)
	if len(n.Attempts) != 1 {
		t.Errorf("%d attempts are remembered after two days, want 1", len(n.Attempts))
	}
}

func TestAcceptedValue(t *testing.T) {
	n := state.Name{Accepted: []state.AcceptedValue{{Value: "v", Account: "a"}, {Value: "w", Account: "a", Wildcard: true}}}
	for _, tc := range []struct {
		name     string
		values   []string
		account  string
		wildcard bool
		want     bool
	}{
		{"stands", []string{"x", "v"}, "a", false, true},
		{"gone", []string{"x"}, "a", false, false},
		{"other account", []string{"v"}, "b", false, false},
		{"plain value, wildcard wanted", []string{"v"}, "a", true, false},
		{"wildcard value, plain wanted", []string{"w"}, "a", false, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := n.HasAccepted(tc.values, tc.account, tc.wildcard); got != tc.want {
				t.Errorf("accepts = %v, want %v", got, tc.want)
			}
		})
	}
}
