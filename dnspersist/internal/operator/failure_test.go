package operator

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
)

// What fails for one CA is told beside the others; what fails for all, and what cannot be asked
// at all, is the error of the whole.
func TestFailures(t *testing.T) {
	down := errors.New("connection refused")
	unsupported := &acmepersist.UnsupportedNameError{Name: "*.*.example", Err: errors.New("two wildcards")}
	type came struct {
		ca  string
		err error
	}
	for name, tt := range map[string]struct {
		of      []came
		partial bool
		want    string
	}{
		"well":               {[]came{{"a", nil}, {"b", nil}}, false, ""},
		"one of two":         {[]came{{"a", down}, {"b", nil}}, true, "nothing is known of the CA a: connection refused; left out: a.example, b.example"},
		"all":                {[]came{{"a", down}, {"b", down}}, false, "connection refused\nconnection refused"},
		"two issuers of one": {[]came{{"a", down}, {"a", down}}, false, "connection refused"},
		"unsupported":        {[]came{{"a", nil}, {"b", unsupported}}, false, "two wildcards"},
	} {
		var f failures
		for _, c := range tt.of {
			f.add(c.ca, []string{"b.example", "a.example", "a.example"}, c.err)
		}
		failed, err := f.end(context.Background())
		partial := len(failed) > 0
		if partial && err == nil {
			err = failed[0]
		}
		if partial != tt.partial || (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Count(err.Error(), "connection refused") > len(tt.want)/len("connection refused") {
			t.Errorf("%s: the same is said twice: %v", name, err)
		}
	}
}
