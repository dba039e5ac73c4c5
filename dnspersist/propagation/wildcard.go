package propagation

import (
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// wildcard finds out whether what stands at the name, and is not what is wanted, is made from
// a wildcard record above it (RFC 4592): then a name below, which nobody has, gets the same.
// It costs one question for as long as the zone is known, and none where all is well. It
// returns what the wildcard says, empty if there is none.
func (w *walk) wildcard(ctx context.Context) string {
	st := w.last
	i := slices.IndexFunc(st.outcomes, func(o outcome) bool { return o.Alias != "" || len(o.Values) > 0 })
	if i < 0 || ctx.Err() != nil || slices.ContainsFunc(w.reports, func(s ServerReport) bool {
		return s.Verdict == VerdictYes && s.Alias == ""
	}) {
		return ""
	}
	d := w.c.discovery
	key := d.keyOf(kindWildcard, st.name)
	if e, ok := d.cache.get(key); ok && e.zone == st.zone {
		return e.said
	}
	probe := randomBelow(st.name)
	ans, err := w.c.asker.ask(ctx, dnsAddr(st.asked[i].addr), probe, dns.TypeTXT, false)
	if err != nil {
		return ""
	}
	there, here := classify(st.zone.name, probe, ans.Msg, nil), st.outcomes[i]
	said := ""
	switch {
	case here.Alias != "" && there.Alias == here.Alias:
		said = "CNAME " + display(here.Alias)
	case here.Alias == "" && len(there.Values) > 0 && slices.Equal(valuesOf([]ServerReport{there.ServerReport}), valuesOf([]ServerReport{here.ServerReport})):
		said = "TXT " + quotedValues(here.Values)
	}
	d.cache.put(&cacheEntry{key: key, zone: st.zone, said: said, expires: st.zone.expires})
	return said
}

// quotedValues shows the first few of values.
func quotedValues(values []string) string {
	var shown []string
	for _, v := range values[:min(len(values), maxNamed)] {
		shown = append(shown, quoted(v))
	}
	if more := len(values) - maxNamed; more > 0 {
		shown = append(shown, fmt.Sprintf("%d more", more))
	}
	return strings.Join(shown, ", ")
}

// randomBelow is a name below name that nobody has a record at.
func randomBelow(name string) string {
	var b [8]byte
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return "x" + hex.EncodeToString(b[:]) + "." + name
}
