package main

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

func TestScenarioFlag(t *testing.T) {
	for _, s := range scenarios {
		o, err := parse([]string{"--scenario", s.name}, new(strings.Builder))
		if err != nil || o.scenario == nil || o.scenario.name != s.name {
			t.Errorf("%s: %+v, %v", s.name, o, err)
		}
	}
	if o, err := parse([]string{"--scenario", "list"}, new(strings.Builder)); err != nil || !o.list {
		t.Errorf("list: %+v, %v", o, err)
	}
	_, err := parse([]string{"--scenario", "later"}, new(strings.Builder))
	if err == nil || !strings.Contains(err.Error(), `"later"`) || !strings.Contains(err.Error(), "stale-for-ever and list") {
		t.Errorf("an unknown scenario: %v", err)
	}
}

// The fastest scenarios run for real, one of them with a CA of draft -02.
func TestLate(t *testing.T)  { plays(t, "late", "01") }
func TestCNAME(t *testing.T) { plays(t, "cname", "02") }

func plays(t *testing.T, name, draft string) {
	s, err := findScenario(name)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	o := options{once: true, scenario: s, dialect: lab.Dialect{Draft: draft}}
	if err := run(ctx, o, strings.NewReader(""), os.Stdout); err != nil {
		t.Error(err)
	}
}
