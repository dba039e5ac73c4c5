package command

import (
	"strings"
	"testing"
	"time"
)

// The end of a record can be written in each way that a person may think of it.
func TestTimesOfUntil(t *testing.T) {
	now := time.Date(2027, 1, 1, 12, 0, 0, 500, time.UTC)
	for text, want := range map[string]string{
		"2027-06-01T12:00:00Z":        "2027-06-01T12:00:00Z",
		"2027-06-01T12:00:00.7+02:00": "2027-06-01T10:00:00Z",
		"2027-06-01":                  "2027-06-01T00:00:00Z",
		"1811851200":                  "2027-06-01T12:00:00Z",
		"180d":                        "2027-06-30T12:00:00Z",
		"36h30m":                      "2027-01-03T00:30:00Z",
		"0":                           "1970-01-01T00:00:00Z",
		"":                            "", "tomorrow": "", "2027-13-01": "", "-5": "", "180": "1970-01-01T00:03:00Z", "99999999999999": "",
	} {
		got, err := parseTime(text, now)
		if want == "" {
			if err == nil || !strings.Contains(err.Error(), "such as") {
				t.Errorf("%q is %s, %v", text, got, err)
			}
			continue
		}
		if err != nil || got.Format(time.RFC3339Nano) != want {
			t.Errorf("%q is %s, want %s: %v", text, got, want, err)
		}
	}
}
