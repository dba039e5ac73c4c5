package acmepersist

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestAskingTheCAAboutADomain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		if _, err := r.Ask(t.Context(), "www.example.test"); err == nil || r.ca.asked() != "dir" {
			t.Errorf("without an account the error is %v", err)
		}
		r.knowsTheCA()
		r.ca.verdict = "unauthorized"
		said, err := r.Ask(t.Context(), "www.example.test") // whatever DNS shows
		if err != nil || said.Valid || !strings.Contains(said.Error, "no record that fits") {
			t.Errorf("the CA's answer is %+v, %v", said, err)
		}
		r.asked("account new-order authz challenge authz")
		if n := r.name(); len(n.Attempts) != 1 {
			t.Errorf("%d attempts are counted, want 1", len(n.Attempts))
		}
		r.ca.verdict = "valid"
		if said, err := r.Ask(t.Context(), "www.example.test"); err != nil || !said.Valid || said.Earlier {
			t.Errorf("the CA's answer is %+v, %v", said, err)
		}
		r.asked("new-order authz challenge authz")
		if said, err := r.Ask(t.Context(), "www.example.test"); err != nil || !said.Valid || !said.Earlier {
			t.Errorf("the CA's answer is %+v, %v", said, err)
		}
		r.asked("order authz") // of the order that is kept
	})
}

func TestTheDailyLookAtRecords(t *testing.T) {
	const day = 24 * time.Hour
	for _, row := range []struct {
		name   string
		change func(r *trial)
		logged string // at once; nothing where it is empty
	}{
		{"the record is as the CA has accepted it", func(*trial) {}, ""},
		{"it is gone", func(r *trial) { r.dns.set(wwwName) }, "a record that a certificate is renewed by is gone or was changed; publish it again"},
		{"a server has lost it", func(r *trial) { r.dns.setAt(1, wwwName) }, "a record that a certificate is renewed by is not on all name servers"},
		{"DNS cannot be looked at", func(r *trial) { r.dns.isDown = true }, "a record that a certificate is renewed by cannot be looked at"},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newTrial(t)
				r.dns.set(wwwName, wwwValue)
				r.succeeds()
				r.hasCertificate(day, 89*day)
				time.Sleep(day)
				row.change(r)
				r.ca.asked()
				for range 2 { // the second one has nothing to do
					r.logs.TakeAll()
					if err := r.LookAtNames(t.Context(), day); err != nil {
						t.Error(err)
					}
					found := ""
					for _, e := range r.logs.TakeAll() {
						if strings.HasPrefix(e.Message, "a record ") {
							found = e.Message
						}
					}
					if found != row.logged {
						t.Errorf("logged is %q, want %q", found, row.logged)
					}
					row.logged = ""
				}
				if asked := r.ca.asked(); strings.Contains(asked, "order") {
					t.Errorf("the CA was asked for %s", asked)
				}
			})
		})
	}
}
