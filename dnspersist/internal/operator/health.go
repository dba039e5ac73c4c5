package operator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/parking"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

// Health says how a node is.
type Health string

const (
	// HealthOK: certificates are obtained and renewed, as far as this node is concerned.
	HealthOK Health = "ok"
	// HealthDegraded: somebody should look.
	HealthDegraded Health = "degraded"
	// HealthUnusable: nothing can be obtained on this node.
	HealthUnusable Health = "unusable"
)

// HealthReply is the answer to GET /dns_persist/health.
type HealthReply struct {
	State   Health         `json:"state"`
	Reasons []HealthReason `json:"reasons"`

	isStrict bool
}

// HealthReason is what is wrong.
type HealthReason struct {
	// Code is storage, account, ca_down, certificate_ends or record_gone.
	Code string `json:"code"`
	Text string `json:"text"`
	CA   string `json:"ca,omitempty"`
	// Domains are some of those of the configuration that it is about, and Count is how many there are.
	Domains []string `json:"domains,omitempty"`
	Count   int      `json:"count,omitempty"`
}

// HTTPStatus is 503 for a node that is of no use, and with strict for one that is not as it should be.
func (h HealthReply) HTTPStatus() int {
	if h.State == HealthUnusable || h.isStrict && h.State != HealthOK {
		return http.StatusServiceUnavailable
	}
	return http.StatusOK
}

// Vitals are what a Caddy that runs has last seen of what all domains need.
type Vitals struct {
	CAs []VitalsOfCA
	// Storage is why the storage cannot be used; nil if it can.
	Storage error
}

// VitalsOfCA are those of one CA.
type VitalsOfCA struct {
	// CA is the directory URL.
	CA string
	// IsAccountLost is true if the CA has last not accepted the account.
	IsAccountLost bool
	// DownSince is since when it does not answer; zero if it does.
	DownSince time.Time
}

const (
	// downLong is how long a CA is down before that is worth a word.
	downLong = 15 * time.Minute
	// healthDomains is how many domains a reason names.
	healthDomains = 10
)

// Health returns how the node is. Domains on demand have no say in it: a tenant that leaves would
// take the node out of service.
func (o *Operator) Health(ctx context.Context) (HealthReply, error) {
	if o.Registry == nil || o.Vitals == nil {
		return HealthReply{}, errors.New("no Caddy runs here, whose health could be told")
	}
	h := HealthReply{State: HealthOK, Reasons: []HealthReason{}}
	now := walltime.Now()
	mine := slices.DeleteFunc(o.Registry.Snapshot(), func(s parking.Status) bool { return s.IsOnDemand })
	vitals := o.Vitals(ctx)
	if err := vitals.Storage; err != nil {
		h.add(HealthUnusable, HealthReason{Code: "storage", Text: foreign.Text(err.Error())}, nil)
	}
	allLost := !slices.ContainsFunc(vitals.CAs, func(v VitalsOfCA) bool { return !v.IsAccountLost })
	for _, v := range vitals.CAs {
		held := func(reason acmepersist.Reason) []parking.Status {
			return slices.DeleteFunc(slices.Clone(mine), func(s parking.Status) bool { return s.CA != v.CA || s.Reason != reason })
		}
		if v.IsAccountLost {
			state := HealthDegraded
			if allLost {
				state = HealthUnusable
			}
			h.add(state, HealthReason{
				Code: "account", CA: v.CA, Text: "the CA does not accept the account that the records name: see `caddy dns-persist account`",
			}, held(acmepersist.ReasonAccount))
		}
		// what nobody waits for is not asked again, and may be back
		if down := held(acmepersist.ReasonCADown); !v.DownSince.IsZero() && now.Sub(v.DownSince) >= downLong && len(down) > 0 {
			h.add(HealthDegraded, HealthReason{
				Code: "ca_down", CA: v.CA, Text: fmt.Sprintf("the CA has not answered, or only with errors of its own, since %s", v.DownSince.UTC().Format(time.RFC3339)),
			}, down)
		}
	}
	ending := slices.DeleteFunc(slices.Clone(mine), func(s parking.Status) bool { return !s.IsRunningOut(now) })
	slices.SortFunc(ending, func(a, b parking.Status) int {
		return cmp.Or(a.NotAfter.Compare(b.NotAfter), cmp.Compare(a.Domain, b.Domain))
	})
	if len(ending) > 0 {
		first := ending[0]
		h.add(HealthDegraded, HealthReason{Code: "certificate_ends", Text: fmt.Sprintf("the certificate of %s ends on %s, and is not renewed: %s",
			first.Domain, first.NotAfter.UTC().Format(time.RFC3339), foreign.Text(first.Explain().Text))}, ending)
	}
	if gone := slices.DeleteFunc(mine, func(s parking.Status) bool { return !isGone(s) }); len(gone) > 0 {
		h.add(HealthDegraded, HealthReason{Code: "record_gone", Text: "records that certificates are renewed by are gone or were changed: " +
			"publish them again before that, see `caddy dns-persist status`"}, gone)
	}
	return h, nil
}

// isGone reports whether the record is gone by which the certificate of a domain is renewed.
func isGone(s parking.Status) bool {
	return s.Fault != nil && (s.Reason == acmepersist.ReasonAbsent || s.Reason == acmepersist.ReasonWrong)
}

// add adds a reason, which is about some domains.
func (h *HealthReply) add(state Health, r HealthReason, about []parking.Status) {
	if h.State != HealthUnusable {
		h.State = state
	}
	r.Count = len(about)
	for _, s := range about[:min(len(about), healthDomains)] {
		r.Domains = append(r.Domains, s.Domain)
	}
	h.Reasons = append(h.Reasons, r)
}
