package parking

import (
	"errors"
	"iter"
	"maps"
	"testing"
	"testing/synctest"
	"time"
)

// What is managed and was not come to yet is listed, and what is served by what the cache has of it; a domain
// on demand that is served is found by its name only.
func TestManagedAndServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		o := w.configure("a", "later.test", "loaded.test", "failed.test", "waits.test", "renewed.test")
		certificates := make(map[string]Certificate)
		soon := time.Now().Add(time.Hour)
		for _, domain := range []string{"loaded.test", "tenant.test", "waits.test"} {
			certificates[domain] = Certificate{NotAfter: soon}
		}
		o.configuration.Managed = func() iter.Seq[string] {
			return maps.Keys(map[string]bool{"later.test": true, "loaded.test": true, "failed.test": true, "waits.test": true, "renewed.test": true})
		}
		o.configuration.Certificate = func(domain string) Certificate { return certificates[domain] }
		started := time.Now()
		time.Sleep(time.Minute)
		w.Served(o.configuration, "renewed.test", "")
		w.Failed(o.configuration, "failed.test", errors.New("no"))
		w.attempt(t.Context(), o, "waits.test", missing("waits.test", "value"))

		got := make(map[string]Status)
		for _, s := range w.Snapshot() {
			if s.CA != testCA {
				t.Errorf("%s: the CA is %q", s.Domain, s.CA)
			}
			got[s.Domain] = s
		}
		for domain, want := range map[string]Phase{
			"later.test": PhaseWanted, "loaded.test": PhaseServed, "failed.test": PhaseFailed, "waits.test": PhaseWaiting, "renewed.test": PhaseServed,
		} {
			if s := got[domain]; s.Phase != want || s.NotAfter != certificates[domain].NotAfter {
				t.Errorf("%s is %s with a certificate until %v", domain, s.Phase, s.NotAfter)
			}
		}
		if len(got) != 5 || !got["later.test"].Since.Equal(started) || got["later.test"].Severity(soon) != SeverityInfo {
			t.Errorf("the domains are %v", got)
		}
		if s := w.Of("tenant.test"); len(s) != 1 || s[0].Phase != PhaseServed || !s[0].IsOnDemand || !s[0].NotAfter.Equal(soon) {
			t.Errorf("a domain on demand that is served: %+v", s)
		}
		if s := w.Of("unknown.test"); len(s) != 0 {
			t.Errorf("a domain that nobody knows: %+v", s)
		}
	})
}

// The cache may drop a certificate that is served from storage again, and one that runs out is broken.
func TestCertificateOfBefore(t *testing.T) {
	w := newWorld(t)
	defer w.Close()
	o := w.configure("a", "a.test")
	now := time.Now()
	served := Certificate{NotAfter: now.Add(time.Hour), Urgent: now.Add(time.Minute)}
	o.configuration.Certificate = func(string) Certificate { return served }
	w.Served(o.configuration, "a.test", "")
	w.Snapshot()
	served = Certificate{}
	s := w.Of("a.test")
	if len(s) != 1 || !s[0].NotAfter.Equal(now.Add(time.Hour)) || s[0].Severity(now) != SeverityOK || s[0].Severity(now.Add(2*time.Minute)) != SeverityError {
		t.Errorf("the domain is %+v", s)
	}
}

// What a configuration has waited for is over once the next one, whose issuer has other options, has the
// certificate; it is not while that one has only the certificate that is to be renewed.
func TestServedWithOtherOptions(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		ends := time.Now().Add(time.Hour)
		renewal := missing("renewal.test", "v")
		renewal.NotAfter = ends
		old := w.configure("old", "first.test", "renewal.test")
		_ = w.attempt(t.Context(), old, "first.test", missing("first.test", "v"))
		_ = w.attempt(t.Context(), old, "renewal.test", renewal)
		w.end(old)
		now := w.configure("new", "first.test", "renewal.test")
		defer w.end(now)
		now.configuration.Certificate = func(string) Certificate { return Certificate{NotAfter: ends} }
		for domain, want := range map[string]Phase{"first.test": PhaseServed, "renewal.test": PhaseWaiting} {
			w.Served(now.configuration, domain, "")
			if s := w.Of(domain); len(s) != 1 || s[0].Phase != want || s[0].CA != testCA || (s[0].Reason == "") != (want == PhaseServed) {
				t.Errorf("%s is %+v", domain, s)
			}
		}
	})
}
