package operator

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/parking"
)

// A node is out of service only if it is of no use, and no tenant can have a say in that.
func TestHealth(t *testing.T) {
	now := time.Now()
	held := func(reason acmepersist.Reason) parking.Status {
		return parking.Status{Domain: "a.example", CA: "one", Phase: parking.PhaseHeld, Reason: reason, Err: errors.New("why")}
	}
	ending := held(acmepersist.ReasonAbsent)
	ending.Certificate = parking.Certificate{NotAfter: now.Add(time.Hour), Urgent: now.Add(-time.Minute)}
	tenant := ending
	tenant.IsOnDemand = true
	down, lost := VitalsOfCA{CA: "one", DownSince: now.Add(-time.Hour)}, VitalsOfCA{CA: "one", IsAccountLost: true}
	well := VitalsOfCA{CA: "two"}
	gone := parking.Status{Domain: "a.example", CA: "one", Phase: parking.PhaseServed}
	gone.SetFault(&acmepersist.RecordFault{Reason: acmepersist.ReasonAbsent, LookedAt: now})
	unsure := gone
	unsure.SetFault(&acmepersist.RecordFault{Reason: acmepersist.ReasonBlocked, LookedAt: now})
	for name, tt := range map[string]struct {
		names  []parking.Status
		vitals Vitals
		want   string
	}{
		"nothing is wrong":                 {[]parking.Status{{Domain: "a.example", Phase: parking.PhaseServed}}, Vitals{CAs: []VitalsOfCA{well}}, "ok"},
		"a domain waits for its record":    {[]parking.Status{held(acmepersist.ReasonAbsent)}, Vitals{}, "ok"},
		"the storage is full":              {nil, Vitals{Storage: errors.New("disk full")}, "unusable storage"},
		"the account is lost":              {[]parking.Status{held(acmepersist.ReasonAccount)}, Vitals{CAs: []VitalsOfCA{lost}}, "unusable account a.example"},
		"that of one of two CAs is":        {nil, Vitals{CAs: []VitalsOfCA{lost, well}}, "degraded account"},
		"the CA is down for long":          {[]parking.Status{held(acmepersist.ReasonCADown)}, Vitals{CAs: []VitalsOfCA{down, well}}, "degraded ca_down a.example"},
		"it is, and nobody needs it":       {nil, Vitals{CAs: []VitalsOfCA{down}}, "ok"},
		"it is for a minute":               {[]parking.Status{held(acmepersist.ReasonCADown)}, Vitals{CAs: []VitalsOfCA{{CA: "one", DownSince: now.Add(-time.Minute)}}}, "ok"},
		"a certificate runs out":           {[]parking.Status{ending}, Vitals{}, "degraded certificate_ends a.example"},
		"a record has vanished":            {[]parking.Status{gone}, Vitals{}, "degraded record_gone a.example"},
		"one cannot be looked at":          {[]parking.Status{unsure}, Vitals{}, "ok"},
		"that of a tenant does":            {[]parking.Status{tenant}, Vitals{}, "ok"},
		"a certificate and the storage do": {[]parking.Status{ending}, Vitals{Storage: errors.New("gone")}, "unusable storage certificate_ends a.example"},
		"a tenant is held by a CA that's down": {[]parking.Status{func() parking.Status {
			s := held(acmepersist.ReasonCADown)
			s.IsOnDemand = true
			return s
		}()}, Vitals{CAs: []VitalsOfCA{down}}, "ok"},
	} {
		o := &Operator{Registry: fakeRegistry(tt.names), Vitals: func(context.Context) Vitals { return tt.vitals }}
		for query, bad := range map[string]string{"": "unusable", "?strict": "unusable degraded"} {
			status, reply := ask[HealthReply](t, o, "health"+query)
			got := []string{string(reply.State)}
			for _, r := range reply.Reasons {
				if r.Text == "" || len(r.Domains) > r.Count {
					t.Errorf("%s: a reason is %+v", name, r)
				}
				got = append(append(got, r.Code), r.Domains...)
			}
			want := http.StatusOK
			if strings.Contains(bad, got[0]) {
				want = http.StatusServiceUnavailable
			}
			if strings.Join(got, " ") != tt.want || status != want {
				t.Errorf("%s: %q with status %d, want %q with %d", name, got, status, tt.want, want)
			}
		}
	}
}

// The answer stays small, however many domains it is about.
func TestHealthOfMany(t *testing.T) {
	var many fakeRegistry
	for i := range 1000 {
		many = append(many, parking.Status{
			Domain: fmt.Sprintf("site%d.example", i), Phase: parking.PhaseServed,
			Certificate: parking.Certificate{NotAfter: time.Now().Add(time.Duration(i) * time.Minute), Urgent: time.Unix(1, 0)},
		})
	}
	o := &Operator{Registry: many, Vitals: func(context.Context) Vitals { return Vitals{} }}
	_, reply := ask[HealthReply](t, o, "health")
	if r := reply.Reasons[0]; r.Count != 1000 || len(r.Domains) != healthDomains || r.Domains[0] != "site0.example" {
		t.Errorf("the reason is %+v", r)
	}
}
