package operator

import (
	"strings"
	"testing"
)

func TestNearName(t *testing.T) {
	managed := []string{"example.com", "shop.example.com", "other.test"}
	for name, want := range map[string]string{
		"exmaple.com": "example.com", "shop.example.co": "shop.example.com", "sohp.example.com": "shop.example.com",
		"tenant.example.com": "", "a.test": "", "example.org": "",
	} {
		if got := Near(name, managed); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// FuzzCheckRequest checks that no body makes the reader fail otherwise than by an error.
func FuzzCheckRequest(f *testing.F) {
	for _, seed := range []string{`{"names":["a.example"]}`, `{"names":["a"]} trailing`, `{"names":["a"]}{}`, `[`, `{"thorough":true,"x":1}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var req CheckRequest
		if readStrictly(body, &req) == nil && strings.HasSuffix(strings.TrimSpace(string(body)), "trailing") {
			t.Errorf("%q was read", body)
		}
	})
}

func TestReadStrictly(t *testing.T) {
	for body, ok := range map[string]bool{
		`{"names":["a"]}`: true, `{"names":["a"]} ` + "\n": true, `{"names":["a"]} trailing`: false, `{"names":["a"]}{}`: false, `{"name":["a"]}`: false, ``: false,
	} {
		var req CheckRequest
		if err := readStrictly([]byte(body), &req); (err == nil) != ok {
			t.Errorf("%q: %v", body, err)
		}
	}
}
