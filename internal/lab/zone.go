package lab

import (
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// zone is a zone with the copy that each of its servers has.
type zone struct {
	origin  string
	servers []int
	copies  map[int]*zoneCopy
}

type zoneCopy struct {
	serial uint32
	names  map[string][]dns.RR // by canonical owner name
	// below counts, for each name, the owner names under it. Without it every answer
	// that a name is not there would go through all of the zone's names.
	below map[string]int
}

// answer is what an authoritative server says.
type answer struct {
	rcode                    int
	authoritative            bool
	answer, authority, extra []dns.RR
}

// weight orders answers for the pick "worst".
func (a answer) weight() int {
	if a.rcode != dns.RcodeSuccess {
		return -1
	}
	return len(a.answer)
}

// AddZone adds a zone to these servers, by default to all. A zone that is
// there already is emptied.
func (d *DNS) AddZone(origin string, servers ...int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(servers) == 0 {
		for i := 1; i < len(d.servers); i++ {
			servers = append(servers, i)
		}
	}
	z := &zone{origin: dns.CanonicalName(origin), servers: slices.Clone(servers), copies: make(map[int]*zoneCopy)}
	for _, number := range servers {
		if number < 1 || number >= len(d.servers) {
			panic(fmt.Sprintf("lab: no server %d", number))
		}
		z.copies[number] = &zoneCopy{serial: 1, names: make(map[string][]dns.RR), below: make(map[string]int)}
	}
	d.zones[z.origin] = z
}

// SetTXT replaces the TXT records at name; without values it removes them.
// Server 0 means all servers of the zone.
func (d *DNS) SetTXT(server int, name string, values ...string) {
	d.change(server, name, false, func(c *zoneCopy, name string) {
		c.names[name] = slices.DeleteFunc(slices.Clone(c.names[name]), func(rr dns.RR) bool {
			return rr.Header().Rrtype == dns.TypeTXT
		})
		c.add(name, txtRecords(name, values)...)
	})
}

// AddTXT adds TXT records.
func (d *DNS) AddTXT(server int, name string, values ...string) {
	d.change(server, name, false, func(c *zoneCopy, name string) { c.add(name, txtRecords(name, values)...) })
}

// SetRR adds a record in presentation format. NS records at the origin of a
// zone whose parent zone is here, too, are the parent's: a delegation. It panics
// if rr cannot be parsed or belongs to no zone.
func (d *DNS) SetRR(server int, rr string) {
	record, err := dns.NewRR("$TTL 60\n" + rr)
	if err != nil || record == nil {
		panic(fmt.Sprintf("lab: record %q: %v", rr, err))
	}
	owner := record.Header().Name
	d.change(server, owner, record.Header().Rrtype == dns.TypeNS, func(c *zoneCopy, name string) {
		record := dns.Copy(record)
		record.Header().Name = name
		c.add(name, record)
	})
}

// ClearName removes all records at name.
func (d *DNS) ClearName(server int, name string) {
	d.change(server, name, false, func(c *zoneCopy, name string) { delete(c.names, name) })
}

// Serial is the serial number of the zone's SOA on a server, 0 if it is not there.
func (d *DNS) Serial(server int, origin string) uint32 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if z := d.zones[dns.CanonicalName(origin)]; z != nil && z.copies[server] != nil {
		return z.copies[server].serial
	}
	return 0
}

func (d *DNS) change(server int, name string, delegation bool, f func(c *zoneCopy, name string)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name = dns.CanonicalName(name)
	z := d.zoneOf(name, server)
	if delegation && z != nil && z.origin == name {
		if parent := d.zoneOf(parentName(name), server); parent != nil {
			z = parent
		}
	}
	if z == nil {
		panic(fmt.Sprintf("lab: server %d has no zone for %s", server, name))
	}
	for number, c := range z.copies {
		if server != 0 && number != server {
			continue
		}
		_, had := c.names[name]
		f(c, name)
		if len(c.names[name]) == 0 {
			delete(c.names, name)
		}
		if _, has := c.names[name]; has != had {
			c.count(name, had)
		}
		c.serial++
	}
}

func (c *zoneCopy) add(name string, records ...dns.RR) {
	c.names[name] = append(slices.Clip(c.names[name]), records...)
}

// count notes that there is an owner name more or, where it is gone, one less.
func (c *zoneCopy) count(name string, gone bool) {
	for name != "." {
		name = parentName(name)
		if !gone {
			c.below[name]++
		} else if c.below[name]--; c.below[name] == 0 {
			delete(c.below, name)
		}
	}
}

func txtRecords(name string, values []string) []dns.RR {
	var records []dns.RR
	for _, value := range values {
		rr := &dns.TXT{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: recordTTL}}
		for {
			n := min(len(value), 255)
			rr.Txt = append(rr.Txt, strings.ReplaceAll(value[:n], `\`, `\\`))
			if value = value[n:]; value == "" {
				break
			}
		}
		records = append(records, rr)
	}
	return records
}

// zoneOf is the deepest zone that has name, among those of server unless it is
// 0. d.mu is held.
func (d *DNS) zoneOf(name string, server int) *zone {
	var found *zone
	for _, z := range d.zones {
		if !dns.IsSubDomain(z.origin, name) || server != 0 && z.copies[server] == nil {
			continue
		}
		if found == nil || dns.CountLabel(z.origin) > dns.CountLabel(found.origin) {
			found = z
		}
	}
	return found
}

// lookup is what an authoritative server answers. d.mu is held.
func (d *DNS) lookup(server int, name string, qtype uint16) answer {
	name = dns.CanonicalName(name)
	z := d.zoneOf(name, server)
	if z != nil && qtype == dns.TypeDS && name == z.origin {
		if parent := d.zoneOf(parentName(name), server); parent != nil {
			z = parent
		}
	}
	if z == nil {
		return answer{rcode: dns.RcodeRefused}
	}
	return d.lookupIn(z, server, name, qtype)
}

func (d *DNS) lookupIn(z *zone, server int, name string, qtype uint16) answer {
	c := z.copies[server]
	if cut := z.cut(c, name); cut != "" && !(cut == name && qtype == dns.TypeDS) {
		a := answer{}
		for _, rr := range c.names[cut] {
			if ns, ok := rr.(*dns.NS); ok {
				a.authority = append(a.authority, dns.Copy(ns))
				a.extra = append(a.extra, d.glue(z, server, ns.Ns)...)
			}
		}
		return a
	}

	a := answer{authoritative: true}
	records, exists := d.records(z, c, name)
	if !exists {
		// The wildcard below the closest encloser.
		for encloser := parentName(name); dns.IsSubDomain(z.origin, encloser); encloser = parentName(encloser) {
			if _, there := d.records(z, c, encloser); there {
				for _, rr := range c.names["*."+encloser] {
					rr = dns.Copy(rr)
					rr.Header().Name = name
					records, exists = append(records, rr), true
				}
				break
			}
			if encloser == "." {
				break
			}
		}
	}
	if !exists {
		a.rcode = dns.RcodeNameError
	}
	for _, rr := range records {
		rrtype := rr.Header().Rrtype
		if rrtype == qtype || qtype == dns.TypeANY || rrtype == dns.TypeCNAME {
			a.answer = append(a.answer, dns.Copy(rr))
		}
	}
	if len(a.answer) == 0 {
		a.authority = []dns.RR{d.soa(z, c)}
	}
	return a
}

// records returns the records at name and whether the name exists, be it only
// because there is something below it.
func (d *DNS) records(z *zone, c *zoneCopy, name string) ([]dns.RR, bool) {
	records := c.names[name]
	if name == z.origin {
		apex := []dns.RR{d.soa(z, c)}
		for _, number := range z.servers {
			apex = append(apex, &dns.NS{
				Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeNS, Class: dns.ClassINET, Ttl: recordTTL},
				Ns:  d.Host(number),
			})
		}
		return append(apex, records...), true
	}
	if len(records) > 0 {
		return records, true
	}
	return nil, c.below[name] > 0
}

// cut is the highest name below the origin, at or above name, that is delegated.
func (z *zone) cut(c *zoneCopy, name string) string {
	found := ""
	for ; name != z.origin && name != "."; name = parentName(name) {
		if slices.ContainsFunc(c.names[name], func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeNS }) {
			found = name
		}
	}
	return found
}

func (d *DNS) glue(z *zone, server int, host string) []dns.RR {
	host = dns.CanonicalName(host)
	records := slices.Clone(z.copies[server].names[host])
	if other := d.zoneOf(host, server); other != nil && other != z {
		records = append(records, other.copies[server].names[host]...)
	}
	var glue []dns.RR
	for _, rr := range records {
		switch rr.(type) {
		case *dns.A, *dns.AAAA:
			glue = append(glue, dns.Copy(rr))
		}
	}
	return glue
}

func (d *DNS) soa(z *zone, c *zoneCopy) dns.RR {
	return &dns.SOA{
		Hdr:    dns.RR_Header{Name: z.origin, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: negativeTTL},
		Ns:     d.Host(z.servers[0]),
		Mbox:   "hostmaster." + HostZone,
		Serial: c.serial, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: negativeTTL,
	}
}
