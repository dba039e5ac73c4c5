package docs

import (
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/dnspersist/caddy-dnspersist/"

// layers are the packages of the product, as docs/design.md has them, from the ground up: each
// imports those before it only. Of the root's internal/, which is for the tests and the demo,
// they may know walltime and tuning alone, which these set.
var layers = []string{
	"dnspersist/internal/fair",
	"dnspersist/internal/foreign",
	"internal/walltime",
	"dnspersist/record",
	"dnspersist/propagation/internal/lru",
	"dnspersist/propagation/internal/ask",
	"dnspersist/propagation/internal/zones",
	"dnspersist/propagation",
	"dnspersist/internal/formats",
	"dnspersist/internal/state",
	"dnspersist/internal/publish",
	"dnspersist/internal/ca",
	"dnspersist/internal/account",
	"dnspersist/internal/site",
	"dnspersist/acmepersist",
	"dnspersist/internal/parking",
	"dnspersist/internal/metrics",
	"dnspersist/internal/events",
	"dnspersist/internal/managed",
	"dnspersist/internal/operator",
	"internal/tuning", // read once, where a configuration is provisioned
	"dnspersist",
	"dnspersist/command",
	"caddyfile",
}

// only are packages that know little on purpose, with all of ours that they may import.
var only = map[string][]string{
	// pure: no I/O and no clock
	"dnspersist/record":           {"dnspersist/internal/foreign"},
	"dnspersist/internal/formats": {"dnspersist/internal/foreign", "dnspersist/record"},
	// DNS alone: what to accept it is told by a function
	"dnspersist/propagation/internal/lru":   {},
	"dnspersist/propagation/internal/ask":   {"dnspersist/internal/fair", "dnspersist/internal/foreign", "dnspersist/propagation/internal/lru"},
	"dnspersist/propagation/internal/zones": {"dnspersist/internal/foreign", "dnspersist/propagation/internal/ask", "dnspersist/propagation/internal/lru"},
	"dnspersist/propagation": {
		"dnspersist/internal/fair", "dnspersist/internal/foreign", "dnspersist/propagation/internal/ask", "dnspersist/propagation/internal/zones",
	},
	// a CA has nothing to do with what is written into zones, and an account nothing with DNS
	"dnspersist/internal/ca": {
		"dnspersist/internal/fair", "dnspersist/internal/foreign", "dnspersist/internal/state", "dnspersist/propagation", "dnspersist/record", "internal/walltime",
	},
	"dnspersist/internal/account": {
		"dnspersist/internal/ca", "dnspersist/internal/foreign", "dnspersist/internal/state", "dnspersist/record", "internal/walltime",
	},
	// what a domain needs is worked out without a conversation
	"dnspersist/internal/site": {
		"dnspersist/internal/ca", "dnspersist/internal/foreign", "dnspersist/internal/publish", "dnspersist/internal/state", "dnspersist/propagation",
		"dnspersist/record", "internal/walltime",
	},
	// what is counted is told to it: nothing below knows of it
	"dnspersist/internal/metrics": {
		"dnspersist/acmepersist", "dnspersist/internal/parking", "dnspersist/internal/publish", "dnspersist/propagation",
	},
	// what is emitted is given to it, and how to emit it: it knows neither Caddy nor a configuration
	"dnspersist/internal/events": {
		"dnspersist/acmepersist", "dnspersist/internal/foreign", "dnspersist/internal/parking", "dnspersist/propagation",
	},
	// names of a configuration that need not be loaded
	"dnspersist/internal/managed": {"dnspersist/internal/foreign", "dnspersist/record"},
	// what is behind it is asked through operator
	"dnspersist/command": without("internal/tuning", "dnspersist/internal/state", "dnspersist/internal/ca", "dnspersist/internal/account", "dnspersist/internal/parking"),
	"caddyfile":          {"dnspersist"},
}

// without are all layers but some.
func without(some ...string) []string {
	return slices.DeleteFunc(slices.Clone(layers), func(folder string) bool { return slices.Contains(some, folder) })
}

// firstWithCaddy is the first of the layers that knows Caddy.
const firstWithCaddy = "dnspersist/internal/parking"

// Imports point down the picture in docs/design.md.
func TestImports(t *testing.T) {
	packages := productPackages(t)
	for _, folder := range packages {
		layer := slices.Index(layers, folder)
		if layer < 0 {
			t.Errorf("%s is a package that has no place in the design: give it one there and here", folder)
			continue
		}
		for file, imports := range importsOf(t, folder) {
			for _, imported := range imports {
				to, ours := strings.CutPrefix(imported, module)
				switch {
				case ours && slices.Index(layers, to) < 0:
					t.Errorf("%s: %s is not for the product", file, to)
				case ours && slices.Index(layers, to) >= layer:
					t.Errorf("%s: %s is above %s in the design", file, to, folder)
				case ours && only[folder] != nil && !slices.Contains(only[folder], to):
					t.Errorf("%s: %s is not meant to know %s", file, folder, to)
				case strings.HasPrefix(imported, "github.com/caddyserver/caddy/") && layer < slices.Index(layers, firstWithCaddy):
					t.Errorf("%s: %s must not know Caddy", file, folder)
				}
			}
		}
	}
	for _, folder := range layers {
		if !slices.Contains(packages, folder) && !strings.HasPrefix(folder, "internal/") {
			t.Errorf("there is no package %s: take it out of the design, and out of here", folder)
		}
	}
}

// The design names each package, in its picture and in a section.
func TestPackagesAreInTheDesign(t *testing.T) {
	design := page(t, "docs/design.md")
	picture := section(t, design, "## The packages")
	var headings strings.Builder
	for line := range strings.Lines(design) {
		if strings.HasPrefix(line, "## ") {
			headings.WriteString(line)
		}
	}
	for _, folder := range productPackages(t) {
		name := strings.TrimPrefix(folder, "dnspersist/")
		if strings.HasPrefix(name, "propagation/internal/") {
			name = strings.TrimPrefix(name, "propagation/")
			if !strings.Contains(design, "`"+name+"`") {
				t.Errorf("%s is not in the design", folder)
			}
			continue
		}
		if !strings.Contains(picture, name) {
			t.Errorf("%s is not in the picture", folder)
		}
		if !strings.Contains(headings.String(), name) {
			t.Errorf("%s has no section", folder)
		}
	}
}

// productPackages are the folders of the product that have Go files, tests apart.
func productPackages(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, top := range []string{"dnspersist", "caddyfile"} {
		for file := range sources(t, top, isProduct) {
			folder := path.Dir(strings.TrimPrefix(filepath.ToSlash(file), root))
			if !slices.Contains(all, folder) {
				all = append(all, folder)
			}
		}
	}
	slices.Sort(all)
	return all
}

// importsOf returns what the files of a package import, tests apart.
func importsOf(t *testing.T, folder string) map[string][]string {
	t.Helper()
	entries, err := os.ReadDir(root + folder)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string][]string)
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || isTest(e.Name()) {
			continue
		}
		file := path.Join(folder, e.Name())
		parsed, err := parser.ParseFile(token.NewFileSet(), root+file, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range parsed.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			all[file] = append(all[file], imported)
		}
	}
	return all
}
