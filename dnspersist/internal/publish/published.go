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

// server is what one authoritative server shows at a name.
type server struct {
	// address distinguishes it from the others, and is the same whenever it answers.
	address string
	// values are the whole TXT values, foreign ones too.
	values []string
}

// published is what the authoritative servers show at a name: not what the provider's API reports, which
// may list its first page only, lag, or not be there.
type published struct {
	// zone is the apex of the zone that the name is in, without final dot.
	zone string
	// servers are those that answer.
	servers []server
	// ttl is that of the values, zero if there are none.
	ttl time.Duration
}

// reader asks the authoritative servers what is published at a name. After an error nothing is written.
type reader func(ctx context.Context, name string) (published, error)

// values are those that any server shows.
func (p published) values() []string {
	var all []string
	for _, server := range p.servers {
		all = append(all, without(server.values, all)...)
	}
	return all
}

// everywhere are the values that each server shows.
func (p published) everywhere() []string { return p.common(nil) }

// common are the values that each of the servers shows, of all if none of them is known.
func (p published) common(addresses []string) []string {
	some := slices.DeleteFunc(slices.Clone(p.servers), func(s server) bool { return !slices.Contains(addresses, s.address) })
	if len(some) == 0 {
		some = p.servers
	}
	return slices.DeleteFunc(p.values(), func(v string) bool { return slices.ContainsFunc(some, lacks(v)) })
}

// at are the values of one server. known is false if it did not answer.
func (p published) at(address string) (values []string, known bool) {
	for _, server := range p.servers {
		if server.address == address {
			return server.values, true
		}
	}
	return nil, false
}

// where are the addresses of the servers of which has is true.
func (p published) where(has func(server) bool) []string {
	var all []string
	for _, server := range p.servers {
		if has(server) {
			all = append(all, server.address)
		}
	}
	return all
}

// vanished are those of the values that a server, of which has is true, showed and does not show any more.
// Each is compared with itself, for another one may be behind. Of one that did not answer before
// no more is known than that it lacks what all others showed.
func (p published) vanished(after published, of []string, has func(server) bool) []string {
	var gone []string
	for _, server := range after.servers {
		if !has(server) {
			continue
		}
		had, known := p.at(server.address)
		if !known {
			had = p.everywhere()
		}
		for _, v := range without(of, server.values) {
			if slices.Contains(had, v) {
				gone = append(gone, without([]string{v}, gone)...)
			}
		}
	}
	return gone
}

// read asks the authoritative servers what is published at the place.
func (c *change) read(ctx context.Context, name string) (published, error) {
	if name != c.at.Name {
		return published{}, fmt.Errorf("asking for %s: this is about %s", name, c.at.Name)
	}
	round := c.Checker.Look(ctx, c.at)
	if round.Err != nil {
		return published{}, round.Err
	}
	if err := round.Whole(); err != nil {
		return published{}, err
	}
	if round.Mode == propagation.ModeRecursive {
		return published{}, errors.New("check is recursive, and resolvers show neither the zone nor what each of its servers has: publish where the name servers can be asked")
	}
	alias := round.Alias()
	switch alias.Kind {
	case propagation.AliasNotAgreed:
		return published{}, &propagation.AliasError{Alias: alias}
	case propagation.AliasSet:
		return published{}, fmt.Errorf("%s is an alias (CNAME) of %s: publish at that name, with the provider of its zone; if it is yours, configure that by delegate_to or dns_challenge_override_domain", name, alias.Targets[0])
	}
	shown := round.At(name)
	p := published{zone: shown.Zone, ttl: time.Duration(shown.TTL) * time.Second}
	for _, r := range shown.Servers {
		p.servers = append(p.servers, server{r.Host + " " + r.Addr, r.Values})
	}
	if len(p.servers) == 0 {
		return p, fmt.Errorf("none of the %d name servers of %s answers", len(round.Servers), round.Zone)
	}
	return p, c.Checker.ConfirmZone(ctx, shown)
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
	if entries, err := k.Inventory().known(ctx, at.Name); err != nil || len(entries) > 0 {
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
	if slices.ContainsFunc(shown.values(), func(v string) bool { _, err := record.Parse(v); return err != nil }) {
		return "others have TXT there, which is not a validation record", nil
	}
	return "", nil
}
