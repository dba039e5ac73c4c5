package lab

import (
	"fmt"
	"log"
	"maps"
	"os"
	"strconv"
	"time"

	pebbleca "github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/core"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
)

func (c *CA) newPebble() (*pebble, error) {
	environment.Lock()
	defer environment.Unlock()
	noSleep := "1"
	if c.config.ValidationSleep {
		noSleep = "0"
	}
	for name, value := range map[string]string{
		"PEBBLE_VA_NOSLEEP":      noSleep,
		"PEBBLE_VA_ALWAYS_VALID": "",
		"PEBBLE_AUTHZREUSE":      "0",
		"PEBBLE_WFE_NONCEREJECT": strconv.Itoa(c.config.NonceReject),
	} {
		before, was := os.LookupEnv(name)
		os.Setenv(name, value)
		defer func() {
			if was {
				os.Setenv(name, before)
			} else {
				os.Unsetenv(name)
			}
		}()
	}

	lifetimes := map[string]time.Duration{defaultProfile: c.config.Lifetime}
	maps.Copy(lifetimes, c.config.Profiles)
	profiles := make(map[string]pebbleca.Profile, len(lifetimes))
	for name, lifetime := range lifetimes {
		profiles[name] = pebbleca.Profile{Description: "The profile " + name, ValidityPeriod: uint64(lifetime / time.Second)}
	}

	logger := log.New(c.config.Log, "pebble ", log.LstdFlags)
	store := db.NewMemoryStore()
	for id, key := range c.config.EAB {
		if err := store.AddExternalAccountKeyByID(id, key); err != nil {
			return nil, fmt.Errorf("external account key %s: %w", id, err)
		}
	}
	p := &pebble{store: store}
	p.ca = pebbleca.New(logger, store, "", "ecdsa", c.config.AlternateRoots, 1, profiles)
	resolver := ""
	if c.config.Resolver != "" {
		resolver = c.resolver.Listener.Addr().String()
	}
	validator := va.New(logger, 80, 443, true, resolver, store)
	front := wfe.New(logger, store, validator, p.ca, c.config.IssuerNames, true, c.config.RequireEAB, 0, 0)
	p.handler = front.Handler()
	return p, nil
}

// certificateOf reads an order of Pebble.
func certificateOf(order *core.Order) *core.Certificate {
	order.RLock()
	defer order.RUnlock()
	return order.CertificateObject
}
