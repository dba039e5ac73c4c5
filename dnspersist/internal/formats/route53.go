package formats

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// The limits of a ChangeResourceRecordSets request, halved, for what is UPSERTed counts twice.
// A single value has a limit, too.
const (
	maxRoute53Records    = 1000 / 2
	maxRoute53Characters = 32000 / 2
	maxRoute53Value      = 4000
)

// changeBatch and what is in it are named as in the API.
type changeBatch struct {
	Comment string
	Changes []change
}

type change struct {
	Action            string
	ResourceRecordSet resourceRecordSet
}

type resourceRecordSet struct {
	Name            string
	Type            string
	TTL             uint32
	ResourceRecords []resourceRecord
}

type resourceRecord struct {
	Value string
}

// Batches splits the sets for Route53: each batch is for one zone and within the limits of a
// request. Sets with nothing to add are left out, so there may be no batch at all. A set that is
// over the limits alone is a batch of its own, and Write refuses it.
func Batches(sets []RRset) [][]RRset {
	type load struct{ batch, records, characters int }
	var batches [][]RRset
	open := make(map[string]load)
	for _, s := range sets {
		if len(s.additions()) == 0 {
			continue
		}
		records, characters := route53Cost(s)
		l, ok := open[s.Zone]
		if !ok || l.records+records > maxRoute53Records || l.characters+characters > maxRoute53Characters {
			l = load{batch: len(batches)}
			batches = append(batches, nil)
		}
		batches[l.batch] = append(batches[l.batch], s)
		open[s.Zone] = load{l.batch, l.records + records, l.characters + characters}
	}
	return batches
}

// route53Cost is what a set counts against the limits.
func route53Cost(s RRset) (records, characters int) {
	for _, v := range s.whole() {
		records++
		characters += len(s.route53Value(v))
	}
	return records, characters
}

// writeRoute53 writes a JSON document for each batch. There is none without anything to change:
// AWS refuses a batch without changes.
func writeRoute53(b *bytes.Buffer, sets []RRset) error {
	for _, list := range Batches(sets) {
		batch := changeBatch{Comment: fmt.Sprintf("dns-persist-01, names: %d", len(list))}
		for _, s := range list {
			if records, characters := route53Cost(s); records > maxRoute53Records || characters > maxRoute53Characters {
				return refuse(s, "its %d values of %d characters are over the limits of a change batch of Route 53, %d values and %d characters; remove values that are not needed",
					records, characters, maxRoute53Records, maxRoute53Characters)
			}
			set := resourceRecordSet{Name: s.Name + ".", Type: s.rrtype(), TTL: s.TTL}
			for _, v := range s.whole() {
				quoted := s.route53Value(v)
				if len(quoted) > maxRoute53Value {
					return refuse(s, "the value %.40q... has %d characters, and Route 53 takes %d; remove it or shorten it", v, len(quoted), maxRoute53Value)
				}
				set.ResourceRecords = append(set.ResourceRecords, resourceRecord{Value: quoted})
			}
			batch.Changes = append(batch.Changes, change{Action: "UPSERT", ResourceRecordSet: set})
		}
		if err := writeJSON(b, batch); err != nil {
			return err
		}
	}
	return nil
}

// route53Value is a value of the set as Route 53 takes it, which has octets as three octal digits.
func (s RRset) route53Value(value string) string { return s.data(value, "\\%03o") }

// writeJSON writes indented JSON without the escapes that are for web pages only.
func writeJSON(b *bytes.Buffer, v any) error {
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
