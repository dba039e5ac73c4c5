package differential

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// pebbleSees is what Pebble judges in place of a published value.
//
// With an address of a resolver Pebble asks through miekg/dns, takes the strings as that
// unpacks them, in presentation format with escapes, and does not remove these. So it
// judges the four characters \001 where DNS has the octet 1, and never meets an octet
// outside printable ASCII, nor a quote without a backslash. Real CAs see the octets, and
// so does Pebble without an address, when it asks through Go's resolver. The test has both.
func pebbleSees(text string, raw bool) string {
	if raw {
		return text
	}
	var b strings.Builder
	for i := range len(text) {
		switch c := text[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c > '~':
			fmt.Fprintf(&b, "\\%03d", c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// publish puts a value beside those that are there, and returns after it can be seen.
func publish(d *lab.DNS, name string, text string, cuts []float64) {
	if len(cuts) == 0 {
		d.AddTXT(0, name, text)
		return
	}
	// With own character-strings: by way of a zone file's line.
	line, from := dns.Fqdn(name)+" TXT", 0
	for _, cut := range cuts {
		to := max(from, int(cut*float64(len(text))))
		line += " " + record.Quote(text[from:to])
		from = to
	}
	d.SetRR(0, line+" "+record.Quote(text[from:]))
}

// TestPebbleSees asks as Pebble does, in both ways.
func TestPebbleSees(t *testing.T) {
	d, err := lab.NewDNS(1)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	d.AddZone(zone)
	useResolver(t, d)

	all := make([]byte, 0, 256*3)
	for c := range 256 {
		all = append(all, byte(c), '0', byte(c))
	}
	for i, text := range []string{"", " ", `\`, `\001`, `\"`, `"`, string(all), strings.Repeat("\xff", 1000), strings.Repeat("a", 255), strings.Repeat("a", 256)} {
		for j, cuts := range [][]float64{nil, {0.5}, {0, 0.3, 0.3, 1}} {
			name := fmt.Sprintf("v%d.c%d.%s", i, j, zone)
			publish(d, name, text, cuts)

			reply, _, err := (&dns.Client{Net: "tcp"}).ExchangeContext(t.Context(), new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeTXT), d.Resolver())
			if err != nil || len(reply.Answer) != 1 {
				t.Fatalf("%q, cuts %v: %v, %v", text, cuts, reply, err)
			}
			if got := strings.Join(reply.Answer[0].(*dns.TXT).Txt, ""); got != pebbleSees(text, false) {
				t.Errorf("%q, cuts %v: through miekg/dns it is %q", text, cuts, got)
			}
			texts, err := net.DefaultResolver.LookupTXT(t.Context(), name)
			if err != nil || len(texts) != 1 || texts[0] != pebbleSees(text, true) {
				t.Errorf("%q, cuts %v: through Go's resolver it is %q, %v", text, cuts, texts, err)
			}
		}
	}
}
