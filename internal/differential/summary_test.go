package differential

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// summary counts comparisons.
type summary struct {
	sets, skipped, disagreements int
	// altered sets have a value that Pebble sees with escapes.
	altered int
	// repeated orders are those after one for which Pebble got no answer from DNS.
	repeated int
	values   int
	counts   map[string]int
}

func newSummary() *summary { return &summary{counts: make(map[string]int)} }

func (s *summary) add(c comparison) {
	if c.skipped {
		s.skipped++
		return
	}
	s.sets++
	if !c.agrees() {
		s.disagreements++
	}
	s.repeated += c.asked - 1
	if !slices.Equal(c.texts, c.seen) {
		s.altered++
	}
	outcome := "good"
	if !c.ruling.good {
		outcome = c.ruling.errorType
	}
	s.counts["Pebble: "+outcome]++
	s.counts["predicted: "+string(c.prediction.outlook)]++
	if len(c.prediction.errorTypes) > 1 {
		s.counts["predicted: one of several error types"]++
	}
	if c.prediction.outlook == record.OutlookDepends {
		s.counts["depends, Pebble: "+outcome]++
	}
	if c.set.wildcard {
		s.counts["wildcard, Pebble: "+outcome]++
	}
	if c.set.raw {
		s.counts["octets, Pebble: "+outcome]++
	}
	switch n := len(c.texts); {
	case n == 0:
		s.counts["no value"]++
	case n > 1:
		s.counts["several values"]++
	}
	long := false
	for i, v := range c.prediction.verdicts {
		s.values++
		s.counts["code: "+string(v.Code)]++
		long = long || len(c.texts[i]) > 255
	}
	if long {
		s.counts["more than 255 octets"]++
	}
}

// shares are the least and the most there may be of a kind, in percent of the sets, or
// of the values for codes. They are far from what the generator aims at, so that chance
// does not break them, but too many to pass by accident.
var shares = map[string][2]int{
	"Pebble: good":                              {25, 60},
	"Pebble: malformed":                         {8, 50},
	"Pebble: unauthorized":                      {15, 60},
	"predicted: good":                           {20, 60},
	"predicted: bad":                            {30, 75},
	"predicted: depends":                        {1, 8},
	"predicted: one of several error types":     {0, 6},
	"wildcard, Pebble: good":                    {8, 30},
	"octets, Pebble: good":                      {10, 30},
	"octets, Pebble: malformed":                 {4, 30},
	"no value":                                  {2, 10},
	"several values":                            {30, 70},
	"more than 255 octets":                      {5, 40},
	"code: " + string(record.CodeGood):          {20, 60},
	"code: " + string(record.CodeForeign):       {8, 40},
	"code: " + string(record.CodeWrongIssuer):   {1, 20},
	"code: " + string(record.CodeWrongAccount):  {3, 30},
	"code: " + string(record.CodePolicyMissing): {2, 30},
	"code: " + string(record.CodeExpired):       {2, 30},
	"code: " + string(record.CodeMalformed):     {8, 50},
}

// check makes sure that the comparison was not about nothing.
func (s *summary) check(t *testing.T) {
	t.Helper()
	for kind, share := range shares {
		of := s.sets
		if strings.HasPrefix(kind, "code: ") {
			of = s.values
		}
		if n := s.counts[kind]; n*100 < share[0]*of || n*100 > share[1]*of {
			t.Errorf("%s: %d of %d, want %d to %d %%", kind, n, of, share[0], share[1])
		}
	}
	if s.altered*100 < 5*s.sets {
		t.Errorf("only %d sets that Pebble sees with escapes", s.altered)
	}
	if s.skipped*100 > s.sets || s.repeated*20 > s.sets {
		t.Errorf("%d sets were skipped, %d orders repeated", s.skipped, s.repeated)
	}
}

func (s *summary) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d sets with %d values, %d disagreements\n", s.sets, s.values, s.disagreements)
	fmt.Fprintf(&b, "%6d sets skipped, with an end too near to now\n%6d orders repeated, for want of an answer from DNS\n%6d sets that Pebble sees with escapes",
		s.skipped, s.repeated, s.altered)
	for _, kind := range slices.Sorted(maps.Keys(s.counts)) {
		of := s.sets
		if strings.HasPrefix(kind, "code: ") {
			of = s.values
		}
		fmt.Fprintf(&b, "\n%6d %5.1f %% %s", s.counts[kind], 100*float64(s.counts[kind])/float64(of), kind)
	}
	return b.String()
}
