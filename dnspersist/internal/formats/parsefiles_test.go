package formats

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// decode reads one JSON document of known fields.
func decode(t testing.TB, output []byte, v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(output))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		t.Fatalf("there is more after the document: %v\n%s", err, output)
	}
}

func parseRoute53(t testing.TB, output []byte) content {
	t.Helper()
	var batch struct {
		Comment string
		Changes []struct {
			Action            string
			ResourceRecordSet struct {
				Name, Type      string
				TTL             uint32
				ResourceRecords []struct{ Value string }
			}
		}
	}
	c := make(content)
	if len(output) == 0 {
		return c
	}
	decode(t, output, &batch)
	records, characters := 0, 0
	for _, ch := range batch.Changes {
		set := ch.ResourceRecordSet
		name, absolute := strings.CutSuffix(set.Name, ".")
		if _, twice := c[name]; twice || !absolute || ch.Action != "UPSERT" || set.Type != "TXT" {
			t.Fatalf("the change %+v", ch)
		}
		for _, r := range set.ResourceRecords {
			records, characters = records+2, characters+2*len(r.Value)
			c.add(t, name, "", set.TTL, unquoteRoute53(t, r.Value))
		}
	}
	if records > 1000 || characters > 32000 || len(batch.Comment) > 256 || batch.Changes == nil {
		t.Fatalf("%d records, %d characters, comment %q", records, characters, batch.Comment)
	}
	return c
}

var (
	route53Value   = regexp.MustCompile(`^"([ !#-\[\]-~]|\\["\\]|\\[0-3][0-7][0-7])*"( "([ !#-\[\]-~]|\\["\\]|\\[0-3][0-7][0-7])*")*$`)
	route53String  = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	route53Escaped = regexp.MustCompile(`\\(?:[0-7]{3}|.)`)
)

// unquoteRoute53 reads the value of a TXT record as the developer guide has it.
func unquoteRoute53(t testing.TB, s string) string {
	t.Helper()
	if !route53Value.MatchString(s) {
		t.Fatalf("Route 53 would refuse %q", s)
	}
	value := ""
	for _, part := range route53String.FindAllString(s, -1) {
		part = route53Escaped.ReplaceAllStringFunc(part[1:len(part)-1], func(e string) string {
			if len(e) == 2 {
				return e[1:]
			}
			n, err := strconv.ParseUint(e[1:], 8, 8)
			if err != nil {
				t.Fatal(err)
			}
			return string([]byte{byte(n)})
		})
		if len(part) > 255 {
			t.Fatalf("a string of %d octets", len(part))
		}
		value += part
	}
	return value
}

// document finds the line that names the zone of a document.
var document = regexp.MustCompile(`(?m)^# (.*)\.yaml\n---$`)

func parseOctoDNS(t testing.TB, output []byte) content {
	t.Helper()
	zones := document.FindAllStringSubmatch(string(output), -1)
	c := make(content)
	d := yaml.NewDecoder(bytes.NewReader(output))
	d.KnownFields(true)
	for i := 0; ; i++ {
		var records map[string]struct {
			TTL    uint32   `yaml:"ttl"`
			Type   string   `yaml:"type"`
			Values []string `yaml:"values"`
		}
		err := d.Decode(&records)
		if errors.Is(err, io.EOF) {
			if i != len(zones) {
				t.Fatalf("%d documents and %d names of zones", i, len(zones))
			}
			return c
		}
		if err != nil || i >= len(zones) {
			t.Fatalf("document %d: %v\n%s", i, err, output)
		}
		zone := zones[i][1]
		for key, r := range records {
			name := strings.TrimPrefix(key+"."+zone, ".")
			if _, twice := c[name]; twice || r.Type != "TXT" {
				t.Fatalf("the record %+v", r)
			}
			for _, v := range r.Values {
				// octoDNS 1.22: what it refuses, and what it removes.
				if regexp.MustCompile(`\w;|\\\\;|[^ -~]|^"|" "`).MatchString(v) || v == "" {
					t.Fatalf("octoDNS would refuse or change %q", v)
				}
				c.add(t, name, zone, r.TTL, strings.ReplaceAll(v, `\;`, ";"))
			}
		}
	}
}

func parseTerraform(t testing.TB, output []byte) content {
	t.Helper()
	var file struct {
		Records map[string]struct {
			Zone   *string  `json:"zone"`
			TTL    uint32   `json:"ttl"`
			Values []string `json:"values"`
		} `json:"dns_persist_records"`
	}
	decode(t, output, &file)
	c := make(content)
	for name, r := range file.Records {
		if r.Zone == nil || !slices.Equal(slices.Compact(slices.Sorted(slices.Values(r.Values))), slices.Sorted(slices.Values(r.Values))) {
			t.Fatalf("%s: %+v", name, r)
		}
		for _, v := range r.Values {
			c.add(t, name, *r.Zone, r.TTL, v)
		}
	}
	return c
}
