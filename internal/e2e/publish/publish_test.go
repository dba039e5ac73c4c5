package publish

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

const foreign = "other.example; accounturi=https://other.example/1"

// options are those of an environment in which time goes fast.
func options(lifetime time.Duration) harness.Options {
	return harness.Options{Lifetime: lifetime, Tuning: func(v *tuning.Values) {
		v.PublishInterval, v.PublishRetry = 100*time.Millisecond, time.Second
		v.LookAtNames, v.RetireAfter = time.Second, 2*time.Second
		v.ReadDirectory, v.ShortestPersistFor = time.Second, time.Second
		v.Retry, v.Lease = 2*time.Second, time.Second
	}}
}

// newEnv makes an environment with a provider.
func newEnv(t *testing.T, o harness.Options) (*harness.Env, *api) {
	t.Helper()
	// first, or it takes a port that was picked for Caddy
	a := newAPI(t)
	e := harness.New(t, o)
	a.dns = e.DNS
	return e, a
}

func vname(name string) string { return "_validation-persist." + name }

// ours are the values at a name that are not foreign.
func (a *api) ours(name string) []string {
	return slices.DeleteFunc(a.at(vname(name)), func(v string) bool { return v == foreign })
}

// noSecret fails if the log shows the provider's token.
func noSecret(e *harness.Env) {
	e.T.Helper()
	if strings.Contains(e.LogTail(1<<20), token) {
		e.T.Error("the log shows the provider's token")
	}
}

// renewed waits until a name has another certificate.
func renewed(e *harness.Env, name string, than *x509.Certificate) {
	e.T.Helper()
	e.Eventually(time.Minute, "a renewal", func() error {
		cert, err := e.Trusted(name)
		if err == nil && cert.SerialNumber.Cmp(than.SerialNumber) == 0 {
			err = fmt.Errorf("the same certificate")
		}
		return err
	})
}

// A site needs nothing but its name: the record is written once beside what others have
// there, slow servers are waited for, and renewals write nothing.
func TestFromBareName(t *testing.T) {
	e, a := newEnv(t, options(12*time.Second))
	a.lag = 2 * time.Second
	name := e.Name("bare")
	a.set(vname(name), foreign)
	e.Load(e.Global("renew_interval 1s") + e.Site(name, e.Block(a.block())))
	serials := map[string]bool{}
	e.Eventually(2*time.Minute, "a certificate and two renewals", func() error {
		cert, err := e.Trusted(name)
		if err != nil {
			return err
		}
		serials[cert.SerialNumber.String()] = true
		return harness.AtLeast(len(serials), 3)
	})
	if n := a.count("append", vname(name)); n != 1 {
		t.Errorf("%d writes, want 1", n)
	}
	if got := a.at(vname(name)); len(got) != 2 || got[0] != foreign {
		t.Errorf("there are %q", got)
	}
	if n := len(e.CA.FailedValidations()); n != 0 {
		t.Errorf("%d failed validations", n)
	}
	if n := len(e.Logs("published the TXT record")); n != 1 {
		t.Errorf("%d log entries of publishing, want 1", n)
	}
	noSecret(e)
}

// keep writes a record again that somebody has removed.
func TestKeepWritesAgain(t *testing.T) {
	e, a := newEnv(t, options(0))
	name := e.Name("gone")
	e.Load(e.Global() + e.Site(name, e.Block(a.block())))
	e.WaitTrusted(name, harness.Soon)
	value := a.ours(name)
	a.set(vname(name), foreign)
	e.Eventually(harness.Soon, "the record to be written again", func() error {
		if got := a.ours(name); !slices.Equal(got, value) {
			return fmt.Errorf("there is %q", got)
		}
		return harness.Want(len(e.Logs("had been removed from the zone; it was written again")), 1)
	})
	if got := a.at(vname(name)); got[0] != foreign {
		t.Errorf("there are %q", got)
	}
}

// once writes a name one time, and never again.
func TestOnce(t *testing.T) {
	e, a := newEnv(t, options(10*time.Second))
	name := e.Name("once")
	e.Load(e.Global("renew_interval 1s") + e.Site(name, e.Block(a.block(), "publish once")))
	e.WaitTrusted(name, harness.Soon)
	a.set(vname(name))
	e.Eventually(time.Minute, "the renewal to say that it is not written again", func() error {
		return harness.AtLeast(len(e.Logs("the record was written once and is gone or was changed since; it is not written again")), 1)
	})
	if n := a.count("append", vname(name)); n != 1 {
		t.Errorf("%d writes, want 1", n)
	}
	if l := e.Logs("it is not written again")[0]; !strings.Contains(fmt.Sprint(l["reason"]), "publish once never writes a name twice") {
		t.Errorf("the log says %v", l["reason"])
	}
	if n := len(e.Logs("the record could not be published")); n != 0 {
		t.Errorf("it is said to have failed %d times", n)
	}
	// somebody publishes it by hand
	a.set(vname(name), e.Asked(name))
	renewed(e, name, e.WaitTrusted(name, harness.Soon))
}

// A credential is no consent: a provider of the global option writes nothing.
func TestGlobalProviderWritesNothing(t *testing.T) {
	e, a := newEnv(t, options(0))
	name, kept := e.Name("asked"), e.Name("kept")
	acmeDNS := "acme_" + a.block()
	e.Load(e.Global(acmeDNS) + e.Site(name, e.Block()) + e.Site(kept, e.Block("publish keep")))
	e.WaitTrusted(kept, harness.Soon)
	e.Eventually(harness.Soon, "the record to be asked for", func() error { return harness.AtLeast(len(e.Logs("publish this TXT record once")), 1) })
	if n := a.count("append", vname(name)); n != 0 {
		t.Errorf("%d writes, want none", n)
	}
	noSecret(e)
}

// What fails is tried again, says why, and never shows the credential.
func TestFailures(t *testing.T) {
	for status, want := range map[int]string{http.StatusInternalServerError: "HTTP 500", http.StatusTooManyRequests: "HTTP 429"} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			e, a := newEnv(t, options(0))
			name := e.Name("broken")
			a.set(vname(name), foreign)
			a.breaks(status)
			e.Load(e.Global() + e.Site(name, e.Block(a.block())))
			e.Eventually(harness.Soon, "the failure to be said", func() error { return harness.AtLeast(len(e.Logs("the record could not be published")), 1) })
			l := e.Logs("the record could not be published")[0]
			if text := fmt.Sprint(l["error"]); !strings.Contains(text, want) || !strings.Contains(text, "[redacted]") {
				t.Errorf("the log says %s", text)
			}
			a.breaks(0)
			if status == http.StatusTooManyRequests {
				// it is left alone for minutes, also by the next configuration, and a record that comes from
				// elsewhere is taken
				e.Load(e.Global("renew_interval 1s") + e.Site(name+", "+e.Name("second"), e.Block(a.block())))
				e.Eventually(harness.Soon, "the second name to wait", func() error { return harness.AtLeast(len(e.Logs("the record could not be published")), 2) })
				a.set(vname(name), foreign, e.Asked(name))
			}
			e.WaitTrusted(name, harness.Soon)
			if status == http.StatusTooManyRequests {
				if n := a.count("append", vname(name)) + a.count("append", vname(e.Name("second"))); n != 1 {
					t.Errorf("%d writes, although the provider is to be left alone", n)
				}
			}
			if got := a.at(vname(name)); len(got) != 2 || got[0] != foreign {
				t.Errorf("there are %q", got)
			}
			noSecret(e)
		})
	}
}

// A record that would take its name from a wildcard is not written without a word for it.
func TestShadowing(t *testing.T) {
	e, a := newEnv(t, options(0))
	name := e.Name("shop")
	e.DNS.SetRR(0, "*."+strings.SplitN(name, ".", 2)[1]+". 60 IN A 192.0.2.80")
	e.Load(e.Global() + e.Site(name, e.Block(a.block())))
	e.Eventually(harness.Soon, "it to be refused", func() error { return harness.AtLeast(len(e.Logs("the record could not be published")), 1) })
	if text := fmt.Sprint(e.Logs("the record could not be published")[0]["error"]); !strings.Contains(text, "allow_shadowing") {
		t.Errorf("the log says %s", text)
	}
	if n := a.count("append", vname(name)); n != 0 {
		t.Errorf("%d writes, want none", n)
	}
	e.Load(e.Global() + e.Site(name, e.Block(a.block(), "allow_shadowing")))
	e.WaitTrusted(name, harness.Soon)
}
