// Package docs checks what the documentation says of the code.
package docs

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

const root = "../../"

// page returns a file of the repository.
func page(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(root + name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(data), "\r\n", "\n")
}

// section returns what a page has below a heading, up to the next one of its level.
func section(t *testing.T, text, heading string) string {
	t.Helper()
	_, after, found := strings.Cut(text, "\n"+heading+"\n")
	if !found {
		t.Fatalf("there is no %q", heading)
	}
	level, _, _ := strings.Cut(heading, " ")
	below, _, _ := strings.Cut(after, "\n"+level+" ")
	return below
}

// rows returns the cells of the tables in a text, without their heads.
func rows(text string) [][]string {
	var all [][]string
	inTable := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case !strings.HasPrefix(line, "|"):
			inTable = false
		case strings.HasPrefix(line, "| ---"):
			inTable = true
		case inTable:
			cells := strings.Split(strings.ReplaceAll(strings.Trim(line, "|"), `\|`, "\x00"), "|")
			for i := range cells {
				cells[i] = strings.TrimSpace(strings.ReplaceAll(cells[i], "\x00", "|"))
			}
			all = append(all, cells)
		}
	}
	return all
}

var quoted = regexp.MustCompile("`([^`]+)`")

// firstWords returns the first word of each quoted text in the column of a table.
func firstWords(table [][]string, column int) []string {
	var all []string
	for _, row := range table {
		for _, m := range quoted.FindAllStringSubmatch(row[column], -1) {
			word, _, _ := strings.Cut(m[1], " ")
			all = append(all, word)
		}
	}
	return all
}

// sources returns the Go files below a folder of the repository for which keep is true.
func sources(t *testing.T, folder string, keep func(name string) bool) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(root+folder, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, ".go") || !keep(name) {
			return err
		}
		data, err := os.ReadFile(name)
		all[name] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func isTest(name string) bool { return strings.HasSuffix(name, "_test.go") }

func isProduct(name string) bool { return !isTest(name) }

// The README can be read in a few minutes. What does not fit belongs into docs.
func TestREADMEIsShort(t *testing.T) {
	readme := page(t, "README.md")
	lines := strings.Split(strings.TrimSuffix(readme, "\n"), "\n")
	if len(lines) > 150 {
		t.Errorf("it has %d lines, at most 150 are wanted", len(lines))
	}
	for i, line := range lines {
		if n := utf8.RuneCountInString(line); n > 120 {
			t.Errorf("line %d has %d columns, at most 120 are wanted", i+1, n)
		}
	}
	if n := len(strings.Fields(readme)); n > 1300 {
		t.Errorf("it has %d words, at most 1,300 are wanted", n)
	}
}

// Every test that the index of tests names exists.
func TestNamedTestsExist(t *testing.T) {
	index := page(t, "docs/scenarios.md")
	var source strings.Builder
	for _, text := range sources(t, ".", isTest) {
		source.WriteString(text)
	}
	all := source.String()
	named := regexp.MustCompile("`(Test[A-Za-z0-9]+)(?:/([0-9]+))?").FindAllStringSubmatch(index, -1)
	if len(named) < 40 {
		t.Errorf("only %d tests are named", len(named))
	}
	for _, m := range named {
		if !strings.Contains(all, "func "+m[1]+"(") {
			t.Errorf("there is no %s", m[1])
		}
		if m[2] != "" && !strings.Contains(all, `{"`+m[2]+" ") {
			t.Errorf("%s has no case %s", m[1], m[2])
		}
	}
}

// Links within the repository lead to a file, and those to a heading to one.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for _, name := range pages(t) {
		text := page(t, name)
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			to, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(to, "://") {
				continue
			}
			target := name
			if to != "" {
				target = path.Join(path.Dir(name), to)
			}
			if _, err := os.Stat(root + target); errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %s leads nowhere", name, m[1])
				continue
			}
			if anchor != "" && !anchors(page(t, target))[anchor] {
				t.Errorf("%s: %s has no heading #%s", name, target, anchor)
			}
		}
	}
}

// Files and folders that pages name exist. Below the product the design leaves its folder out.
func TestPathsExist(t *testing.T) {
	named := regexp.MustCompile("`((?:caddyfile|cmd|dnspersist|docs|examples|internal|tools)/[a-z0-9_./-]+)`")
	for _, name := range pages(t) {
		for _, m := range named.FindAllStringSubmatch(page(t, name), -1) {
			found := false
			for _, folder := range []string{"", "dnspersist/", "dnspersist/propagation/"} {
				_, err := os.Stat(root + folder + m[1])
				found = found || err == nil
			}
			if !found {
				t.Errorf("%s: there is no %s", name, m[1])
			}
		}
	}
}

// anchors are the names under which the headings of a page are linked to.
func anchors(text string) map[string]bool {
	all := make(map[string]bool)
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		heading := regexp.MustCompile("[^a-z0-9 _-]").ReplaceAllString(strings.ToLower(m[1]), "")
		all[strings.ReplaceAll(heading, " ", "-")] = true
	}
	return all
}

// pages are all pages of the documentation.
func pages(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/guides/*.md", "cmd/bench/*.md", "examples/*/*.md"} {
		found, err := filepath.Glob(root + pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			all = append(all, strings.TrimPrefix(filepath.ToSlash(f), root))
		}
	}
	if len(all) < 15 {
		t.Fatalf("only %d pages: %q", len(all), all)
	}
	return all
}

// A guide begins with what its reader has afterwards, and says what takes the place of the CA
// of the examples.
func TestGuidesBeginWithTheirOutcome(t *testing.T) {
	for _, name := range pages(t) {
		if path.Dir(name) != "docs/guides" {
			continue
		}
		text := page(t, name)
		_, first, _ := strings.Cut(text, "\n\n")
		first, _, _ = strings.Cut(first, "\n\n")
		if !strings.HasPrefix(first, "After this page ") {
			t.Errorf("%s begins with %.60q", name, first)
		}
		if !strings.Contains(strings.ReplaceAll(first, "\n", " "), "in the place of `https://ca.example/directory`") {
			t.Errorf("%s does not say what takes the place of the CA", name)
		}
	}
}
