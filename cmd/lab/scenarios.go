package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// site is the name of the scenarios.
const site = "site." + zone

// scenario is one way in which DNS is slow or broken.
type scenario struct {
	name, about string
	servers     int
	// life of a certificate, and which server the CA asks (see lab.DNS.SetPick).
	life time.Duration
	pick string
	// failures is how many validations may fail.
	failures int
	play     func(ctx context.Context, d *demo) error
}

var scenarios = []scenario{
	{"late", "the record appears late, and later still on the second server", 2, time.Hour, "worst", 0, playLate},
	{"stale-server", "one of three servers has the old zone for a while", 3, time.Hour, "worst", 0, playStale},
	{"dead-server", "one of three servers never answers", 3, time.Hour, "worst", 0, playDead},
	{"blocked-port", "no name server can be reached from here, only a resolver", 2, time.Hour, "worst", 0, playBlocked},
	{"cname", "the validation name is a CNAME into a platform's zone", 2, time.Hour, "worst", 0, playCNAME},
	{"vanished", "the record is deleted before a renewal, and put back", 2, 40 * time.Second, "worst", 0, playVanished},
	{"stale-for-ever", "one of four servers is stale for ever, and the certificate runs out", 4, time.Minute, "rotate", 4, playStaleForEver},
}

// findScenario returns the scenario of a name.
func findScenario(name string) (*scenario, error) {
	var names []string
	for i := range scenarios {
		if scenarios[i].name == name {
			return &scenarios[i], nil
		}
		names = append(names, scenarios[i].name)
	}
	return nil, fmt.Errorf("there is no %q, only %s and list", name, strings.Join(names, ", "))
}

// play plays a scenario and verifies what must hold of each.
func (d *demo) play(ctx context.Context, s *scenario) error {
	d.say("The scenario %s: %s.", s.name, s.about)
	if err := s.play(ctx, d); err != nil {
		return fmt.Errorf("scenario %s: %w", s.name, err)
	}
	failed := d.ca.FailedValidations()
	d.say("Done: %d orders, %d validations asked, %d failed", len(d.ca.Orders()), d.ca.Count("challenge"), len(failed))
	if len(failed) > s.failures {
		return fmt.Errorf("scenario %s: %d validations failed, the first: %s", s.name, len(failed), failed[0].Detail)
	}
	return nil
}

// serve starts Caddy with the site, and more words for its issuer.
func (d *demo) serve(more string) error {
	return d.start(d.global(more) + "\n" + site + " {\n\trespond \"hello\"\n}\n")
}

// asked waits until Caddy has asked for the record, and returns its value.
func (d *demo) asked(ctx context.Context) (value string, err error) {
	if err := d.serve(""); err != nil {
		return "", err
	}
	err = d.until(ctx, "Caddy to ask for the record", func() (err error) { value, err = d.value(site); return err })
	return value, err
}

// served waits until Caddy serves a certificate of the CA, and returns its serial number.
func (d *demo) served(ctx context.Context) (serial string, err error) {
	err = d.until(ctx, "HTTPS for "+site, func() (err error) { serial, err = d.serial(site); return err })
	if err == nil {
		d.say("Caddy serves https://%s:%d/ with a certificate of the CA", site, d.port)
	}
	return serial, err
}

// notAsked is an error if the CA was asked to validate already.
func (d *demo) notAsked() error {
	if n := d.ca.Count("challenge"); n > 0 {
		return fmt.Errorf("the CA was asked to validate %d times before all servers had the record", n)
	}
	return nil
}

func playLate(ctx context.Context, d *demo) error {
	value, err := d.asked(ctx)
	if err != nil {
		return err
	}
	for server := 1; server <= 2; server++ {
		if err := errors.Join(pause(ctx, 4*time.Second), d.notAsked()); err != nil {
			return err
		}
		d.publish(server, site, value)
	}
	_, err = d.served(ctx)
	return err
}

func playStale(ctx context.Context, d *demo) error {
	value, err := d.asked(ctx)
	if err != nil {
		return err
	}
	d.publish(1, site, value)
	d.publish(2, site, value)
	d.say("The zone transfer to %s is stuck …", host(d.dns, 3))
	if err := errors.Join(pause(ctx, 12*time.Second), d.notAsked()); err != nil {
		return err
	}
	d.publish(3, site, value)
	_, err = d.served(ctx)
	return err
}

func playDead(ctx context.Context, d *demo) error {
	d.dns.SetMode(3, "silent")
	d.say("%s answers nobody", host(d.dns, 3))
	value, err := d.asked(ctx)
	if err != nil {
		return err
	}
	d.publish(0, site, value)
	_, err = d.served(ctx)
	return err
}

func playBlocked(ctx context.Context, d *demo) error {
	value, err := d.asked(ctx)
	if err != nil {
		return err
	}
	d.say("From now on nothing but the resolver can be reached from this machine")
	d.blocked.Store(true)
	d.publish(0, site, value)
	if err := errors.Join(pause(ctx, 15*time.Second), d.notAsked()); err != nil {
		return err
	}
	d.say("The operator does what Caddy says: it asks the resolver from now on")
	if err := d.serve("\n\t\tcheck recursive"); err != nil {
		return err
	}
	_, err = d.served(ctx)
	return err
}

func playCNAME(ctx context.Context, d *demo) error {
	const platform = "platform.test"
	d.dns.AddZone(platform)
	d.dns.SetRR(0, fmt.Sprintf("_validation-persist.%s. CNAME tenant1.%s.", site, platform))
	d.say("The tenant has set _validation-persist.%s CNAME tenant1.%s, once for life", site, platform)
	value, err := d.asked(ctx)
	if err != nil {
		return err
	}
	for server := 1; server <= 2; server++ {
		if err := errors.Join(pause(ctx, 3*time.Second), d.notAsked()); err != nil {
			return err
		}
		d.dns.SetTXT(server, "tenant1."+platform, value)
		d.say("The platform publishes the record in its own zone: %s has it", host(d.dns, server))
	}
	_, err = d.served(ctx)
	return err
}

func playVanished(ctx context.Context, d *demo) error {
	value, err := d.asked(ctx)
	if err != nil {
		return err
	}
	d.publish(0, site, value)
	first, err := d.served(ctx)
	if err != nil {
		return err
	}
	d.dns.SetTXT(0, validationName(site))
	d.say("Somebody deletes the record. Certificates live for 40s here; Caddy goes on serving …")
	if err := pause(ctx, 18*time.Second); err != nil {
		return err
	}
	d.publish(0, site, value)
	return d.renewed(ctx, first)
}

func playStaleForEver(ctx context.Context, d *demo) error {
	value, err := d.asked(ctx)
	if err != nil {
		return err
	}
	d.publish(0, site, value)
	first, err := d.served(ctx)
	if err != nil {
		return err
	}
	d.dns.SetTXT(4, validationName(site))
	d.say("%s goes back to an old zone, for ever. The CA looks from three places, each at the next server", host(d.dns, 4))
	return d.renewed(ctx, first)
}

// renewed waits for a renewal, and sees to it that the site is served all the time.
func (d *demo) renewed(ctx context.Context, first string) error {
	var broken error
	err := d.until(ctx, "the renewal", func() error {
		serial, err := d.serial(site)
		if err != nil {
			broken = err
			return nil
		}
		if serial == first {
			return errors.New("it is still the first certificate")
		}
		return nil
	})
	if err == nil && broken != nil {
		return fmt.Errorf("the certificate ran out: %w", broken)
	}
	if err == nil {
		d.say("Caddy has renewed the certificate before it ran out")
	}
	return err
}
