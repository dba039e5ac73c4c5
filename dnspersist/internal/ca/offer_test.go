package ca

import (
	"testing"
	"time"
)

// A clock that was ahead when a CA refused does not hold up anything afterwards.
func TestOfferOfAClockThatWasAhead(t *testing.T) {
	now := time.Now()
	later := now.AddDate(1, 0, 0)
	no := false
	o := Offer{CA: "https://ca.test/dir", Offered: &no, SeenAt: later, Directory: &directoryTerms{At: later}}
	o.heal(now)
	if err := clientAt(t, "{}", Config{}).Refusal(o, false); err != nil || o.Directory.At.After(now) {
		t.Errorf("%v, %+v", err, o)
	}
}
