package main

import (
	"errors"
	"flag"
	"strings"
	"testing"

	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

func TestParse(t *testing.T) {
	for args, want := range map[string]options{
		"":                         {dialect: lab.Dialect{Draft: "01"}},
		"--once --verbose":         {once: true, verbose: true, dialect: lab.Dialect{Draft: "01"}},
		"--dialect 00":             {dialect: lab.Dialect{Draft: "00"}},
		"--dialect=02":             {dialect: lab.Dialect{Draft: "02"}},
		"--dialect 02+01 --once":   {once: true, dialect: lab.Dialect{Draft: "02", AcceptAccountURL: true}},
		"--play":                   {play: true, dialect: lab.Dialect{Draft: "01"}},
		"ctl":                      {control: "help"},
		"ctl break www cut":        {control: "break www cut"},
		"-dialect mixed -verbose ": {verbose: true, dialect: lab.Dialect{Draft: "02", Mixed: true}},
	} {
		var complaints strings.Builder
		o, err := parse(strings.Fields(args), &complaints)
		if err != nil || o != want || complaints.Len() > 0 {
			t.Errorf("%s: %+v, %v, %s", args, o, err, complaints.String())
		}
	}
	for args, want := range map[string]string{
		"--dialect 03":  `no such dialect: "03", want one of 00, 01, 02, 02+01, mixed`,
		"--dialect=":    `no such dialect: ""`,
		"02":            `unexpected argument "02"`,
		"--draft 02":    "refused flags",
		"--dialect":     "refused flags",
		"--play --once": "leave --once and --scenario out",
	} {
		if _, err := parse(strings.Fields(args), new(strings.Builder)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v", args, err)
		}
	}
	if _, err := parse([]string{"--help"}, new(strings.Builder)); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("help: error %v", err)
	}
}
