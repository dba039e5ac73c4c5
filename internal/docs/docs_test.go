// Package docs checks what the documentation says of the code.
package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every test that docs/scenarios.md names exists.
func TestNamedTestsExist(t *testing.T) {
	survey, err := os.ReadFile("../../docs/scenarios.md")
	if err != nil {
		t.Fatal(err)
	}
	var source strings.Builder
	err = filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		data, err := os.ReadFile(path)
		source.Write(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	all := source.String()
	named := regexp.MustCompile("`(Test[A-Za-z0-9]+)(?:/([0-9]+))?").FindAllStringSubmatch(string(survey), -1)
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

// Every code that programs may rely on is explained in docs/scenarios.md.
func TestCodesAreExplained(t *testing.T) {
	survey, err := os.ReadFile("../../docs/scenarios.md")
	if err != nil {
		t.Fatal(err)
	}
	_, codes, _ := strings.Cut(string(survey), "## Codes")
	found := 0
	for _, folder := range []string{"propagation", "record", "acmepersist"} {
		files, err := filepath.Glob("../../dnspersist/" + folder + "/*.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`Code[A-Za-z0-9]+ +(?:propagation\.)?Code += "([a-z0-9_]+)"`).FindAllStringSubmatch(string(source), -1) {
				if found++; !strings.Contains(codes, "`"+m[1]+"`") {
					t.Errorf("%s (%s) is not there", m[1], file)
				}
			}
		}
	}
	if found < 45 {
		t.Errorf("only %d codes were found", found)
	}
}

// Every word of the directive, and every bound of on-demand names, is in the README.
func TestOptionsAreListed(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for file, pattern := range map[string]string{
		"unmarshal.go":    `(?m)^//	    ([a-z_]+)`,
		"unmarshalapp.go": `(?m)^//	        ([a-z_]+)`,
		"config.go":       "`json:\"([a-z_]+),omitempty\"`",
		"ondemand.go":     "`json:\"([a-z_]+),omitempty\"`",
	} {
		source, err := os.ReadFile("../../dnspersist/" + file)
		if err != nil {
			t.Fatal(err)
		}
		all := regexp.MustCompile(pattern).FindAllStringSubmatch(string(source), -1)
		if len(all) < 6 {
			t.Errorf("%s: only %d words", file, len(all))
		}
		for _, m := range all {
			if m[1] == "exclusive" { // set by the directive alone
				continue
			}
			if !regexp.MustCompile(`\b` + m[1] + `\b`).Match(readme) {
				t.Errorf("%s of %s is not there", m[1], file)
			}
		}
	}
}
