package formats

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestReplaces(t *testing.T) {
	got := ""
	for _, f := range All {
		got += fmt.Sprint(f, " ", f.Replaces(), "; ")
	}
	if want := "zone false; nsupdate false; route53 true; octodns true; terraform true; "; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// Sets that leave nothing to do, in all formats.
func TestNothing(t *testing.T) {
	done := RRset{Name: "_x.example.com", Zone: "example.com", TTL: 60, Known: true, Add: []string{ours}, Published: []string{"foreign", ours}}
	empty := RRset{Name: "_y.example.com", Zone: "example.com", TTL: 60, Known: true}
	for _, f := range All {
		for _, sets := range [][]RRset{nil, {empty}, {done, empty}} {
			output := mustWrite(t, f, sets)
			mustEqual(t, parsers[f](t, output), intended(f, sets), output)
			if !f.Replaces() && (strings.Contains(string(output), "TXT") || strings.Count(string(output), "already") != len(sets)) {
				t.Errorf("%s: %s", f, output)
			}
		}
	}
}

// The sets and their slices stay as they are, and the published values keep their order.
func TestInput(t *testing.T) {
	for _, f := range All {
		sets := samples(f)
		slices.Reverse(sets)
		before := fmt.Sprintf("%#v", sets)
		first := mustWrite(t, f, sets)
		if after := fmt.Sprintf("%#v", sets); after != before {
			t.Errorf("%s changes its input", f)
		}
		if string(first) != string(mustWrite(t, f, sets)) {
			t.Errorf("%s writes differently each time", f)
		}
	}
	s := RRset{Known: true, Published: []string{"z", "a", "z"}, Add: []string{"m", "a", "b", "m"}}
	if got := fmt.Sprint(s.whole(), s.additions()); got != "[z a m b] [m b]" {
		t.Error(got)
	}
	s.Known = false
	if got := fmt.Sprint(s.additions()); got != "[m a b]" {
		t.Error(got)
	}
}

// A comment stays one line of bounded length in every format that has comments.
func TestComments(t *testing.T) {
	nasty := []string{
		"a\nupdate delete example.com.", "b\r\nsend", "c\u0085d\u2028e\u2029f\v\f\x00\x1b[2J\u202e", "\xff\xfe", "---", "# x.yaml",
		strings.Repeat("x", 131070) + " update delete example.com.", strings.Repeat("\u00fc", 131070),
	}
	for _, f := range []Format{Zone, NSUpdate, OctoDNS} {
		sets := samples(f)
		for i := range sets {
			sets[i].Comment = nasty
		}
		output := mustWrite(t, f, sets)
		mustEqual(t, parsers[f](t, output), intended(f, sets), output)
		if strings.Contains(string(output), "\nsend") != (f == NSUpdate) || strings.ContainsAny(string(output), "\r\x00\x1b\u2028\u202e") {
			t.Errorf("%s: %.2000q", f, output)
		}
	}
}

// Many sets of one zone are sent in messages of bounded size, and without a zone one by one.
func TestNSUpdateMessages(t *testing.T) {
	for what, tt := range map[string]struct {
		names, values, octets int
		zone                  string
		sends                 int
	}{
		"a hundred":          {100, 1, 10, "example.com", 1},
		"one more":           {101, 1, 10, "example.com", 2},
		"many at a name":     {1, 250, 10, "example.com", 3},
		"large":              {9, 1, 16 << 10, "example.com", 9},
		"rather large":       {8, 1, 8 << 10, "example.com", 3},
		"without a zone":     {3, 2, 10, "", 3},
		"without, many, one": {1, 101, 10, "", 2},
	} {
		var sets []RRset
		for i := range tt.names {
			s := RRset{Name: fmt.Sprintf("_validation-persist.n%d.example.com", i), Zone: tt.zone, TTL: 60}
			for j := range tt.values {
				s.Add = append(s.Add, fmt.Sprintf("%0*d", tt.octets, j))
			}
			sets = append(sets, s)
		}
		output := mustWrite(t, NSUpdate, sets)
		mustEqual(t, parseNSUpdate(t, output), intended(NSUpdate, sets), output)
		if n := strings.Count(string(output), "\nsend\n"); n != tt.sends {
			t.Errorf("%s: %d messages, want %d", what, n, tt.sends)
		}
		if n := strings.Count(string(output), "zone example.com.\n"); n != min(1, len(tt.zone)) {
			t.Errorf("%s: the zone is there %d times", what, n)
		}
	}
}

// The order is that of natsort 8 with its defaults.
func TestNaturalOrder(t *testing.T) {
	sorted := []string{"", "0", "1", "1-a", "1a", "1a2", "1a10", "2", "10", "99999999999999999999998", "99999999999999999999999", "_", "_.9.x", "_.10.x", "a", "a1", "a01.b", "a1.c", "a2", "a02b", "a10", "b"}
	for i, a := range sorted {
		for j, b := range sorted {
			got := strings.Compare(naturalKey(a), naturalKey(b))
			if (got < 0) != (i < j) || (got == 0) != (i == j) {
				t.Errorf("%q to %q: %d", a, b, got)
			}
		}
	}
}
