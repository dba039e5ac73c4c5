package formats

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// aliasOutputs is a CNAME that is to be set, in each format.
var aliasOutputs = map[Format]string{
	Zone:     "; for www.example.com\n_validation-persist.www.example.com. 3600 IN CNAME label.certs.example.net.\n",
	NSUpdate: "zone example.com.\n; for www.example.com\nupdate add _validation-persist.www.example.com. 3600 IN CNAME label.certs.example.net.\nsend\n",
	Route53: `{
  "Comment": "dns-persist-01, names: 1",
  "Changes": [
    {
      "Action": "UPSERT",
      "ResourceRecordSet": {
        "Name": "_validation-persist.www.example.com.",
        "Type": "CNAME",
        "TTL": 3600,
        "ResourceRecords": [
          {
            "Value": "label.certs.example.net."
          }
        ]
      }
    }
  ]
}
`,
	OctoDNS: "# example.com.yaml\n---\n" + mergeOctoDNS + "# for www.example.com\n'_validation-persist.www':\n  ttl: 3600\n  type: CNAME\n  value: 'label.certs.example.net.'\n",
	Terraform: `{
  "dns_persist_records": {},
  "dns_persist_aliases": {
    "_validation-persist.www.example.com": {
      "zone": "example.com",
      "ttl": 3600,
      "target": "label.certs.example.net."
    }
  }
}
`,
}

func TestAliases(t *testing.T) {
	set := RRset{Name: "_validation-persist.www.example.com", Zone: "example.com", TTL: 3600, Known: true, CNAME: "label.certs.example.net", Comment: []string{"for www.example.com"}}
	for _, f := range All {
		if got := string(mustWrite(t, f, []RRset{set})); got != aliasOutputs[f] {
			t.Errorf("%s:\n%s\nwant\n%s", f, got, aliasOutputs[f])
		}
		there := set
		there.Published = []string{set.CNAME}
		if got := string(mustWrite(t, f, []RRset{there})); strings.Contains(got, "update add") || strings.Contains(got, "UPSERT") || strings.Contains(got, " IN CNAME") {
			t.Errorf("%s adds what is published:\n%s", f, got)
		}
		for what, bad := range map[string]func(*RRset){
			"is an alias of":     func(s *RRset) { s.Published = []string{"other.example"} },
			"its target \"a b\"": func(s *RRset) { s.CNAME = "a b" },
		} {
			s := set
			bad(&s)
			var b bytes.Buffer
			if err := Write(&b, f, []RRset{s}); err == nil || !strings.Contains(err.Error(), what) || b.Len() > 0 {
				t.Errorf("%s: got %v and %q, want %q", f, err, b.String(), what)
			}
		}
	}
}

// FuzzAlias writes a fuzzed CNAME in each format: it comes out as what it is, or not at all.
func FuzzAlias(f *testing.F) {
	f.Add("_validation-persist.www.example.com", "example.com", "label.certs.example.net", uint32(60))
	f.Add("a", "", "b\nupdate delete x.", uint32(0))
	f.Add("a.b", "b", "x y", uint32(1<<31))
	f.Add("a.b", "b", "'", uint32(1))
	f.Fuzz(func(t *testing.T, name, zone, target string, ttl uint32) {
		if target == "" {
			return // a set of TXT records
		}
		set := RRset{Name: name, Zone: zone, TTL: ttl, Known: true, CNAME: target}
		good := valid(Zone, set) && validName.MatchString(target) && len(target) <= 253
		for _, format := range All {
			var b bytes.Buffer
			err := Write(&b, format, []RRset{set})
			if err == nil != good && (zone != "" || format != OctoDNS) {
				t.Fatalf("%s: got %v for %+v", format, err, set)
			}
			if err != nil {
				continue
			}
			switch format {
			case Zone:
				rr, err := dns.NewRR(b.String())
				if err != nil || rr.String() != (&dns.CNAME{
					Hdr: dns.RR_Header{Name: name + ".", Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: ttl}, Target: target + ".",
				}).String() {
					t.Fatalf("%q: %v, %v", b.String(), rr, err)
				}
			case Terraform:
				var file variables
				if err := json.Unmarshal(b.Bytes(), &file); err != nil || file.Aliases[name].Target != target+"." {
					t.Fatalf("%q: %v", b.String(), err)
				}
			}
		}
	})
}
