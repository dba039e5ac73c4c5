package publish

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// read asks the authoritative servers what is published at the place.
func (c *change) read(ctx context.Context, name string) (Standing, error) {
	if name != c.at.Name {
		return Standing{}, fmt.Errorf("asking for %s: this is about %s", name, c.at.Name)
	}
	round := c.Checker.Look(ctx, c.at)
	if round.Err != nil {
		return Standing{}, round.Err
	}
	if err := round.Whole(); err != nil {
		return Standing{}, err
	}
	if round.Mode == propagation.ModeRecursive {
		return Standing{}, errors.New("check is recursive, and resolvers tell neither the zone nor what each of its servers has: publish where the name servers can be asked")
	}
	alias := round.Alias()
	switch alias.Kind {
	case propagation.AliasNotAgreed:
		return Standing{}, &propagation.AliasError{Alias: alias}
	case propagation.AliasSet:
		return Standing{}, fmt.Errorf("%s is an alias (CNAME) of %s: publish at that name, with the provider of its zone; if it is yours, say so by delegate_to or dns_challenge_override_domain", name, alias.Targets[0])
	}
	shown := round.At(name)
	s := Standing{Zone: shown.Zone, TTL: time.Duration(shown.TTL) * time.Second}
	for _, r := range shown.Servers {
		s.Servers = append(s.Servers, Server{Address: r.Host + " " + r.Addr, Values: r.Values})
	}
	if len(s.Servers) == 0 {
		return s, fmt.Errorf("none of the %d name servers of %s answers", len(round.Servers), round.Zone)
	}
	return s, c.Checker.ConfirmZone(ctx, shown)
}

// shadows is an error if the first value at a place would hide a wildcard record from it.
func (c *change) shadows(ctx context.Context, exists bool) error {
	if exists || c.Options.AllowShadowing {
		return nil
	}
	_, found := c.Checker.Diagnose(ctx, c.at)
	for _, d := range found {
		if d.Code == propagation.CodeWildcardBreaks {
			return &ShadowingError{c.at.Name, d.Text}
		}
	}
	return nil
}

// hostTypes are what somebody else has at a name who lives there: a record of ours beside them is none
// of its business, and takes away what a wildcard answers with.
var hostTypes = []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeMX, dns.TypeNS, dns.TypeHTTPS}

// Taken returns what others have at a place where nothing of ours was written yet; empty if they have
// nothing.
func (k *Keeper) Taken(ctx context.Context, at propagation.Target) (why string, err error) {
	if entries, err := k.Inventory().Known(ctx, at.Name); err != nil || len(entries) > 0 {
		return "", err
	}
	has, err := k.Checker.Answers(ctx, at, hostTypes...)
	if err != nil {
		return "", fmt.Errorf("what others have at %s is not known, so nothing was written: %w", at.Name, err)
	}
	if len(has) > 0 {
		return fmt.Sprintf("others have %s there", strings.Join(has, ", ")), nil
	}
	shown, err := k.change(at).read(ctx, at.Name)
	if err != nil {
		return "", fmt.Errorf("the values published at %s are not known, so nothing was written: %w", at.Name, err)
	}
	if slices.ContainsFunc(shown.Values(), func(v string) bool { _, err := record.Parse(v); return err != nil }) {
		return "others have TXT there, which is not a validation record", nil
	}
	return "", nil
}
