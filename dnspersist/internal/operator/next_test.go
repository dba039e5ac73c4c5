package operator

import (
	"strings"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/parking"
)

// What is said to happen next does: other issuers are there, and nothing is tried again that is forgotten before.
func TestNextIsWhatHappens(t *testing.T) {
	o := newOperator(t)
	now := time.Now()
	later, soon := now.Add(6*time.Hour), now.Add(time.Hour)
	for text, s := range map[string]parking.Status{
		"with the other issuers":                          {Phase: parking.PhaseFailed, IsCertMagics: true, HasOthers: true},
		"CertMagic tries it again":                        {Phase: parking.PhaseFailed, IsCertMagics: true},
		"tried again in any case":                         {Phase: parking.PhaseWaiting, Next: later, ForgottenAt: later.Add(1)},
		"complete; it is forgotten unless a visitor asks": {Phase: parking.PhaseWaiting, Next: later, ForgottenAt: soon},
		"it is tried again by itself":                     {Phase: parking.PhaseHeld, Next: later},
		"it is forgotten unless":                          {Phase: parking.PhaseHeld, Next: later, ForgottenAt: soon},
		"looked at again":                                 {Phase: parking.PhaseProcessing, Next: later, ForgottenAt: soon},
	} {
		want := s.Next
		if strings.Contains(text, "forgotten") {
			want = soon
		}
		words, at := o.next(s, now)
		if !strings.Contains(words, text) || !at.Equal(want) || strings.Contains(words, "other issuers") != s.HasOthers {
			t.Errorf("%s: %s at %v, want %v", text, words, at, want)
		}
	}
}
