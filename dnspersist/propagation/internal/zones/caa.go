package zones

import (
	"context"
	"time"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/lru"
)

// Bounds of the cache of CAA records. CAs themselves may use an answer for eight hours (section 4.2.2.1 of the
// Baseline Requirements), and RFC 2308 keeps a "no" for three at most.
const (
	maxCAATTL     = 8 * time.Hour
	maxNoCAATTL   = 3 * time.Hour
	maxCAAWeight  = 4 << 20  // octets of all answers together
	maxCAAAnswer  = 16 << 10 // octets of one; what is longer is asked for each time
	caaWeight     = 256      // octets of an answer without records, about
	caaEachWeight = 128      // octets of a record beside its texts, about
)

// caaAnswer is what resolvers have answered for one name.
type caaAnswer struct {
	records []*dns.CAA
	asked   time.Time
}

// sharedCAA serves all Checkers of the process: names that share a zone share most of the answers.
var sharedCAA = lru.New[cacheKey, caaAnswer](maxCAAWeight)

// CAA returns the CAA records of a name, or of what it is an alias of, from the resolvers. An answer, also that there
// are none, is kept for its TTL, and used again unless it was asked for before since.
func (f *Finder) CAA(ctx context.Context, name string, since time.Time) ([]*dns.CAA, error) {
	key := f.keyOf(kindCAA, name)
	if a, ok := sharedCAA.Get(key); ok && !a.asked.Before(since) {
		return a.records, nil
	}
	unlock, err := sharedCAA.Lock(ctx, key)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if a, ok := sharedCAA.Get(key); ok && !a.asked.Before(since) {
		return a.records, nil
	}
	a := caaAnswer{asked: time.Now()}
	ans, _, err := f.Resolvers.Query(ctx, name, dns.TypeCAA)
	if err != nil {
		return nil, err
	}
	weight := caaWeight + len(name)
	for _, rr := range ans.Answer {
		// behind a CNAME the owner is another name, and the records count
		if caa, ok := rr.(*dns.CAA); ok {
			a.records = append(a.records, caa)
			weight += caaEachWeight + len(caa.Hdr.Name) + len(caa.Tag) + len(caa.Value)
		}
	}
	sharedCAA.Drop(key)
	if keep := keepCAA(ans.Msg, len(a.records) > 0); keep > 0 && weight <= maxCAAAnswer {
		sharedCAA.Put(key, a, weight, a.asked.Add(keep))
	}
	return a.records, nil
}

// keepCAA is how long an answer is kept: that there are no records only where an SOA record says for how long.
func keepCAA(m *dns.Msg, found bool) time.Duration {
	keep := maxCAATTL
	if !found {
		keep = 0
		for _, rr := range m.Ns {
			if soa, ok := rr.(*dns.SOA); ok {
				keep = min(time.Duration(min(soa.Hdr.Ttl, soa.Minttl))*time.Second, maxNoCAATTL)
			}
		}
	}
	for _, rr := range m.Answer { // CNAMEs, too
		keep = min(keep, time.Duration(rr.Header().Ttl)*time.Second)
	}
	return keep
}
