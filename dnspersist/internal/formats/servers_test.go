//go:build unix

package formats

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/internal/realdns"
)

// everyOctet is a value over 255 octets with each octet in it.
func everyOctet() string {
	var b strings.Builder
	for i := range 300 {
		b.WriteByte(byte(i))
	}
	return b.String()
}

// nasty are values that a parser of zone files may stumble over.
func nasty() []string {
	return []string{
		"", `say "hi"; C:\dir`, `\`, `"`, `\\;`, ";", "$INCLUDE /etc/passwd", "@ ( ) *", `\000 \"`,
		"gr\u00fc\u00dfe", "a\tb\r\nupdate delete example.test.", "\x00\x7f\x80\xff", everyOctet(), strings.Repeat(`"\`, 400),
	}
}

const (
	example = "example.test"
	name    = "_validation-persist.www.example.test"
	value   = "ca.example; accounturi=https://ca.example/acct/1"
	ns      = "@ NS ns1\nns1 A 192.0.2.1\n"
)

func mustHave(t *testing.T, s *realdns.Server, name string, ttl uint32, want ...string) {
	t.Helper()
	got, gotTTL := s.Values(name)
	slices.Sort(want)
	if !slices.Equal(got, want) || gotTTL != ttl {
		t.Errorf("%s has, with TTL %d,\n%q\ninstead of, with TTL %d,\n%q", name, gotTTL, got, ttl, want)
	}
}

func serial(t *testing.T, s *realdns.Server, zone string) uint32 {
	t.Helper()
	answer, err := s.Query(zone, dns.TypeSOA)
	if err != nil || len(answer.Answer) == 0 {
		t.Fatalf("no SOA record: %v", err)
	}
	return answer.Answer[0].(*dns.SOA).Serial
}

func written(t *testing.T, f Format, sets ...RRset) string {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, f, sets); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// The zone format is what BIND and Knot read, next to what the zone has.
func TestFormatZone(t *testing.T) {
	const apex = "_validation-persist." + example
	text := ns + name + ". TXT \"v=spf1 -all\"\n" + written(
		t, Zone,
		RRset{Name: name, TTL: 60, Add: []string{value, value}, Comment: []string{"one\n@ TXT injected", ""}},
		RRset{Name: apex, Zone: example, TTL: 7200, Add: nasty()},
		RRset{Name: "_validation-persist.old." + example, TTL: 60, Known: true, Add: []string{value}, Published: []string{value}},
	)
	for make, start := range map[string]func(testing.TB, ...realdns.Zone) *realdns.Server{"BIND": realdns.BIND, "Knot": realdns.Knot} {
		t.Run(make, func(t *testing.T) {
			s := start(t, realdns.Zone{Origin: example, Text: text})
			mustHave(t, s, name, 60, value, "v=spf1 -all")
			mustHave(t, s, apex, 7200, nasty()...)
			mustHave(t, s, "_validation-persist.old."+example, 0)
			mustHave(t, s, example, 0)
		})
	}
}

// The script of the nsupdate format adds to the published values, in each zone, and changes nothing
// when it is run again. Knot takes it, too.
func TestFormatNSUpdate(t *testing.T) {
	const other = "other.test"
	const apex, elsewhere = "_validation-persist." + example, "_validation-persist." + other
	published := []string{`v=x; "foreign" \ value`, "gr\u00fc\u00dfe", ""}
	sets := []RRset{
		{Name: name, Zone: example, TTL: 60, Known: true, Add: []string{value}, Published: published, Comment: []string{"one\nupdate delete " + name + ".", strings.Repeat("x", 131070) + "update delete " + name + "."}},
		{Name: elsewhere, Zone: other, TTL: 300, Add: nasty()},
		{Name: apex, Zone: example, TTL: 60, Known: true, Add: nasty()},
		{Name: "_validation-persist.old." + example, Zone: example, TTL: 60, Known: true, Add: []string{value}, Published: []string{value}},
	}
	for i := range 240 { // more than two messages
		sets = append(sets, RRset{Name: fmt.Sprintf("_validation-persist.n%d.%s", i, example), Zone: example, TTL: 60, Add: []string{value}})
	}
	script := written(t, NSUpdate, sets...)
	foreign := strings.ReplaceAll(written(t, Zone, RRset{Name: name, TTL: 60, Add: published}), "\r", "")
	for make, start := range map[string]func(testing.TB, ...realdns.Zone) *realdns.Server{"BIND": realdns.BIND, "Knot": realdns.Knot} {
		t.Run(make, func(t *testing.T) {
			nsupdate := realdns.Program(t, "nsupdate", "bind9-dnsutils")
			s := start(t, realdns.Zone{Origin: example, Text: ns + foreign}, realdns.Zone{Origin: other, Text: ns})
			mustHave(t, s, name, 60, published...)
			key := s.Write("update.key", fmt.Sprintf("key %q { algorithm hmac-sha256; secret %q; };\n", realdns.Key, realdns.KeySecret))
			before := serial(t, s, example)
			var after [2]uint32
			for run := range 2 {
				if out := s.Run(fmt.Sprintf("server 127.0.0.1 %d\n%s", s.Port, script), nsupdate, "-k", key); out != "" {
					t.Errorf("nsupdate says %q", out)
				}
				mustHave(t, s, name, 60, append([]string{value}, published...)...)
				mustHave(t, s, apex, 60, nasty()...)
				mustHave(t, s, elsewhere, 300, nasty()...)
				mustHave(t, s, "_validation-persist.old."+example, 0)
				for _, n := range []string{"0", "99", "100", "239"} {
					mustHave(t, s, "_validation-persist.n"+n+"."+example, 60, value)
				}
				now := [2]uint32{serial(t, s, example), serial(t, s, other)}
				if run == 0 && now[0] == before || run == 1 && now != after {
					t.Errorf("run %d: the serials were %d, %v and are %v", run, before, after, now)
				}
				after = now
			}
		})
	}
}

// Sets whose zone is not known are sent one by one, and nsupdate finds their zones, which
// differ.
func TestFormatNSUpdateFindsZones(t *testing.T) {
	const other = "other.test"
	const apex, elsewhere = "_validation-persist." + example, "_validation-persist." + other
	nsupdate := realdns.Program(t, "nsupdate", "bind9-dnsutils")
	s := realdns.BIND(t, realdns.Zone{Origin: example, Text: ns}, realdns.Zone{Origin: other, Text: ns})
	key := s.Write("update.key", fmt.Sprintf("key %q { algorithm hmac-sha256; secret %q; };\n", realdns.Key, realdns.KeySecret))
	script := written(
		t, NSUpdate,
		RRset{Name: apex, Zone: example, TTL: 60, Add: []string{value}},
		RRset{Name: name, TTL: 60, Add: []string{value}},
		RRset{Name: elsewhere, TTL: 60, Add: []string{value, "x"}},
	)
	if out := s.Run(fmt.Sprintf("server 127.0.0.1 %d\n%s", s.Port, script), nsupdate, "-k", key); out != "" {
		t.Errorf("nsupdate says %q", out)
	}
	mustHave(t, s, apex, 60, value)
	mustHave(t, s, name, 60, value)
	mustHave(t, s, elsewhere, 60, value, "x")
}
