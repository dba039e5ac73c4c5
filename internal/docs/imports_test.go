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
// imports those before it only.
var layers = []string{
	"dnspersist/internal/fair",
	"dnspersist/internal/foreign",
	"internal/walltime",
	"dnspersist/record",
	"dnspersist/propagation/internal/ask",
	"dnspersist/propagation/internal/zones",
	"dnspersist/propagation",
	"internal/tuning",
	"dnspersist/internal/formats",
	"dnspersist/internal/state",
	"dnspersist/internal/publish",
	"dnspersist/internal/ca",
	"dnspersist/internal/account",
	"dnspersist/acmepersist",
	"dnspersist/internal/parking",
	"dnspersist/internal/managed",
	"dnspersist/internal/operator",
	"dnspersist",
	"dnspersist/command",
	"caddyfile",
}

// never are imports that would be in order and are not wanted.
var never = map[string][]string{
	"dnspersist/propagation":                {"dnspersist/record"}, // it is told what to accept by a function
	"dnspersist/propagation/internal/ask":   {"dnspersist/record"},
	"dnspersist/propagation/internal/zones": {"dnspersist/record"},
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
				case ours && slices.Contains(never[folder], to):
					t.Errorf("%s: %s must not know %s", file, folder, to)
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
