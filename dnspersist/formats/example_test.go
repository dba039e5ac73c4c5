package formats_test

import (
	"fmt"
	"os"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/formats"
)

func ExampleWrite() {
	sets := []formats.RRset{{
		Name:     "_validation-persist.example.com",
		Zone:     "example.com",
		TTL:      3600,
		Add:      []string{"ca.example; accounturi=https://ca.example/acct/1"},
		Standing: []string{"other.example; accounturi=https://other.example/7"},
		Known:    true,
		Comment:  []string{"example.com at ca.example"},
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

func ExampleBatches() {
	sets := []formats.RRset{
		{Name: "_validation-persist.example.com", Zone: "example.com", TTL: 3600, Known: true, Add: []string{"x"}},
		{Name: "_validation-persist.example.net", Zone: "example.net", TTL: 3600, Known: true, Add: []string{"x"}},
	}
	for _, batch := range formats.Batches(sets) {
		if err := formats.Write(os.Stdout, formats.Route53, batch); err != nil {
			fmt.Println(err)
		}
		break
	}
	// Output:
	// {
	//   "Comment": "dns-persist-01, names: 1",
	//   "Changes": [
	//     {
	//       "Action": "UPSERT",
	//       "ResourceRecordSet": {
	//         "Name": "_validation-persist.example.com.",
	//         "Type": "TXT",
	//         "TTL": 3600,
	//         "ResourceRecords": [
	//           {
	//             "Value": "\"x\""
	//           }
	//         ]
	//       }
	//     }
	//   ]
	// }
}
