package metrics

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/parking"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/publish"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

const directory = "https://ca.test/directory"

// load is what a load of a configuration does.
func load(t testing.TB, m *Metrics, names []parking.Status, cas []Used, perName bool) *prometheus.Registry {
	t.Helper()
	registry := prometheus.NewPedanticRegistry() // as Caddy's
	err := m.Register(registry, Configuration{
		Each: each(names), CAs: func() []Used { return cas },
		CAOf: func(parking.Status) string { return directory }, PerName: perName,
	})
	if err != nil {
		t.Fatal(err)
	}
	return registry
}

func each(names []parking.Status) func(func(parking.Status)) {
	return func(fn func(parking.Status)) {
		for _, s := range names {
			fn(s)
		}
	}
}

// series lists what a registry shows of metrics whose name begins so, without caddy_dns_persist_.
func series(t testing.TB, registry *prometheus.Registry, prefix string) []string {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, f := range families {
		name := strings.TrimPrefix(f.GetName(), "caddy_dns_persist_")
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		for _, s := range f.GetMetric() {
			var labels []string
			for _, l := range s.GetLabel() {
				if l.GetValue() != directory {
					labels = append(labels, l.GetName()+"="+l.GetValue())
				}
			}
			value := s.GetGauge().GetValue()
			if c := s.GetCounter(); c != nil {
				value = c.GetValue()
			}
			all = append(all, fmt.Sprintf("%s{%s} %v", name, strings.Join(labels, ","), value))
		}
	}
	return all
}

func shows(t *testing.T, registry *prometheus.Registry, prefix string, want ...string) {
	t.Helper()
	got := series(t, registry, prefix)
	if slices.Sort(want); !slices.Equal(got, want) {
		t.Errorf("shown are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// What was counted is not lost with the configuration, and two issuers with one CA count together.
func TestCountsGoOnOverReloads(t *testing.T) {
	m := New()
	first, second := m.CA(directory, "key"), m.CA(directory, "another account")
	for _, registry := range []*prometheus.Registry{load(t, m, nil, nil, false), load(t, m, nil, nil, false)} {
		first.Happened(acmepersist.EventOrderMade)
		second.Happened(acmepersist.EventOrderMade)
		first.Happened(acmepersist.EventRefused)
		first.Happened(acmepersist.EventAskedEarly)
		first.Issued(7 * time.Second)
		m.Asked(propagation.OutcomeSilent)
		m.Called(publish.OperationRemove, publish.OutcomeUnknown)
		if n := testutil.CollectAndCount(m.issuance); n != 1 {
			t.Errorf("%d histograms", n)
		}
		if _, err := registry.Gather(); err != nil {
			t.Error(err)
		}
	}
	if again := m.CA(directory, "key"); again != first {
		t.Error("an account of a CA is another one after a reload")
	}
	registry := load(t, m, nil, nil, false)
	shows(t, registry, "orders_total", "orders_total{result=failed} 0", "orders_total{result=made} 4", "orders_total{result=rate_limited} 0", "orders_total{result=refused} 0")
	shows(t, registry, "validations_total", "validations_total{result=ca_fault} 0", "validations_total{result=refused} 2", "validations_total{result=undecided} 0", "validations_total{result=valid} 0")
	shows(t, registry, "asked_early", "asked_early_total{} 2")
	shows(t, registry, "dns_queries", "dns_queries_total{result=abandoned} 0", "dns_queries_total{result=answered} 0", "dns_queries_total{result=failed} 0",
		"dns_queries_total{result=not_asked} 0", "dns_queries_total{result=silent} 2", "dns_queries_total{result=unusable} 0")
	shows(t, registry, "provider_writes", "provider_writes_total{operation=add,result=error} 0", "provider_writes_total{operation=add,result=ok} 0",
		"provider_writes_total{operation=add,result=unknown} 0", "provider_writes_total{operation=remove,result=error} 0",
		"provider_writes_total{operation=remove,result=ok} 0", "provider_writes_total{operation=remove,result=unknown} 2")
}

func TestNilCountsNothing(t *testing.T) {
	var m *Metrics
	m.Asked(propagation.OutcomeAnswered)
	m.Called(publish.OperationAdd, publish.OutcomeOK)
	ca := m.CA(directory, "key")
	ca.Happened(acmepersist.EventOrderMade)
	ca.Happened(acmepersist.EventAccountLost)
	ca.Issued(time.Second)
	ca.Records(false, acmepersist.Records{Ends: time.Now()})
	registry := load(t, m, nil, nil, false)
	if got := series(t, registry, ""); len(got) > 0 {
		t.Errorf("shown are %q", got)
	}
}

// What is in two registrations of one registry is there once.
func TestRegisteredTwice(t *testing.T) {
	m, registry := New(), prometheus.NewPedanticRegistry()
	c := Configuration{Each: each(nil), CAs: func() []Used { return nil }}
	for range 2 {
		if err := m.Register(registry, c); err != nil {
			t.Error(err)
		}
	}
}

// many are names in each place, in turn.
func many(n int) []parking.Status {
	now := time.Now()
	all := make([]parking.Status, n)
	for i := range all {
		p := places[i%len(places)]
		all[i] = parking.Status{
			Domain: fmt.Sprintf("name%d.test", i), CA: directory, Phase: p.phase, Reason: p.reason, IsOnDemand: p.source == onDemand,
			Since: now.Add(-time.Hour), AskedAt: now, Certificate: parking.Certificate{NotAfter: now.Add(24 * time.Hour)},
		}
	}
	return all
}

// However many names there are, there are under a hundred series for a CA, and none has a domain: what
// is kept of a series is kept for months.
func TestSeriesAreBounded(t *testing.T) {
	m := New()
	ca := m.CA(directory, "key")
	for e := acmepersist.EventOrderMade; e <= acmepersist.EventCADown; e++ {
		ca.Happened(e)
	}
	ca.Records(false, acmepersist.Records{Ends: time.Now()})
	ca.Records(true, acmepersist.Records{Ends: time.Now()})
	cas := []Used{{CA: ca, OrdersLeft: func() float64 { return 3 }}}
	ofNone := count(t, load(t, New(), nil, nil, false))
	registry := load(t, m, many(10_000), cas, false)
	of := count(t, registry) - ofNone
	t.Logf("%d series for a CA, %d for all together", of, ofNone)
	if of >= 100 {
		t.Errorf("%d series for a CA", of)
	}
	for _, s := range series(t, registry, "") {
		if strings.Contains(s, ".test") {
			t.Fatalf("a domain is in %s", s)
		}
	}
	if none := count(t, load(t, m, nil, cas, false)); none != of+ofNone-2 {
		t.Errorf("without names there are %d series: only the ends of certificates may be missing", none-ofNone)
	}
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}

	inConfiguration := 0
	for _, s := range many(10_000) {
		if !s.IsOnDemand {
			inConfiguration++
		}
	}
	registry = load(t, m, many(10_000), cas, true)
	if n := count(t, registry); n != ofNone+of+2*inConfiguration {
		t.Errorf("per_name shows %d series, want 2 for each of the %d names of the configuration", n-ofNone-of, inConfiguration)
	}
	if problems, err := testutil.GatherAndLint(load(t, m, many(10), cas, true)); err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
}

// count is how many series a registry shows, those of a histogram included.
func count(t *testing.T, registry *prometheus.Registry) (n int) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, s := range f.GetMetric() {
			if n++; s.GetHistogram() != nil {
				n += len(s.GetHistogram().GetBucket()) + 2 // +Inf, sum and count
			}
		}
	}
	return n
}

// A tenant that was abandoned is neither the longest wait nor the first certificate to end, and what is not
// known is not shown.
func TestGauges(t *testing.T) {
	m := New()
	registry := load(t, m, nil, []Used{{CA: m.CA(directory, "key")}}, false)
	shows(t, registry, "longest_wait", "longest_wait_seconds{source=configuration} 0", "longest_wait_seconds{source=on_demand} 0")
	for _, unknown := range []string{"account", "directory", "certificate_not", "record", "orders_left", "name_"} {
		shows(t, registry, unknown)
	}

	now := time.Now()
	names := []parking.Status{
		{Domain: "waits.test", CA: directory, Phase: parking.PhaseWaiting, Reason: acmepersist.ReasonAbsent, Since: now.Add(-time.Hour)},
		{Domain: "tried.test", CA: directory, Phase: parking.PhaseOrdering, Reason: acmepersist.ReasonAbsent, Since: now.Add(-2 * time.Hour)},
		{Domain: "served.test", Phase: parking.PhaseServed, Since: now.Add(-1000 * time.Hour), Certificate: parking.Certificate{NotAfter: now.Add(50 * time.Hour), Urgent: now.Add(-time.Hour)}},
		{Domain: "failed.test", Phase: parking.PhaseFailed},
		{Domain: "asked.test", CA: directory, Phase: parking.PhaseWaiting, Reason: acmepersist.ReasonAbsent, IsOnDemand: true, Since: now.Add(-3 * time.Hour), AskedAt: now.Add(-time.Hour), Certificate: parking.Certificate{NotAfter: now.Add(40 * time.Hour)}},
		{Domain: "left.test", CA: directory, Phase: parking.PhaseWaiting, Reason: acmepersist.ReasonAbsent, IsOnDemand: true, Since: now.Add(-900 * time.Hour), AskedAt: now.Add(-25 * time.Hour), Certificate: parking.Certificate{NotAfter: now, Urgent: now.Add(-time.Hour)}},
	}
	good, bad := m.CA(directory, "good"), m.CA(directory, "bad")
	good.Happened(acmepersist.EventAccountUsable)
	good.Happened(acmepersist.EventCAAnswered)
	bad.Happened(acmepersist.EventAccountLost)
	absent := func(n int) map[propagation.Status]int { return map[propagation.Status]int{propagation.StatusAbsent: n} }
	good.Records(false, acmepersist.Records{Ends: time.Unix(2000, 0)})
	bad.Records(false, acmepersist.Records{Ends: time.Unix(1000, 0), NotReady: absent(1)})
	good.Records(true, acmepersist.Records{NotReady: absent(2)})
	bad.Records(true, acmepersist.Records{NotReady: absent(3)})
	cas := []Used{{CA: good, OrdersLeft: func() float64 { return 3 }}, {CA: bad, OrdersLeft: func() float64 { return 2 }}, {CA: m.CA(directory, "new")}}
	registry = load(t, m, names, cas, true)
	shows(t, registry, "account", "account_usable{} 0")
	shows(t, registry, "directory", "directory_reachable{} 1")
	shows(t, registry, "record_ends", "record_ends_timestamp_seconds{source=configuration} 1000")
	shows(t, registry, "records_not_ready",
		"records_not_ready{code=absent,source=configuration} 1", "records_not_ready{code=partial,source=configuration} 0", "records_not_ready{code=blocked,source=configuration} 0",
		"records_not_ready{code=absent,source=on_demand} 5", "records_not_ready{code=partial,source=on_demand} 0", "records_not_ready{code=blocked,source=on_demand} 0")
	shows(t, registry, "certificates_running_out", "certificates_running_out{source=configuration} 1", "certificates_running_out{source=on_demand} 0")
	shows(t, registry, "orders_left", "orders_left{} 2")
	shows(t, registry, "certificate_not_after",
		fmt.Sprintf("certificate_not_after_timestamp_seconds{source=configuration} %v", seconds(now.Add(50*time.Hour))),
		fmt.Sprintf("certificate_not_after_timestamp_seconds{source=on_demand} %v", seconds(now.Add(40*time.Hour))))
	for _, s := range series(t, registry, "longest_wait") {
		source, hours := "configuration", 2.0
		if strings.Contains(s, onDemand) {
			source, hours = "on_demand", 3
		}
		var waited float64
		_, err := fmt.Sscanf(s, "longest_wait_seconds{source="+source+"} %f", &waited)
		if err != nil || waited < hours*3600 || waited > hours*3600+60 {
			t.Errorf("%s: the longest wait is of %v hours: %v", s, hours, err)
		}
	}
	shows(t, registry, "name_status",
		"name_status{domain=waits.test,phase=waiting,reason=record_absent} 1", "name_status{domain=tried.test,phase=ordering,reason=} 1",
		"name_status{domain=served.test,phase=served,reason=} 1", "name_status{domain=failed.test,phase=failed,reason=} 1")
	for _, want := range []string{
		"names{phase=waiting,reason=record_absent,source=configuration} 1", "names{phase=waiting,reason=record_absent,source=on_demand} 2",
		"names{phase=ordering,reason=,source=configuration} 1", "names{phase=served,reason=,source=configuration} 1", "names{phase=held,reason=caa,source=configuration} 0",
	} {
		if !slices.Contains(series(t, registry, "names"), want) {
			t.Errorf("%s is not shown", want)
		}
	}
	bad.Happened(acmepersist.EventAccountUsable)
	bad.Records(false, acmepersist.Records{})
	shows(t, registry, "account", "account_usable{} 1")
}

// A place in which there are names is shown also if nobody has thought of it, and odd octets do not cost
// the whole scrape.
func TestOddNames(t *testing.T) {
	registry := load(t, New(), []parking.Status{
		{Domain: "a\xff.test", CA: "https://ca.test/\xff", Phase: "resting", Reason: "tired"},
		{Domain: "a\xff.test", CA: "https://ca.test/\xff", Phase: parking.PhaseWaiting, Reason: "tired"},
	}, nil, true)
	if got := series(t, registry, "names"); !slices.Contains(got, "names{ca=https://ca.test/?,phase=waiting,reason=tired,source=configuration} 1") {
		t.Errorf("shown are %q", got)
	}
}

// Each value of a label is named: an event or outcome that is added needs one.
func TestValuesAreNamed(t *testing.T) {
	for _, values := range [][]string{orderResults[:], validationResults[len(orderResults):], queryResults[:], writeOperations[:], writeResults[:]} {
		if slices.Contains(values, "") {
			t.Errorf("a value has no name: %q", values)
		}
	}
}

// A question of DNS costs no allocation.
func TestAskedAllocatesNothing(t *testing.T) {
	m := New()
	if n := testing.AllocsPerRun(100, func() { m.Asked(propagation.OutcomeAnswered) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAsked(b *testing.B) {
	m := New()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			m.Asked(propagation.OutcomeAnswered)
		}
	})
}

// BenchmarkScrape is our part of a scrape with 10,000 names, but for the snapshot of the registry.
func BenchmarkScrape(b *testing.B) {
	m := New()
	registry := load(b, m, many(10_000), []Used{{CA: m.CA(directory, "key")}}, false)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := registry.Gather(); err != nil {
			b.Fatal(err)
		}
	}
}
