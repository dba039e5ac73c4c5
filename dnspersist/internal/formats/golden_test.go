package formats

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write the outputs into the golden files")

func TestGolden(t *testing.T) {
	for _, f := range All {
		t.Run(string(f), func(t *testing.T) {
			sets := samples(f)
			if f != Route53 {
				sets = append(sets,
					RRset{Name: "_validation-persist.example.net", Zone: "example.net", TTL: 60, Known: true, Add: []string{ours}},
					RRset{Name: "_validation-persist.host10.example.com", Zone: "example.com", TTL: 60, Known: true, Add: []string{ours}},
					RRset{Name: "_validation-persist.host9.example.com", Zone: "example.com", TTL: 60, Known: true, Published: []string{"x"}})
			}
			if !f.Replaces() {
				sets = append(sets, RRset{Name: "_validation-persist.example.org", TTL: 60, Add: []string{ours}})
			}
			got := mustWrite(t, f, sets)
			mustEqual(t, parsers[f](t, got), intended(f, sets), got)
			path := filepath.Join("testdata", string(f)+".golden")
			if *update {
				if err := os.WriteFile(path, got, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s has changed (-update writes it):\n%s", path, got)
			}
		})
	}
}
