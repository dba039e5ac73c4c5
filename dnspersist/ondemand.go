package dnspersist

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
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
