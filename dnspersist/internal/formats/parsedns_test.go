package formats

import (
	"bytes"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// parsers read an output back, each without any code of the package.
var parsers = map[Format]func(testing.TB, []byte) content{
	Zone: parseZone, NSUpdate: parseNSUpdate, Route53: parseRoute53, OctoDNS: parseOctoDNS, Terraform: parseTerraform,
}

// txt returns name and value of a TXT record from its wire format.
func txt(t testing.TB, rr dns.RR) (name, value string) {
	t.Helper()
	h := rr.Header()
	if h.Rrtype != dns.TypeTXT || h.Class != dns.ClassINET {
		t.Fatalf("not a TXT record: %s", rr)
	}
	buf := make([]byte, 70000)
	end, err := dns.PackRR(rr, buf, 0, nil, false)
	if err != nil {
		t.Fatalf("%s: %v", rr, err)
	}
	_, start, err := dns.UnpackDomainName(buf, 0)
	if err != nil {
		t.Fatal(err)
	}
	for data := buf[start+10 : end]; len(data) > 0; {
		n := int(data[0])
		value += string(data[1 : 1+n])
		data = data[1+n:]
	}
	return strings.TrimSuffix(h.Name, "."), value
}

func parseZone(t testing.TB, output []byte) content {
	t.Helper()
	c := make(content)
	// An origin that would show in a name that is not absolute.
	p := dns.NewZoneParser(bytes.NewReader(output), "relative.invalid.", "")
	for rr, ok := p.Next(); ok; rr, ok = p.Next() {
		name, value := txt(t, rr)
		c.add(t, name, "", rr.Header().Ttl, value)
	}
	if err := p.Err(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	return c
}

// parseNSUpdate does what nsupdate does with a script, and is stricter.
func parseNSUpdate(t testing.TB, output []byte) content {
	t.Helper()
	c := make(content)
	zone := ""
	message := new(dns.Msg)
	names := make(map[string]bool)
	text := string(output)
	if text != "" && !strings.HasSuffix(text, "\n") {
		t.Fatalf("the last line does not end:\n%s", text)
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if len(line) >= 128<<10-2 || strings.ContainsAny(line, "\r\x00") {
			t.Fatalf("nsupdate would not read the line as one: %.200q", line)
		}
		word, rest, _ := strings.Cut(line, " ")
		switch {
		case strings.HasPrefix(line, ";"):
		case word == "zone" && len(message.Ns) == 0:
			zone = strings.TrimSuffix(rest, ".")
		case line == "send" && len(message.Ns) > 0:
			wire, err := message.Pack()
			if err != nil || len(wire) > 60000 || len(message.Ns) > 100 {
				t.Fatalf("a message of %d records and %d octets: %v", len(message.Ns), len(wire), err)
			}
			if zone == "" && len(names) > 1 {
				t.Fatalf("%d names in a message without a zone", len(names))
			}
			message, names = new(dns.Msg), make(map[string]bool)
		case strings.HasPrefix(line, "update add "):
			rr, err := dns.NewRR(strings.TrimPrefix(line, "update add "))
			if err != nil || rr == nil {
				t.Fatalf("%q: %v", line, err)
			}
			name, value := txt(t, rr)
			c.add(t, name, zone, rr.Header().Ttl, value)
			message.Ns, names[name] = append(message.Ns, rr), true
		default:
			t.Fatalf("the line %q is not expected in\n%s", line, text)
		}
	}
	if len(message.Ns) > 0 {
		t.Fatalf("the last records are not sent:\n%s", text)
	}
	return c
}
