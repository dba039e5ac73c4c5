package publish

import (
	"fmt"
	"strings"
)

// AlteredError says that a provider has written something else than it was given.
type AlteredError struct {
	Name string
	// Wanted is what it was given, Found what stands.
	Wanted, Found string
}

func (e *AlteredError) Error() string {
	return fmt.Sprintf("the provider changes what it is given: at %s there stands %q where %q was written, which no CA accepts: remove it, publish by hand, and report it to the provider's module",
		e.Name, e.Found, e.Wanted)
}

// Altered returns the one of the values that differs from the wanted one only in what careless
// providers change: letters' case, quotes, backslashes and spaces.
func Altered(wanted string, values []string) (found string, ok bool) {
	plain := strings.NewReplacer(`"`, "", `\`, "", " ", "")
	same := strings.ToLower(plain.Replace(wanted))
	for _, v := range values {
		if v != wanted && strings.ToLower(plain.Replace(v)) == same {
			return v, true
		}
	}
	return "", false
}

// altered is the error if one of what was written came out as something else.
func altered(name string, written, stood, shown []string) *AlteredError {
	for _, w := range written {
		if found, ok := Altered(w, without(shown, stood)); ok {
			return &AlteredError{name, w, found}
		}
	}
	return nil
}
