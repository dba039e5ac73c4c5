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
