package acmepersist_test

import (
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// A record that ends soon is warned of also where DNS is not looked at before the CA is asked.
func TestEndWithoutAChecker(t *testing.T) {
	t.Parallel()
	for _, soon := range []bool{true, false} {
		i := newIssuing(t)
		account, err := i.Account(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		value := record.Value{IssuerDomainName: "pebble.letsencrypt.org", AccountURI: account.URL}
		if soon {
			value.PersistUntil = time.Now().Add(24 * time.Hour)
		}
		i.dns.SetTXT(0, "_validation-persist."+issuedName, value.String(), "v=spf1 -all")
		core, logs := observer.New(zap.WarnLevel)
		i.with(zap.New(core), nil)
		i.Checker = nil
		i.CAAChecker = propagation.NewChecker(propagation.Config{
			Mode: propagation.ModeRecursive, Resolvers: []string{i.dns.Resolver()}, Exchanger: i.dns.Exchanger(),
		})
		if err := i.issue(t.Context()); err != nil {
			t.Fatal(err)
		}
		said := logs.FilterMessage("the record ends soon; publish its successor beside it, then take it away").All()
		if soon != (len(said) == 1) || soon && said[0].ContextMap()["published_value"] != value.String() {
			t.Errorf("ends soon: %v, logged %v", soon, logs.All())
		}
	}
}
