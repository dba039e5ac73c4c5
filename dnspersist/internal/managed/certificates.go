package managed

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
)

// loadedFrom tells for which names a configuration that no server runs loads certificates, by
// certificates.load_files, load_pem and load_folders. Those of other loaders, and what this
// user cannot read, are not known: their names count as managed.
func loadedFrom(certificates map[string]json.RawMessage) func(name string) bool {
	names := make(map[string]bool)
	repl := caddy.NewReplacer()
	var pairs []struct {
		Certificate string `json:"certificate"`
	}
	if json.Unmarshal(certificates["load_files"], &pairs) == nil {
		for _, p := range pairs {
			addFile(names, repl.ReplaceKnown(p.Certificate, ""))
		}
	}
	pairs = nil
	if json.Unmarshal(certificates["load_pem"], &pairs) == nil {
		for _, p := range pairs {
			addPEM(names, []byte(repl.ReplaceKnown(p.Certificate, "")))
		}
	}
	var folders []string
	if json.Unmarshal(certificates["load_folders"], &folders) == nil {
		for _, folder := range folders {
			_ = filepath.WalkDir(repl.ReplaceKnown(folder, ""), func(path string, d fs.DirEntry, err error) error {
				if err == nil && !d.IsDir() && strings.HasSuffix(strings.ToLower(d.Name()), ".pem") {
					addFile(names, path)
				}
				return nil
			})
		}
	}
	return func(name string) bool {
		for loaded := range names {
			if certmagic.MatchWildcard(name, loaded) {
				return true
			}
		}
		return false
	}
}

func addFile(names map[string]bool, path string) {
	if data, err := os.ReadFile(path); err == nil {
		addPEM(names, data)
	}
}

// addPEM adds the names of the first certificate of a chain.
func addPEM(names map[string]bool, data []byte) {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		if leaf, err := x509.ParseCertificate(block.Bytes); err == nil {
			names[strings.ToLower(leaf.Subject.CommonName)] = true
			for _, n := range leaf.DNSNames {
				names[strings.ToLower(n)] = true
			}
		}
		return
	}
}
