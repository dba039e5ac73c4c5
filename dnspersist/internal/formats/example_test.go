package formats_test

import (
	"bytes"
	"fmt"
	"os"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/formats"
)

func ExampleWrite() {
	sets := []formats.RRset{{
		Name:      "_validation-persist.example.com",
		Zone:      "example.com",
		TTL:       3600,
		Add:       []string{"ca.example; accounturi=https://ca.example/acct/1"},
		Published: []string{"other.example; accounturi=https://other.example/7"},
		Known:     true,
		Comment:   []string{"example.com at ca.example"},
	}}
	for _, f := range []formats.Format{formats.NSUpdate, formats.OctoDNS} {
		if err := formats.Write(os.Stdout, f, sets); err != nil {
			fmt.Println(err)
		}
	}
	// Output:
	// zone example.com.
	// ; example.com at ca.example
	// update add _validation-persist.example.com. 3600 IN TXT "ca.example; accounturi=https://ca.example/acct/1"
	// send
	// # example.com.yaml
	// ---
	// # To be merged into the file of the zone: octoDNS removes records that the file does not list.
	// # example.com at ca.example
	// '_validation-persist':
	//   ttl: 3600
	//   type: TXT
	//   values:
	//   - 'other.example\; accounturi=https://other.example/7'
	//   - 'ca.example\; accounturi=https://ca.example/acct/1'
}

// A change batch of Route 53 is for one zone.
func ExampleBatches() {
	sets := []formats.RRset{
		{Name: "_validation-persist.example.com", Zone: "example.com", TTL: 3600, Known: true, Add: []string{"x"}},
		{Name: "_validation-persist.example.net", Zone: "example.net", TTL: 3600, Known: true, Add: []string{"x"}},
		{Name: "_validation-persist.www.example.com", Zone: "example.com", TTL: 3600, Known: true, Add: []string{"x"}},
	}
	for _, batch := range formats.Batches(sets) {
		var file bytes.Buffer
		if err := formats.Write(&file, formats.Route53, batch); err != nil {
			fmt.Println(err)
		}
		fmt.Println(batch[0].Zone, len(batch))
	}
	// Output:
	// example.com 2
	// example.net 1
}
