package dnspersist

import (
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// onDemandWords are the words of the block on_demand, and what they set.
var onDemandWords = []struct {
	word   string
	number func(*OnDemand) *int
	time   func(*OnDemand) *caddy.Duration
}{
	{word: "max_waiting", number: func(o *OnDemand) *int { return &o.MaxWaiting }},
	{word: "max_waiting_per_domain", number: func(o *OnDemand) *int { return &o.MaxWaitingPerDomain }},
	{word: "forget_after", time: func(o *OnDemand) *caddy.Duration { return &o.ForgetAfter }},
	{word: "writes_per_hour", number: func(o *OnDemand) *int { return &o.WritesPerHour }},
	{word: "remove_after", time: func(o *OnDemand) *caddy.Duration { return &o.RemoveAfter }},
	{word: "max_records", number: func(o *OnDemand) *int { return &o.MaxRecords }},
}

// mostNames is more than anybody has names, and fits into an int of every machine.
const mostNames = 1_000_000_000

// UnmarshalCaddyfile reads the global option. Syntax:
//
//	dns_persist {
//	    on_demand {
//	        max_waiting <names>
//	        max_waiting_per_domain <names>
//	        forget_after <duration>
//	        writes_per_hour <records>
//	        max_records <names>
//	        remove_after <duration>
//	    }
//	}
func (a *App) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // dns_persist
	if d.NextArg() {
		return d.Errf("the global option dns_persist takes a block and no argument: the CA's directory belongs to cert_issuer dns_persist, or to the directive in a site")
	}
	empty := true
	for d.NextBlock(0) {
		empty = false
		switch {
		case issuerWord(d.Val()):
			return d.Errf("%s is an option of the issuer: write cert_issuer dns_persist { %s … } in the global options, or the directive dns_persist in a site", d.Val(), d.Val())
		case d.Val() != "on_demand":
			return d.Errf("unrecognized option '%s' of the global dns_persist: it is not on_demand", d.Val())
		case a.OnDemand != nil:
			return d.Err("on_demand is given twice")
		}
		a.OnDemand = new(OnDemand)
		if d.NextArg() {
			return d.Errf("on_demand takes a block and no argument, such as on_demand { forget_after 24h }")
		}
		if err := a.OnDemand.unmarshal(d); err != nil {
			return err
		}
	}
	if empty {
		return d.Errf("the global option dns_persist sets nothing: for certificates of all sites write cert_issuer dns_persist in its place; its own block takes on_demand")
	}
	return nil
}

// issuerWord reports whether a word is one of the issuer's block.
func issuerWord(word string) bool {
	_, ok := words[word]
	return ok || word == "dns" || word == "preferred_chains"
}

func (o *OnDemand) unmarshal(d *caddyfile.Dispenser) error {
	seen := make(map[string]bool)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		word, known := d.Val(), false
		if seen[word] {
			return d.Errf("%s is given twice", word)
		}
		seen[word] = true
		for _, spec := range onDemandWords {
			if spec.word != word {
				continue
			}
			known = true
			args := d.RemainingArgs()
			if len(args) != 1 {
				return d.Errf("%s takes one argument, there are %d", word, len(args))
			}
			if spec.time != nil {
				value, err := parseDuration(args[0])
				if err != nil {
					return d.Errf("%s: %w", word, err)
				}
				if word == "remove_after" && value < leastRemoveAfter {
					return d.Errf("remove_after: %w", errRemoveAfter)
				}
				*spec.time(o) = value
				continue
			}
			n, err := strconv.Atoi(args[0])
			if err != nil || n < 1 || n > mostNames {
				return d.Errf("%s: %q is not a whole number from 1 to %d", word, args[0], mostNames)
			}
			*spec.number(o) = n
		}
		if !known {
			var all []string
			for _, spec := range onDemandWords {
				all = append(all, spec.word)
			}
			return d.Errf("unrecognized option '%s' of on_demand: it is not one of %s", word, strings.Join(all, ", "))
		}
	}
	return nil
}

// Interface guard
var _ caddyfile.Unmarshaler = (*App)(nil)
