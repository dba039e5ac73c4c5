package state

import (
	"testing"

	"github.com/caddyserver/certmagic"
)

// FuzzSafe holds the quick way to a key against CertMagic's.
func FuzzSafe(f *testing.F) {
	for _, name := range []string{"_validation-persist.www.example.com", "*.example.com", "WWW.example.com", "a..b", " a ", "ca.test:14000-dir", "é", ""} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if got, want := Safe(name), certmagic.StorageKeys.Safe(name); got != want {
			t.Errorf("%q became %q, and %q at CertMagic", name, got, want)
		}
	})
}
