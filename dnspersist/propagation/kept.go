package propagation

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
	"unsafe"
)

// Bounds of what is kept of a name between looks, whatever servers send: with what is made of it
// elsewhere it is less than 16 KiB. A zone of 13 hosts of both families fits.
const (
	maxKept        = 10 << 10 // octets of a Report
	maxKeptValues  = 3 << 10  // octets of different values
	maxKeptCount   = 20       // different values
	maxKeptValue   = 512      // octets of one that has little to do with the record
	maxRecordValue = 2 << 10  // octets of the record
	maxKeptText    = 512      // octets of what a server answers
	maxKeptReason  = 1 << 10  // octets of Report.Reason
)

// Weights of a value, by which those that are kept are chosen; see Target.Weigh.
const (
	WeightNone   = iota // it has nothing to do with the record
	WeightNear          // it was meant to be the record, or looks like it
	WeightRecord        // it is the record
)

// Shortened is the report with what is worth keeping: equal texts once, the values that weigh
// most, a count and a digest of the others, and no more servers than there is room for. All
// values were judged before. weigh may be nil.
func (r Report) Shortened(weigh func(value string) int) Report {
	k := keeper{texts: make(map[string]string), lists: make(map[string][]string)}
	k.choose(r, weigh)
	r.Reason, r.Bogus, r.Wildcard = k.text(r.Reason, maxKeptReason), k.text(r.Bogus, maxKeptText), k.text(r.Wildcard, maxKeptText)
	r.Name, r.Zone = k.text(r.Name, maxKeptText), k.text(r.Zone, maxKeptText)
	r.Values = k.values(r.Values)
	if len(k.left) > 0 {
		r.MoreValues, r.RestDigest = len(k.left), k.digest()
	}
	k.size += int(unsafe.Sizeof(r))

	servers := r.Servers
	r.Servers = make([]ServerReport, 0, len(servers))
	for i, s := range servers {
		s.Zone, s.Name, s.Host = k.text(s.Zone, maxKeptText), k.text(s.Name, maxKeptText), k.text(s.Host, maxKeptText)
		s.Addr, s.Alias, s.Via = k.text(s.Addr, maxKeptText), k.text(s.Alias, maxKeptText), k.text(s.Via, maxKeptText)
		s.Reason, s.Rcode = k.text(s.Reason, maxKeptText), k.text(s.Rcode, maxKeptText)
		s.Values = k.values(s.Values)
		if k.size += int(unsafe.Sizeof(s)); k.size > maxKept {
			r.MoreServers += len(servers) - i
			break
		}
		r.Servers = append(r.Servers, s)
	}
	r.Servers = slices.Clip(r.Servers)
	r.Excused = slices.Clone(r.Excused[:min(len(r.Excused), len(r.Servers))])
	for i, host := range r.Excused {
		r.Excused[i] = k.text(host, maxKeptText)
	}
	return r
}

// ValuesSeen is another list when any value that servers show is: Values, and RestDigest if some
// were left out.
func (r Report) ValuesSeen() []string {
	if r.RestDigest == "" {
		return r.Values
	}
	return append(slices.Clip(r.Values), r.RestDigest)
}

// maxWhole is how many octets of different values a name may show for somebody to write all of
// them: one message can carry as many.
const maxWhole = 64 << 10

// Whole is an error if r does not have all values, or more than anybody means to have at a name:
// who sets all values of a name would lose some.
func (r Report) Whole() error {
	if r.Problem == CodeLookBudget || r.Problem == CodeNotAsked {
		return errors.New(r.Reason)
	}
	if r.MoreValues > 0 {
		return fmt.Errorf("%s shows %d TXT values more than are handled: remove those that nobody needs", r.Name, r.MoreValues)
	}
	return whole(r.Name, r.Servers)
}

// Whole is that of [Report.Whole] for a round.
func (r Round) Whole() error { return whole(r.Name, r.Servers) }

func whole(name string, servers []ServerReport) error {
	size := 0
	values := valuesOf(servers)
	for _, v := range values {
		size += len(v)
	}
	if size > maxWhole {
		return fmt.Errorf("%s shows %d different TXT values of %d octets in all, more than are handled (%d): remove those that nobody needs", name, len(values), size, maxWhole)
	}
	return nil
}

// keeper chooses what is kept of a report, and counts it.
type keeper struct {
	texts  map[string]string   // as kept
	lists  map[string][]string // of values, as kept, by what they were
	chosen map[string]bool
	left   map[string]bool // values that are left out, whole or in part
	size   int
}

// choose chooses the values to keep.
func (k *keeper) choose(r Report, weigh func(string) int) {
	weights := make(map[string]int)
	add := func(values []string) {
		for _, v := range values {
			if _, ok := weights[v]; ok {
				continue
			}
			weights[v] = WeightNone
			if weigh != nil {
				weights[v] = weigh(v)
			}
		}
	}
	add(r.Values)
	for _, s := range r.Servers {
		add(s.Values)
	}
	k.chosen, k.left = make(map[string]bool), make(map[string]bool)
	all := slices.SortedFunc(maps.Keys(weights), func(a, b string) int {
		return cmp.Or(cmp.Compare(weights[b], weights[a]), cmp.Compare(a, b))
	})
	size := 0
	for _, v := range all {
		most := maxKeptValue
		if weights[v] == WeightRecord {
			most = maxRecordValue
		}
		length := len(v)
		if length > most {
			k.left[v] = true
			if weights[v] == WeightNone {
				continue
			}
			length = most // of a near miss the beginning matters most
		}
		if size+length > maxKeptValues || len(k.chosen) == maxKeptCount {
			k.left[v] = true
			continue
		}
		size += length
		k.chosen[v] = true
		k.texts[v] = strings.Clone(v[:length])
		k.size += length + int(unsafe.Sizeof(v))
	}
}

// values are those of a list that are kept; equal lists are one.
func (k *keeper) values(all []string) []string {
	if all == nil {
		return nil
	}
	key := strings.Join(all, "\x00")
	if kept, ok := k.lists[key]; ok {
		return kept
	}
	kept := make([]string, 0, min(len(all), maxKeptCount))
	for _, v := range all {
		if k.chosen[v] && !slices.Contains(kept, k.texts[v]) {
			kept = append(kept, k.texts[v])
		}
	}
	kept = slices.Clip(kept)
	k.size += cap(kept) * int(unsafe.Sizeof(""))
	k.lists[key] = kept
	return kept
}

// text is s, not longer than most; equal ones are one.
func (k *keeper) text(s string, most int) string {
	if s == "" {
		return ""
	}
	if kept, ok := k.texts[s]; ok && !k.chosen[s] {
		return kept
	}
	kept := s
	if len(s) > most {
		end := most - len("…")
		for end > 0 && !utf8.RuneStart(s[end]) {
			end--
		}
		kept = s[:end] + "…"
	}
	kept = strings.Clone(kept)
	k.texts[s] = kept
	k.size += len(kept)
	return kept
}

// digest identifies the values that are left out.
func (k *keeper) digest() string {
	sum := sha256.New()
	for _, v := range slices.Sorted(maps.Keys(k.left)) {
		one := sha256.Sum256([]byte(v))
		sum.Write(one[:])
	}
	return hex.EncodeToString(sum.Sum(nil)[:8])
}
