package formats

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"testing"
)

const ours = "ca.example; accounturi=https://ca.example/acct/1"

// long is over 255 octets.
var long = "ca.example; accounturi=https://ca.example/acct/" + strings.Repeat("0123456789", 40) + "; policy=wildcard"

// foreign are values of others with all that is hard to write, for the formats that hold it.
func foreign(f Format) []string {
	switch f {
	case OctoDNS:
		return []string{`v=x; a "quoted" word; it's {here}`, " # : - ", strings.Repeat("; ", 200)}
	case Terraform:
		return []string{`say "hi"; C:\dir ${x} %{y} <&>`, "", "tab\tgr\u00fc\u00dfe", strings.Repeat("y", 300)}
	}
	return []string{`say "hi"; C:\dir`, "", "nul\x00 bell\a\r\n\xff gr\u00fc\u00dfe \u2028", strings.Repeat("\x80", 300)}
}

// samples are sets of one zone: a plain one, a long one, one beside the values of others, and one that
// is published already.
func samples(f Format) []RRset {
	return []RRset{
		{Name: "_validation-persist.www.example.com", Zone: "example.com", TTL: 3600, Known: true, Add: []string{ours}, Comment: []string{"www.example.com at ca.example"}},
		{Name: "_validation-persist.example.com", Zone: "example.com", TTL: 3600, Known: true, Add: []string{long, ours}},
		{Name: "_validation-persist.shop.example.com", Zone: "example.com", TTL: 60, Known: true, Add: []string{ours, ours}, Published: foreign(f), Comment: []string{"one\ntwo \x1b[1m", ""}},
		{Name: "_validation-persist.old.example.com", Zone: "example.com", TTL: 300, Known: true, Add: []string{ours}, Published: []string{ours}, Comment: []string{"old"}},
	}
}

// content is what is published by an output, by name: the records that it adds, or of a
// format that replaces, the whole record sets.
type content map[string]published

type published struct {
	// zone is empty in formats that do not say it.
	zone   string
	ttl    uint32
	values []string // sorted
}

// add counts one more value, and fails if the zone or TTL is another one than before.
func (c content) add(t testing.TB, name, zone string, ttl uint32, value string) {
	t.Helper()
	p, ok := c[name]
	if ok && (p.zone != zone || p.ttl != ttl) {
		t.Fatalf("%s: zone %q, TTL %d and then zone %q, TTL %d", name, p.zone, p.ttl, zone, ttl)
	}
	p.zone, p.ttl = zone, ttl
	p.values = append(p.values, value)
	slices.Sort(p.values)
	c[name] = p
}

// intended is the change that sets ask for, from the definition.
func intended(f Format, sets []RRset) content {
	c := make(content)
	for _, s := range sets {
		already := make(map[string]bool)
		for _, v := range s.Published {
			already[v] = s.Known
		}
		values := make(map[string]bool)
		for _, v := range s.Add {
			if !already[v] {
				values[v] = true
			}
		}
		if f == Route53 && len(values) == 0 {
			continue
		}
		if f.Replaces() {
			for v := range already {
				values[v] = true
			}
			for _, v := range s.Add {
				values[v] = true
			}
		}
		if len(values) == 0 {
			continue
		}
		p := published{ttl: s.TTL, values: slices.Sorted(maps.Keys(values))}
		if f == NSUpdate || f == OctoDNS || f == Terraform {
			p.zone = s.Zone
		}
		c[s.Name] = p
	}
	return c
}

// mustEqual compares contents exactly.
func mustEqual(t testing.TB, got, want content, output []byte) {
	t.Helper()
	if !maps.EqualFunc(got, want, func(x, y published) bool {
		return x.zone == y.zone && x.ttl == y.ttl && slices.Equal(x.values, y.values)
	}) {
		t.Fatalf("the output says\n%#v\ninstead of\n%#v\n%s", got, want, output)
	}
}

func mustWrite(t testing.TB, f Format, sets []RRset) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, f, sets); err != nil {
		t.Fatalf("%s: %v", f, err)
	}
	return b.Bytes()
}
