package formats

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestErrors(t *testing.T) {
	const n = "_validation-persist.example.com"
	good := RRset{Name: n, Zone: "example.com", TTL: 60, Known: true, Add: []string{ours}}
	with := func(change func(*RRset)) []RRset {
		s := good
		change(&s)
		return []RRset{s}
	}
	named := func(name string) []RRset { return with(func(s *RRset) { s.Name, s.Zone = name, "" }) }
	published := func(v string) []RRset { return with(func(s *RRset) { s.Published = []string{"x", v} }) }
	adding := func(f Format) []Format {
		return slices.DeleteFunc(slices.Clone(All), func(x Format) bool { return x != f })
	}
	replacing := []Format{Route53, OctoDNS, Terraform}
	for what, tt := range map[string]struct {
		formats []Format
		sets    []RRset
		parts   []string // of the error
	}{
		"unknown format":     {[]Format{"bind"}, named(n), []string{`"bind"`, "[zone nsupdate route53 octodns terraform]"}},
		"no name":            {All, named(""), []string{`record set ""`, "empty label"}},
		"final dot":          {All, named("example.com."), []string{`"example.com."`, "empty label", "without the final dot"}},
		"empty label":        {All, named("a..b"), []string{`"a..b"`, "empty label"}},
		"upper case":         {All, named("Example.com"), []string{`holds "E"`, "lower case"}},
		"wildcard":           {All, named("*.example.com"), []string{`holds "*"`}},
		"space":              {All, named("a b"), []string{`holds " "`}},
		"line feed":          {All, named("a\nsend"), []string{`"a\nsend"`, `holds "\n"`}},
		"dollar":             {All, named("$include"), []string{`holds "$"`}},
		"escape":             {All, named(`a\.b`), []string{`holds "\\"`}},
		"not ASCII":          {All, named("b\u00fccher"), []string{`holds "\xc3"`}},
		"long label":         {All, named(strings.Repeat("a", 64)), []string{"label of 64 octets"}},
		"long name":          {All, named(strings.Repeat("a.", 127)), []string{"254 octets"}},
		"bad zone":           {All, with(func(s *RRset) { s.Zone = "example.com\n" }), []string{n, `zone "example.com\n"`}},
		"root zone":          {All, with(func(s *RRset) { s.Zone = "." }), []string{n, "empty label"}},
		"other zone":         {All, with(func(s *RRset) { s.Zone = "le.com" }), []string{n, `not within its zone "le.com"`}},
		"twice":              {All, []RRset{good, good}, []string{n, "twice"}},
		"TTL":                {All, with(func(s *RRset) { s.TTL = 1 << 31 }), []string{n, "2147483648"}},
		"huge value":         {All, with(func(s *RRset) { s.Add = []string{strings.Repeat("x", maxValue+1)} }), []string{n, "16385 octets"}},
		"not read":           {replacing, with(func(s *RRset) { s.Known = false }), []string{n, "not known", "would remove it", "use zone or nsupdate"}},
		"not read, complete": {replacing, with(func(s *RRset) { s.Known, s.Add = false, nil }), []string{n, "not known"}},
		"octodns, no zone":   {adding(OctoDNS), named(n), []string{n, "zone is not known", "give the zone"}},
		"octodns, binary":    {adding(OctoDNS), published("\xff"), []string{n, `"\xff"`, "not ASCII", "use another format"}},
		"octodns, UTF-8":     {adding(OctoDNS), published("\u00fc"), []string{n, "not ASCII"}},
		"octodns, control":   {adding(OctoDNS), published("a\nb"), []string{n, `"a\nb"`, "control character"}},
		"octodns, backslash": {adding(OctoDNS), published(`a\;b`), []string{n, "backslash"}},
		"octodns, empty":     {adding(OctoDNS), published(""), []string{n, "is empty"}},
		"octodns, quoted":    {adding(OctoDNS), published(`"a"`), []string{n, "begins with a quote"}},
		"octodns, joined":    {adding(OctoDNS), published(`a" "b`), []string{n, `'" "'`}},
		"terraform, binary":  {adding(Terraform), published("\xff"), []string{n, "not UTF-8", "use another format"}},
		"terraform, NFD":     {adding(Terraform), published("e\u0301"), []string{n, "normalization"}},
		"route53, value":     {adding(Route53), published(strings.Repeat("\xff", 1000)), []string{n, "4011 characters", "4000"}},
		"route53, characters": {adding(Route53), with(func(s *RRset) {
			s.Published = []string{strings.Repeat("a", 8000), strings.Repeat("b", 8000)}
		}), []string{n, "over the limits", "remove values"}},
	} {
		for _, f := range tt.formats {
			var b bytes.Buffer
			err := Write(&b, f, tt.sets)
			if err == nil || b.Len() > 0 {
				t.Errorf("%s, %s: error %v and output %q", what, f, err, b.String())
				continue
			}
			for _, part := range tt.parts {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%s, %s: %q lacks %q", what, f, err, part)
				}
			}
		}
	}
}

type brokenWriter struct{ error }

func (w brokenWriter) Write([]byte) (int, error) { return 0, w.error }

func TestWriterError(t *testing.T) {
	broken := errors.New("disk full")
	for _, f := range All {
		if err := Write(brokenWriter{broken}, f, samples(f)); !errors.Is(err, broken) {
			t.Errorf("%s: %v", f, err)
		}
	}
}
