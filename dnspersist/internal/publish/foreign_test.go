package publish

import (
	"errors"
	"strings"
	"testing"
	"unicode"
)

// What a provider's client says reaches neither a terminal nor a log as it is, and what is
// wrapped stays so.
func TestProviderErrorsFitIntoMessages(t *testing.T) {
	cause := errors.New("403: \x1b[2J\n{\"level\":\"info\"} \u202e\u0085 token=hunter22 " + strings.Repeat("<html>\n", 5000))
	for _, secrets := range [][]string{nil, {"hunter22"}} {
		err := RedactError(cause, secrets)
		for _, r := range err.Error() {
			if unicode.In(r, unicode.C, unicode.Zl, unicode.Zp) {
				t.Fatalf("%q holds %q", err, r)
			}
		}
		if len(err.Error()) > maxError || !strings.HasPrefix(err.Error(), `403: \x1b[2J\n{"level"`) || !errors.Is(err, cause) {
			t.Errorf("%d octets: %.200s", len(err.Error()), err)
		}
		if secrets != nil && strings.Contains(err.Error(), "hunter22") {
			t.Errorf("a secret is left: %.200s", err)
		}
	}
	// a secret that would be cut in two
	at := strings.Repeat("x", maxError-44) + "hunter22" + strings.Repeat("y", 100)
	if err := RedactError(errors.New(at), []string{"hunter22"}); strings.Contains(err.Error(), "hunt") {
		t.Errorf("a part of a secret is left: %s", err)
	}
}
