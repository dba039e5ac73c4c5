// Package fair shares what there is among those who want it, so that whoever wants too much
// starves itself alone: by registered domain, by any other key, and by what was used before.
// It asks nobody and reads no clock.
package fair

import (
	"strings"

	"golang.org/x/net/publicsuffix"
)

// Domain returns the registered domain of a name: what one owner has under a public suffix,
// "example.co.uk" for "www.example.co.uk". A name without one is its own: a public suffix
// ("home.arpa", "duckdns.org"), a single label ("nas") and the root. Below a top-level domain
// that the list does not have ("lan", "internal") it is the last two labels.
//
// A registered domain costs its owner nothing below many suffixes, so it bounds what an
// honest owner can do to others, and never alone what a hostile one can.
func Domain(name string) string {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if domain, err := publicsuffix.EffectiveTLDPlusOne(name); err == nil {
		return domain
	}
	return name
}
