package acmepersist

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/site"
	"github.com/dnspersist/caddy-dnspersist/internal/memorystorage"
)

func TestCAARecordsThatForbidTheCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		r.knowsTheCA()
		r.dns.set(wwwName, wwwValue)
		r.dns.add(`example.test. 60 IN CAA 0 issue "other.test"`)
		time.Sleep(61 * time.Second) // that there are none is kept until then
		hold := r.holds(ReasonCAA)
		r.waits(hold, caaRetry)
		var caa *CAAError
		if !errors.As(hold, &caa) || caa.At != "example.test" {
			t.Errorf("the error is %v", hold.Err)
		}
		if since := r.name().CAASince; time.Since(since) > time.Second {
			t.Errorf("noted is that they forbid it since %s", since)
		}
		r.asked("")
		time.Sleep(caaRetry)
		r.holds(ReasonCAA)
		time.Sleep(caaRetry)
		r.succeeds() // our resolvers may see others than the CA's
		r.asked("dir new-order authz challenge authz finalize certificate")

		r.hasCertificate(85*24*time.Hour, 5*24*time.Hour)
		r.succeeds() // a certificate that runs out does not wait for them
	})
}

func TestCAARecordsThatForbidNothing(t *testing.T) {
	for name, caa := range map[string]string{
		"they allow it":                   `example.test. 60 IN CAA 0 issue "ca.test"`,
		"not every CA reads them so":      `example.test. 60 IN CAA 0 issue "CA.test."`,
		"they are of another challenge":   `example.test. 60 IN CAA 0 iodef "mailto:a@example.test"`,
		"the resolvers' answer is broken": `www.example.test. 60 IN CNAME www.example.test.`,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newTrial(t)
				r.knowsTheCA()
				r.dns.set(wwwName, wwwValue)
				r.dns.add(caa)
				r.succeeds()
			})
		})
	}
}

func TestTheProviderPublishesTheRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t, func(c *Config) { c.Publishing = &Publishing{Mode: PublishOnce} })
		r.Publishing.Provider = r.dns
		var phases []Phase
		if err := r.obtain(Request{Progress: func(p Phase) { phases = append(phases, p) }}); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(r.dns.at(wwwName), []string{wwwValue}) {
			t.Errorf("published is %v", r.dns.at(wwwName))
		}
		if want := []Phase{PhaseLooking, PhasePublishing, PhaseLooking, PhaseOrdering}; !slices.Equal(phases, want) {
			t.Errorf("it reported %v", phases)
		}
		r.asked("dir new-account new-order authz account order authz challenge authz finalize certificate")

		r.dns.set(wwwName) // somebody has removed it: publish once does not write it again
		hold := r.holds(ReasonAbsent)
		if len(r.dns.at(wwwName)) > 0 || !hold.Until.IsZero() {
			t.Errorf("published is %v, it waits until %s", r.dns.at(wwwName), hold.Until)
		}
	})
}

func TestAProviderThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t, func(c *Config) {
			c.Publishing = &Publishing{Mode: PublishOnce, Provider: brokenProvider{20 * time.Minute}, Interval: time.Second}
		})
		r.knowsTheCA()
		hold := r.holds(ReasonPublish)
		if left := time.Until(hold.Until); left < 19*time.Minute || left > 20*time.Minute {
			t.Errorf("it waits %s, and the provider wants to be left alone for 20 minutes", left)
		}
		if hold.Watch == nil || !strings.Contains(hold.Error(), "too many requests") {
			t.Errorf("it is watched by %v: %v", hold.Watch, hold)
		}
		r.asked("account")
		r.dns.set(wwwName, wwwValue) // by hand
		r.succeeds()
	})
}

func TestAHandshakeDoesNotWaitForTheProvider(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t, func(c *Config) { c.Publishing, c.OnDemand = &Publishing{Mode: PublishOnce}, true })
		r.Publishing.Provider = r.dns
		r.knowsTheCA()
		r.dns.slow = 30 * time.Second
		began := time.Now()
		r.holds(ReasonPublish)
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("a handshake waits %s", took)
		}
		time.Sleep(time.Minute)
		if cert, err := r.Obtain(InBackground(t.Context()), r.csr, Request{}); err != nil || len(cert.Certificate) == 0 {
			t.Errorf("in the background it fails: %v", err)
		}
	})
}

func TestWritesOnDemandAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t, func(c *Config) { c.Publishing, c.OnDemand, c.MaxRecords = &Publishing{Mode: PublishOnce}, true, 1 })
		r.Publishing.Provider = r.dns
		r.wants("first.example.test")
		if _, err := r.Obtain(InBackground(t.Context()), r.csr, Request{}); err != nil {
			t.Fatal(err)
		}
		r.wants("www.example.test")
		_, err := r.Obtain(InBackground(t.Context()), r.csr, Request{})
		if hold := r.isHold(err, ReasonPublish); hold.Until.IsZero() || len(r.dns.at(wwwName)) > 0 {
			t.Errorf("it waits until %s, published is %v", hold.Until, r.dns.at(wwwName))
		}
	})
}

func TestTheBudgetOfFailedValidations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t, func(c *Config) { c.Checker = nil })
		r.ca.verdict = "unauthorized"
		for n := range 4 {
			time.Sleep(time.Hour)
			r.holds(ReasonRejected)
			if got := len(r.name().Attempts); got != n+1 {
				t.Fatalf("%d attempts are counted, want %d", got, n+1)
			}
		}
		r.ca.asked()
		hold := r.holds(ReasonBudget)
		if left := time.Until(hold.Until); left < 5*time.Hour || left > 6*time.Hour {
			t.Errorf("it waits %s, want 6 h since the last attempt", left)
		}
		var budget *BudgetError
		if !errors.As(hold, &budget) || budget.Failed != 4 || budget.Name != wwwName {
			t.Errorf("the error is %v", hold.Err)
		}
		r.asked("")
	})
}

func TestARecordThatSettlesIsWaitedForWithinTheAttempt(t *testing.T) {
	for _, noWait := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := newTrial(t, func(c *Config) { c.NoWait = noWait })
			r.knowsTheCA()
			r.dns.setAt(0, wwwName, wwwValue)
			go func() {
				time.Sleep(20 * time.Second)
				r.dns.set(wwwName, wwwValue)
			}()
			began := time.Now()
			if noWait {
				r.holds(ReasonPartial)
				if since := r.name().PartialSince; !since.Equal(began) || time.Since(began) > time.Second {
					t.Errorf("after %s it is partial since %s", time.Since(began), since)
				}
			} else {
				r.succeeds()
				if took := time.Since(began); took < 30*time.Second {
					t.Errorf("it took %s, want at least until the record has settled", took)
				}
			}
			time.Sleep(time.Minute)
		})
	}
}

func TestAFirstCertificateDoesNotWaitForEverForTheLastServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t, func(c *Config) { c.NoWait = true })
		r.knowsTheCA()
		r.dns.setAt(0, wwwName, wwwValue)
		r.waits(r.holds(ReasonPartial), time.Hour)
		time.Sleep(time.Hour)
		r.succeeds()
		if r.logs.FilterMessageSnippet("although not every server has the record").Len() != 1 {
			t.Error("it is not logged")
		}
	})
}

func TestDNSThatCannotBeLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		r.knowsTheCA()
		r.dns.isDown = true
		r.holds(ReasonBlocked)
		r.asked("account")
	})
}

func TestAnotherAccountOfTheCAIsPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		r.dns.set(wwwName, "ca.test; accounturi=https://ca.test/account/0")
		r.holds(ReasonWrong)
		if r.logs.FilterMessageSnippet("storage lost?").FilterField(zap.String("registered_account", fakeAccount)).Len() != 1 {
			t.Error("it is not logged that the storage may be lost")
		}
	})
}

func TestAValidationNameThatLeadsElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t, func(c *Config) { c.Delegation = &Delegation{Name: "records.example.test"} })
		r.knowsTheCA()
		hold := r.holds(ReasonAbsent)
		if hold.Record.Target != "records.example.test" || !strings.Contains(hold.Error(), "to be an alias (CNAME) of records.example.test") {
			t.Errorf("it waits for %+v: %v", hold.Record, hold)
		}
		r.dns.add(wwwName + ". 60 IN CNAME elsewhere.example.test.")
		hold = r.holds(ReasonAbsent)
		var foreign *site.ForeignAliasError
		if !errors.As(hold, &foreign) || foreign.Alias != "elsewhere.example.test" || foreign.Wanted != "records.example.test" {
			t.Errorf("the error is %v", hold.Err)
		}
	})
}

func TestADomainThatCanNeverBeValidated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t, func(c *Config) { c.Policy = PolicyExact })
		r.wants("*.example.test")
		hold := r.holds(ReasonUnsupported)
		if !hold.Until.IsZero() || hold.Watch != nil {
			t.Errorf("it waits until %s for %v", hold.Until, hold.Watch)
		}
		if _, err := hold.Wait(t.Context()); !errors.Is(err, hold) {
			t.Errorf("nothing ends the wait, and Wait returns %v", err)
		}
	})
}

func TestAWildcardIsNotedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		r.wants("*.www.example.test")
		hold := r.holds(ReasonAbsent)
		if !slices.Equal(r.name().Identifiers, []string{"*.www.example.test"}) || !strings.HasSuffix(hold.Record.Value, "; policy=wildcard") {
			t.Errorf("noted are %v, it waits for %q", r.name().Identifiers, hold.Record.Value)
		}
		r.wants("www.example.test") // the one record serves both
		if hold := r.holds(ReasonAbsent); !strings.HasSuffix(hold.Record.Value, "; policy=wildcard") {
			t.Errorf("it waits for %q", hold.Record.Value)
		}
	})
}

// fullStorage takes no file whose key has a part.
type fullStorage struct {
	*memorystorage.Storage
	part string
}

func (s *fullStorage) Store(ctx context.Context, key string, data []byte) error {
	if s.part != "" && strings.Contains(key, s.part) {
		return errors.New("no space left on device")
	}
	return s.Storage.Store(ctx, key, data)
}

func TestAStorageThatTakesNothing(t *testing.T) {
	for part, asked := range map[string]string{
		"account": "dir",                                         // a key is stored before it is sent
		"orders/": "dir new-account",                             // an order that could not be kept would be made at each attempt
		"names/":  "dir new-account new-order authz order authz", // nor is the CA asked before that is counted
	} {
		t.Run(part, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				full := &fullStorage{memorystorage.New(), part}
				r := newTrial(t, func(c *Config) { c.Storage = full })
				r.dns.set(wwwName, wwwValue)
				if err := r.fails(); !strings.Contains(err.Error(), "no space left on device") {
					t.Errorf("the error is %v", err)
				}
				r.asked(asked)
				full.part = ""
				r.succeeds()
			})
		})
	}
}

func TestAnAttemptThatIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		r.knowsTheCA()
		stopped := errors.New("the configuration was replaced")
		for _, step := range []string{"partial", "pending"} {
			r.ca.verdict = "pending"
			if r.dns.set(wwwName, wwwValue); step == "partial" {
				r.dns.setAt(1, wwwName)
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			go func() {
				time.Sleep(10 * time.Second)
				cancel(stopped)
			}()
			began := time.Now()
			_, err := r.Obtain(ctx, r.csr, Request{})
			var hold *Hold
			if !errors.Is(err, stopped) || errors.As(err, &hold) || time.Since(began) != 10*time.Second {
				t.Errorf("%s: after %s the error is %v", step, time.Since(began), err)
			}
		}
		if _, found := r.kept(); !found {
			t.Error("the order is not kept")
		}
	})
}

func TestACSRForSeveralDomainsIsRefused(t *testing.T) {
	r := newTrial(t)
	csr := *r.csr
	csr.DNSNames = []string{"a.example.test", "b.example.test"}
	if _, err := r.Issue(t.Context(), &csr); err == nil || r.ca.asked() != "" {
		t.Errorf("the error is %v", err)
	}
}
