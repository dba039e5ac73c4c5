package realdns

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Program returns the path of a program, or skips the test and says which package has it.
func Program(t testing.TB, name, debian string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "/sbin"} {
			if p := filepath.Join(dir, name); fileExists(p) {
				return p
			}
		}
		if os.Getenv("DNSPERSIST_REQUIRE_SERVERS") != "" {
			t.Fatalf("%s is missing: install the Debian package %s", name, debian)
		}
		t.Skipf("%s is missing: install the Debian package %s", name, debian)
	}
	return path
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
