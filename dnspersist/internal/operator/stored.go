package operator

import (
	"context"
	"slices"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/parking"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

// stored is where domains are by what is in storage, for nobody waits for them: the given ones, or all that the
// configuration manages. It asks no CA.
func (o *Operator) stored(ctx context.Context, domains []string) (all []parking.Status, unknown []Failure, err error) {
	managed := o.Plan().Names()
	for i, domain := range domains {
		if wildcard := covering(domain); !slices.Contains(managed, domain) && slices.Contains(managed, wildcard) {
			domains[i] = wildcard
		}
	}
	groups, err := o.groups("", domains)
	if err != nil {
		return nil, nil, err
	}
	var failed failures
	for _, g := range groups {
		var some []acmepersist.Remembered
		active, err := g.issuer.ACME()
		if err == nil {
			some, err = active.Remembered(ctx, g.names)
		}
		if failed.add(g.issuer.Directory(), g.names, err); err != nil {
			continue
		}
		for _, r := range some {
			all = append(all, statusOf(r, g.issuer.Directory()))
		}
	}
	unknown, err = failed.end(ctx)
	return all, unknown, err
}

// statusOf is the status of a domain that nobody works on.
func statusOf(r acmepersist.Remembered, ca string) parking.Status {
	s := parking.Status{Domain: r.Domain, CA: ca, Phase: parking.PhaseWanted, LookedAt: r.LookedAt, Answer: r.Answer}
	if r.Certificate != nil {
		s.Certificate = parking.Certificate{NotAfter: r.Certificate.NotAfter, Urgent: r.Urgent}
		now := walltime.Now()
		if now.Before(r.Due) || r.Reason == "" && now.Before(s.NotAfter) {
			s.Phase, s.Since = parking.PhaseServed, r.Certificate.NotBefore
			if r.Fault != nil {
				s.SetFault(r.Fault)
			}
			return s
		}
	}
	s.Reason, s.Err, s.Since, s.Next = r.Reason, r.Err, r.Since, r.Until
	switch {
	case r.Reason == acmepersist.ReasonProcessing:
		s.Phase = parking.PhaseProcessing
	case r.Reason.IsRecord():
		s.Phase = parking.PhaseWaiting
	case r.Reason != "":
		s.Phase = parking.PhaseHeld
	}
	return s
}
