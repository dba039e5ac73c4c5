package formats

import (
	"fmt"
	"strings"
	"testing"
)

// Batches are within the limits, for one zone each, and hold each set with something to add.
func TestBatches(t *testing.T) {
	var sets []RRset
	for i := range 700 {
		zone := fmt.Sprintf("zone%d.example", i%3)
		s := RRset{Name: fmt.Sprintf("_validation-persist.n%d.%s", i, zone), Zone: zone, TTL: 60, Known: true, Add: []string{ours}}
		for j := range i % 5 {
			s.Published = append(s.Published, strings.Repeat(fmt.Sprint(j), i%300))
		}
		if i%7 == 0 {
			s.Published = append(s.Published, ours)
		}
		sets = append(sets, s)
	}
	want, n := intended(Route53, sets), 0
	batches := Batches(sets)
	for _, batch := range batches {
		for _, s := range batch {
			if s.Zone != batch[0].Zone {
				t.Errorf("%s and %s in one batch", s.Zone, batch[0].Zone)
			}
		}
		output := mustWrite(t, Route53, batch)
		for name, p := range parseRoute53(t, output) {
			mustEqual(t, content{name: p}, content{name: want[name]}, output)
			n++
		}
	}
	if n != len(want) || n != 600 {
		t.Errorf("%d sets, want %d", n, len(want))
	}
	// 600 sets have about 240,000 characters.
	if len(batches) < 10 || len(batches) > 25 {
		t.Errorf("%d batches", len(batches))
	}
}

// The limits are met exactly: one more record or character is one batch more.
func TestBatchLimits(t *testing.T) {
	for what, tt := range map[string]struct {
		sets, values, octets, batches int
	}{
		"nothing":         {0, 0, 0, 0},
		"500 records":     {500, 1, 3, 1},
		"501 records":     {501, 1, 3, 2},
		"500 at a name":   {1, 500, 3, 1},
		"16000 letters":   {80, 1, 198, 1}, // and two quotes
		"16200 letters":   {81, 1, 198, 2},
		"several a batch": {10, 100, 10, 2},
	} {
		var sets []RRset
		for i := range tt.sets {
			s := RRset{Name: fmt.Sprintf("n%d", i), Known: true}
			for j := range tt.values {
				s.Add = append(s.Add, fmt.Sprintf("%0*d", tt.octets, j))
			}
			sets = append(sets, s)
		}
		batches := Batches(sets)
		if len(batches) != tt.batches {
			t.Errorf("%s: %d batches, want %d", what, len(batches), tt.batches)
		}
		for _, b := range batches {
			parseRoute53(t, mustWrite(t, Route53, b))
		}
	}
}

func TestQuoteRoute53(t *testing.T) {
	for value, want := range map[string]string{
		"":                       `""`,
		"a; b":                   `"a; b"`,
		"*.@$":                   `"*.@$"`,
		`"\`:                     `"\"\\"`,
		"\x00\t\x7f\x80\xff~ ":   `"\000\011\177\200\377~ "`,
		"\u00fc":                 `"\303\274"`,
		strings.Repeat("a", 255): `"` + strings.Repeat("a", 255) + `"`,
		strings.Repeat("a", 256): `"` + strings.Repeat("a", 255) + `" "a"`,
	} {
		if got := (RRset{}).route53Value(value); got != want {
			t.Errorf("%q: %s, want %s", value, got, want)
		}
	}
}
