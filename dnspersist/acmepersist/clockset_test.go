package acmepersist_test

import (
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/dnspersist/caddy-dnspersist/internal/lab"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

// jumps are changes of the clock: by NTP some time after the start of a machine without a
// battery, by hand, by a virtual machine that goes on.
var jumps = map[string]time.Duration{
	"three hours ahead": 3 * time.Hour, "forty days ahead": 40 * 24 * time.Hour,
	"three hours back": -3 * time.Hour, "forty days back": -40 * 24 * time.Hour,
}

// These tests set the clock of the process, and so run by themselves.

// A name that waits for time to go by waits no longer than it should when the clock is set.
func TestClockIsSetWhileANameWaits(t *testing.T) {
	for what, jump := range jumps {
		t.Run(what, func(t *testing.T) {
			i := newIssuing(t)
			i.CacheCap = time.Minute
			if err := i.issue(t.Context()); err != nil {
				t.Fatal(err)
			}
			i.ca.FailValidations(&lab.ErrSecondary)
			i.refuse("ca_disagrees")
			i.refuse("it is asked again after")
			i.ca.FailValidations(nil)
			defer walltime.Set(jump)()
			if err := i.issue(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// The same holds for what the CA has said of a name.
func TestClockIsSetWhileTheCALimits(t *testing.T) {
	for what, jump := range jumps {
		t.Run(what, func(t *testing.T) {
			i := newIssuing(t)
			i.ca.Inject(lab.TooMany(issuedName, time.Hour))
			i.limited(issuedName)
			i.ca.ClearFaults()
			defer walltime.Set(jump)()
			if err := i.issue(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// An order that the CA is validating is gone on with, and no challenge is posted twice.
func TestClockIsSetWhileTheCAValidates(t *testing.T) {
	for what, jump := range jumps {
		t.Run(what, func(t *testing.T) {
			i := newIssuing(t)
			i.ca.SetValidationDelay(2 * time.Second)
			i.refuse("ca_processing")
			defer walltime.Set(jump)()
			if jump > i.Timeout && jump > 24*time.Hour {
				return // the order has run out by this clock, and another one is made
			}
			if err := i.decided(); err != nil {
				t.Fatal(err)
			}
			if n := len(i.ca.Challenges()); n != 1 {
				t.Errorf("%d validations were asked for, want 1", n)
			}
			if jump < 0 && i.noted().After(time.Now().Add(jump+time.Minute)) {
				t.Error("the post of the challenge is noted for a time that has not come")
			}
		})
	}
}

// noted is the latest time in the kept order, zero if there is none.
func (i *issuing) noted() time.Time {
	i.t.Helper()
	data, err := os.ReadFile(i.file("orders", issuedName+".json"))
	if os.IsNotExist(err) {
		return time.Time{}
	}
	var kept struct {
		At time.Time `json:"posted_at"`
	}
	if err != nil || json.Unmarshal(data, &kept) != nil {
		i.t.Fatal(err)
	}
	return kept.At
}

// A certificate that runs out by a clock that was put right is asked for, although a server
// lacks the record; by one that was put back it waits for DNS.
func TestClockIsSetWhileACertificateRuns(t *testing.T) {
	for what, tc := range map[string]struct {
		jump  time.Duration
		asked bool
	}{"eighty days ahead": {80 * 24 * time.Hour, true}, "a day ahead": {24 * time.Hour, false}, "a day back": {-24 * time.Hour, false}} {
		t.Run(what, func(t *testing.T) {
			i := newIssuing(t)
			cert, err := i.issueKey(t.Context(), issuedName, i.newKey())
			if err != nil {
				t.Fatal(err)
			}
			if err := i.Storage.Store(t.Context(), certmagic.StorageKeys.SiteCert(i.IssuerKey(), issuedName), cert.Certificate); err != nil {
				t.Fatal(err)
			}
			i.dns.ClearName(2, "_validation-persist."+issuedName)
			i.PropagationTimeout = 10 * time.Millisecond
			before := len(i.ca.Challenges())
			defer walltime.Set(tc.jump)()
			err = i.issue(t.Context())
			if asked := len(i.ca.Challenges()) > before; asked != tc.asked {
				t.Errorf("the CA was asked: %v, want %v: %v", asked, tc.asked, err)
			}
		})
	}
}
