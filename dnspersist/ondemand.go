package dnspersist

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// OnDemand bounds what names of on-demand TLS cost: whoever opens a connection chooses them, as far as
// the permission (`ask`) lets them.
type OnDemand struct {
	// How many names may wait for their records. The one that nobody has asked for the longest,
	// of the registered domain that has the most, makes room for another. Default: 10000.
	MaxWaiting int `json:"max_waiting,omitempty"`

	// How many of them may be of one registered domain, such as `example.co.uk`. There is no
	// such bound for registered domains that are in the configuration. Default: 100.
	MaxWaitingPerDomain int `json:"max_waiting_per_domain,omitempty"`

	// How long a name of which no record was ever seen is watched without a handshake that
	// asks for it. The next handshake after that looks at once. Default: 24 hours.
	ForgetAfter caddy.Duration `json:"forget_after,omitempty"`

	// How many records may be published on demand in an hour for the names of one registered
	// domain. Default: 100.
	WritesPerHour int `json:"writes_per_hour,omitempty"`

	// How many names may have a record that Caddy has published, for one CA. With more,
	// nothing is published on demand any more. Default: 50000.
	MaxRecords int `json:"max_records,omitempty"`

	// How long a record that was published on demand stays while its name has no certificate
	// and nobody asks for it; at least 2 days. Default: 30 days.
	RemoveAfter caddy.Duration `json:"remove_after,omitempty"`
}

// withDefaults fills in what is not configured; o may be nil.
func (o *OnDemand) withDefaults() OnDemand {
	c := *cmp.Or(o, new(OnDemand))
	return OnDemand{
		MaxWaiting:          cmp.Or(c.MaxWaiting, 10_000),
		MaxWaitingPerDomain: cmp.Or(c.MaxWaitingPerDomain, 100),
		ForgetAfter:         cmp.Or(c.ForgetAfter, caddy.Duration(24*time.Hour)),
		WritesPerHour:       cmp.Or(c.WritesPerHour, 100),
		MaxRecords:          cmp.Or(c.MaxRecords, 50_000),
		RemoveAfter:         cmp.Or(c.RemoveAfter, caddy.Duration(30*24*time.Hour)),
	}
}

// validate checks what is configured; o may be nil.
func (o *OnDemand) validate() error {
	if o == nil {
		return nil
	}
	var errs []error
	for name, n := range map[string]int64{
		"max_waiting": int64(o.MaxWaiting), "max_waiting_per_domain": int64(o.MaxWaitingPerDomain), "forget_after": int64(o.ForgetAfter),
		"writes_per_hour": int64(o.WritesPerHour), "max_records": int64(o.MaxRecords), "remove_after": int64(o.RemoveAfter),
	} {
		if n < 0 {
			errs = append(errs, fmt.Errorf("on_demand.%s is negative: leave it out for the default, or name what may be", name))
		}
	}
	if o.RemoveAfter > 0 && o.RemoveAfter < leastRemoveAfter {
		errs = append(errs, fmt.Errorf("on_demand.remove_after: %w", errRemoveAfter))
	}
	return errors.Join(errs...)
}

// leastRemoveAfter is the least that RemoveAfter may be: that a record is wanted is noted once a day.
const leastRemoveAfter = caddy.Duration(48 * time.Hour)

var errRemoveAfter = errors.New("it has to be 48h or more, for it is noted once a day that a record is still wanted")

// onDemandWords lists the words of the block on_demand.
const onDemandWords = "max_waiting, max_waiting_per_domain, forget_after, writes_per_hour, remove_after, max_records"

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
	fields := map[string]any{
		"max_waiting": &o.MaxWaiting, "max_waiting_per_domain": &o.MaxWaitingPerDomain, "forget_after": &o.ForgetAfter,
		"writes_per_hour": &o.WritesPerHour, "max_records": &o.MaxRecords, "remove_after": &o.RemoveAfter,
	}
	seen := make(map[string]bool)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		word := d.Val()
		field, known := fields[word]
		switch {
		case seen[word]:
			return d.Errf("%s is given twice", word)
		case !known:
			return d.Errf("unrecognized option '%s' of on_demand: it is not one of %s", word, onDemandWords)
		}
		seen[word] = true
		args := d.RemainingArgs()
		if len(args) != 1 {
			return d.Errf("%s takes one argument, there are %d", word, len(args))
		}
		var err error
		switch field := field.(type) {
		case *caddy.Duration:
			if *field, err = parseDuration(args[0]); err != nil {
				return d.Errf("%s: %w", word, err)
			}
		case *int:
			if *field, err = strconv.Atoi(args[0]); err != nil || *field < 1 || *field > mostNames {
				return d.Errf("%s: %q is not a whole number from 1 to %d", word, args[0], mostNames)
			}
		}
		if word == "remove_after" && o.RemoveAfter < leastRemoveAfter {
			return d.Errf("remove_after: %w", errRemoveAfter)
		}
	}
	return nil
}

// Interface guard
var _ caddyfile.Unmarshaler = (*App)(nil)
