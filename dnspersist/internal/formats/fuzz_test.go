package formats

import (
	"bytes"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	validName  = regexp.MustCompile(`^[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*$`)
	plainValue = regexp.MustCompile(`^[!#-\[\]-~][ !#-\[\]-~]{0,800}$`)
)

// valid says that nothing is wrong with a set but, perhaps, its values.
func valid(f Format, s RRset) bool {
	return validName.MatchString(s.Name) && len(s.Name) <= 253 &&
		(s.Zone == "" || validName.MatchString(s.Zone) && strings.HasSuffix("."+s.Name, "."+s.Zone)) &&
		s.TTL <= math.MaxInt32 && (s.Known || !f.Replaces())
}

// fuzz writes a fuzzed set next to a fixed one, reads the output back and compares it with
// what was intended.
func fuzz(f *testing.F, format Format) {
	f.Add("_validation-persist.example.com", "example.com", uint32(3600), true, ours, "x", "v=spf1 -all", "\x00\"\\;\xff\n", "comment")
	f.Add("_validation-persist.www.example.com", "", uint32(0), false, ours, long, "", "", "a\nupdate delete x. TXT")
	f.Add("x", "x", uint32(1<<31-1), true, ours, ours, ours, `"" "`, "\u2028\u0085---\r")
	f.Add("a.1.b", "b", uint32(1), true, strings.Repeat("\xff", 16<<10), "'", "${x}", "e\u0301", strings.Repeat("x", 200))
	f.Add("a.1.b", "b", uint32(1), true, ours, "x", "y", "z", strings.Repeat("\u06a9", 254)+"x;") // a semicolon as the 512th octet
	f.Add("a b.\nsend", "b;", uint32(1), true, "x", "", "\\;", "\u00fc", "")
	f.Add("_validation-persist.second.example", "second.example", uint32(60), true, ours, "x", "y", "z", "# x.yaml\n---")
	f.Add("y", "no", uint32(1<<31), true, "null", "~", "*a", "&a", "")
	f.Fuzz(func(t *testing.T, name, zone string, ttl uint32, known bool, add1, add2, published1, published2, comment string) {
		sets := []RRset{
			{Name: name, Zone: zone, TTL: ttl, Add: []string{add1, add2}, Published: []string{published1, published2}, Known: known, Comment: []string{comment, add1}},
			{Name: "_validation-persist.second.example", Zone: "second.example", TTL: 60, Add: []string{ours}, Published: []string{"foreign"}, Known: true},
		}
		if format == Route53 {
			sets[1].Zone = zone // one batch is for one zone
			if zone != "" {
				sets[1].Name = "_second." + zone
			}
		}
		var b bytes.Buffer
		err := Write(&b, format, sets)
		good := valid(format, sets[0]) && valid(format, sets[1]) && sets[0].Name != sets[1].Name
		switch {
		case err != nil && b.Len() > 0:
			t.Fatalf("output in spite of %v", err)
		case err == nil && !good:
			t.Fatalf("no error for %+v", sets)
		case err != nil:
			plain := !slices.ContainsFunc([]string{add1, add2, published1, published2}, func(v string) bool { return !plainValue.MatchString(v) })
			if good && plain && (zone != "" || format != OctoDNS) {
				t.Fatalf("%v, for %+v", err, sets)
			}
			return
		}
		if i := bytes.IndexFunc(b.Bytes(), func(r rune) bool { return r < ' ' && r != '\n' || r == 0x7f && format != Terraform }); i >= 0 {
			t.Fatalf("a control character at %d of\n%q", i, b.Bytes())
		}
		mustEqual(t, parsers[format](t, b.Bytes()), intended(format, sets), b.Bytes())
	})
}

func FuzzZone(f *testing.F)      { fuzz(f, Zone) }
func FuzzNSUpdate(f *testing.F)  { fuzz(f, NSUpdate) }
func FuzzRoute53(f *testing.F)   { fuzz(f, Route53) }
func FuzzOctoDNS(f *testing.F)   { fuzz(f, OctoDNS) }
func FuzzTerraform(f *testing.F) { fuzz(f, Terraform) }
