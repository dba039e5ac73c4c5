package e2e

// Certificates through DNS that is slow or broken: none may expire while at least one server
// has its record.

import (
	"fmt"
	"os"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

const (
	// life of a certificate, of which the last third is its renewal window: longer than the
	// minute for which CertMagic leaves a name alone after a failure.
	life = 90 * time.Second
	// watched is long enough for two renewals; what comes after them is not waited for.
	watched = 165 * time.Second
	// perZone is the number of name servers of each scenario's zone.
	perZone = 4
)

// site is one scenario: a zone of its own, on servers of its own.
type site struct {
	dns     *lab.DNS
	zone    string
	name    string
	value   string
	bad     bool // something was wrong, so that its log is shown
	servers [perZone]int
}

func (s *site) publish(values ...string) { s.on(0, values...) }

// on sets the record on the nth server of the zone, counted from 1; 0 is all.
func (s *site) on(n int, values ...string) {
	for i, server := range s.servers {
		if n == 0 || n == i+1 {
			s.dns.SetTXT(server, record.Label+"."+s.name, values...)
		}
	}
}

func (s *site) mode(n int, mode string) { s.dns.SetMode(s.servers[n-1], mode) }

// scenario says what happens to DNS before the first certificate and after it.
type scenario struct {
	name string
	// before is called once Caddy runs, after with the time since the first certificate
	// until it returns true.
	before func(s *site)
	after  func(s *site, since time.Duration) bool
	// endless says that after never returns true.
	endless bool
	// failures is how many validations may fail, for the CA is asked against the gate's
	// advice when the certificate runs out.
	failures int
}

func stands(s *site) { s.publish(s.value) }

// once makes an after function that does something once, at a time.
func once(at time.Duration, do func(s *site)) func(*site, time.Duration) bool {
	return func(s *site, since time.Duration) bool {
		if since < at {
			return false
		}
		do(s)
		return true
	}
}

func broken(mode string) func(*site) {
	return func(s *site) { s.mode(2, mode); stands(s) }
}

var scenarios = []scenario{
	{name: "healthy", before: stands},
	{name: "silent", before: broken("silent")},
	{name: "servfail", before: broken("servfail")},
	{name: "refused", before: broken("refused")},
	{name: "lame", before: broken("lame")},
	{name: "truncated", before: func(s *site) {
		for n := range perZone {
			s.mode(n+1, "truncate")
		}
		stands(s)
	}},
	{name: "tcp-only", before: broken("tcponly")},
	{name: "slow", before: func(s *site) { s.dns.SetDelay(s.servers[0], 1500*time.Millisecond); stands(s) }},
	{name: "fails-later", before: stands, after: once(20*time.Second, func(s *site) { s.mode(1, "silent"); s.mode(2, "servfail") })},
	{name: "one-left", before: stands, after: once(20*time.Second, func(s *site) { s.mode(1, "silent"); s.mode(3, "silent"); s.mode(4, "silent") })},
	{name: "outage", before: stands, after: func(s *site, since time.Duration) bool {
		// the clock has the CA asked from 66 s on, each 3 s, and four times at most
		mode := "silent"
		if since > 70*time.Second {
			mode = "normal"
		}
		for n := range perZone {
			s.mode(n+1, mode)
		}
		return since > 70*time.Second
	}, failures: 4},
	{name: "vanishes", before: stands, after: func(s *site, since time.Duration) bool {
		if since > 20*time.Second && since < 70*time.Second {
			s.publish()
			return false
		}
		if since > 70*time.Second {
			stands(s)
		}
		return since > 70*time.Second
	}, failures: 4},
	{name: "replaced", before: stands, after: once(20*time.Second, func(s *site) { s.publish("other.example; accounturi=x:y", s.value+"; policy=wildcard") })},
	// each of the CA's questions, three a validation, meets the next server: every fourth
	// validation meets none but good ones
	{name: "stale-for-ever", before: stands, after: once(20*time.Second, func(s *site) { s.on(2) }), failures: 4},
	{name: "flapping", before: stands, after: func(s *site, since time.Duration) bool {
		if int(since.Seconds())%2 == 0 {
			s.on(3)
		} else {
			s.on(3, s.value)
		}
		return false
	}, endless: true, failures: 4},
	{name: "late", before: func(s *site) {
		time.AfterFunc(3*time.Second, func() { s.on(1, s.value) })
		time.AfterFunc(6*time.Second, func() { s.on(2, s.value) })
		time.AfterFunc(9*time.Second, func() { s.on(3, s.value); s.on(4, s.value) })
	}},
	{name: "stale-at-first", before: func(s *site) {
		s.on(1, s.value)
		s.on(3, s.value)
		s.on(4, s.value)
		time.AfterFunc(10*time.Second, func() { s.on(2, s.value) })
	}},
	{name: "alias", before: func(s *site) {
		s.dns.SetRR(0, fmt.Sprintf("%s.%s. CNAME target.%s.", record.Label, s.name, s.zone))
		s.dns.SetTXT(0, "target."+s.zone, s.value)
	}},
}

// TestNoCertificateExpires runs all scenarios beside each other in one Caddy for two renewals.
func TestNoCertificateExpires(t *testing.T) {
	e := harness.New(t, harness.Options{
		Lifetime: life, Servers: perZone * len(scenarios),
		Tuning: func(v *tuning.Values) { v.MinAsk, v.PropagationTimeout = 2*time.Second, 2*time.Second },
	})
	e.DNS.SetPick("rotate")
	// Pebble's renewal window is days long, whatever the certificate's life is
	e.CA.MutateDirectory(func(d map[string]any) { delete(d, "renewalInfo") })
	account := e.Bind()
	config := e.Global("renew_interval 1s")
	var sites []*site
	for i, sc := range scenarios {
		s := &site{dns: e.DNS, zone: sc.name + ".test", value: e.Value(account, false)}
		s.name = fmt.Sprintf("www-%d.%s", e.HTTPSPort, s.zone)
		for n := range perZone {
			s.servers[n] = i*perZone + n + 1
		}
		e.DNS.AddZone(s.zone, s.servers[:]...)
		config += e.Site(s.name, e.Block())
		sites = append(sites, s)
	}
	e.Load(config)
	for i, sc := range scenarios {
		sc.before(sites[i])
	}
	var wg sync.WaitGroup
	for i, sc := range scenarios {
		wg.Go(func() { watch(t, e, sc, sites[i]) })
	}
	wg.Wait()

	failed := make(map[string]int)
	for _, f := range e.CA.FailedValidations() {
		failed[f.Identifier]++
	}
	for i, sc := range scenarios {
		if n := failed[sites[i].name]; n > sc.failures {
			sites[i].bad = true
			t.Errorf("%s: %d validations failed, at most %d were to be", sc.name, n, sc.failures)
		}
	}
	data, err := os.ReadFile(e.LogFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sites {
		if !s.bad {
			continue
		}
		for line := range strings.SplitSeq(string(data), "\n") {
			if strings.Contains(line, s.name) && !strings.Contains(line, `"level":"debug"`) {
				t.Log(line[:min(len(line), 600)])
			}
		}
	}
}

// watch waits for the first certificate and sees to it that none expires.
func watch(t *testing.T, e *harness.Env, sc scenario, s *site) {
	var began time.Time
	var serials []string
	done := sc.after == nil
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for start := time.Now(); ; <-tick.C {
		cert, err := e.Trusted(s.name)
		switch {
		case err == nil && time.Now().After(cert.NotAfter), err != nil && strings.Contains(err.Error(), "expired"):
			s.bad = true
			t.Errorf("%s: the certificate has expired", sc.name)
			return
		case err == nil:
			if serial := cert.SerialNumber.String(); len(serials) == 0 || serials[len(serials)-1] != serial {
				serials = append(serials, serial)
			}
			if began.IsZero() {
				began = time.Now()
				t.Logf("%s: first certificate after %s", sc.name, began.Sub(start).Round(100*time.Millisecond))
			}
		case !began.IsZero():
			t.Errorf("%s: no certificate any more: %v", sc.name, err)
			return
		case time.Since(start) > harness.Soon:
			t.Errorf("%s: no certificate: %v", sc.name, err)
			return
		}
		if began.IsZero() {
			continue
		}
		if !done {
			done = sc.after(s, time.Since(began))
		}
		if time.Since(began) > watched || len(serials) == 3 && (done || sc.endless) {
			break
		}
	}
	if len(serials) < 3 {
		sort.Strings(serials)
		t.Errorf("%s: %d certificates in %s, want two renewals", sc.name, len(serials), watched)
	}
}
