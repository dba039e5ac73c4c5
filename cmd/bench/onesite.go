package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

// runSite is the command that site starts itself with, in a process for each run.
const runSite = "site-run"

// oneSite measures how long the first visitor of a site waits: from the start of Caddy until it serves the certificate,
// the record being published.
func oneSite(args []string, out, complaints io.Writer) error {
	flags := flag.NewFlagSet("site", flag.ContinueOnError)
	runs := flags.Int("runs", 11, "how often each is run, in turns")
	slow := flags.Duration("validation", 100*time.Millisecond, "how long a slow CA takes to validate")
	if err := parse(flags, args, complaints); err != nil {
		return err
	}
	if *runs < 1 || *slow <= 0 {
		return errors.New("--runs and --validation must be more than 0")
	}
	kinds := []struct {
		name       string
		validation time.Duration
	}{{"at once", 0}, {"after " + span(*slow), *slow}}
	took := make([][]time.Duration, len(kinds))
	for range *runs {
		for i, k := range kinds {
			var served time.Duration
			if err := another([]string{runSite, "--validation", k.validation.String()}, &served); err != nil {
				return fmt.Errorf("a CA that validates %s: %w", k.name, err)
			}
			took[i] = append(took[i], served)
		}
	}
	heading(out)
	t := newTable(fmt.Sprintf("One site whose record is published: from the start of Caddy until it serves the certificate, %d runs", *runs),
		"the CA validates", "quickest", "median", "slowest")
	for i, k := range kinds {
		slices.Sort(took[i])
		t.row(k.name, quantile(took[i], 0), quantile(took[i], 0.5), quantile(took[i], 1))
	}
	t.print(out)
	return nil
}

// oneSiteRun is one run; it prints how long it took as JSON.
func oneSiteRun(args []string, out, complaints io.Writer) error {
	flags := flag.NewFlagSet(runSite, flag.ContinueOnError)
	validation := flags.Duration("validation", 0, "how long the CA takes to validate")
	if err := parse(flags, args, complaints); err != nil {
		return err
	}
	took, err := runOneSite(*validation)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(took)
}

func runOneSite(validation time.Duration) (time.Duration, error) {
	s, err := newSite()
	if err != nil {
		return 0, err
	}
	defer s.close()
	defer tuning.Set(tuning.Values{Exchanger: s.dns.Exchanger()})()
	value, err := s.bind()
	if err != nil {
		return 0, err
	}
	name := "www." + fleetZone
	s.dns.SetTXT(0, record.Label+"."+name, value)
	s.ca.SetValidationDelay(validation)
	config, err := s.config("off", []string{name})
	if err != nil {
		return 0, err
	}
	start := time.Now()
	if err := caddy.Load(config, true); err != nil {
		return 0, err
	}
	defer func() { _ = caddy.Stop() }()
	if _, _, err := await([]string{name}, start); err != nil {
		return 0, err
	}
	for {
		if err := s.served(name); err == nil {
			return time.Since(start), nil
		} else if time.Since(start) > time.Minute {
			return 0, fmt.Errorf("%s has a certificate, but is not served with it: %w", name, err)
		}
		time.Sleep(time.Millisecond)
	}
}
