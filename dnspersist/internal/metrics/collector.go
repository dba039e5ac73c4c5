package metrics

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/parking"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// Names and labels of what is looked up at each scrape.
var (
	namesDesc       = gauge("names", "Names by where they are on their way to a certificate.", "ca", "phase", "reason", "source")
	longestWaitDesc = gauge("longest_wait_seconds", "For how long the name has waited that waits the longest.", "ca", "source")
	notAfterDesc    = gauge("certificate_not_after_timestamp_seconds", "When the first of the certificates ends.", "ca", "source")
	runningOutDesc  = gauge("certificates_running_out", "Certificates whose renewal is overdue.", "ca", "source")
	notReadyDesc    = gauge("records_not_ready", "Records of names with a certificate that the last look at each has not found as they should be.", "ca", "code", "source")
	recordEndsDesc  = gauge("record_ends_timestamp_seconds", "When the first of the published records ends.", "ca", "source")
	accountDesc     = gauge("account_usable", "Whether the CA has last accepted the account.", "ca")
	reachableDesc   = gauge("directory_reachable", "Whether the CA has answered when it was last asked.", "ca")
	parallelDesc    = gauge("parallel_orders", "How many orders the CA works on now.", "ca")
	mostDesc        = gauge("parallel_orders_limit", "How many orders the CA is given to work on at once.", "ca")
	ordersLeftDesc  = gauge("orders_left", "How many orders rate_limit lets through now.", "ca")

	statusDesc       = gauge("name_status", "Where a name is on its way to a certificate; always 1.", "ca", "domain", "phase", "reason")
	nameNotAfterDesc = gauge("name_certificate_not_after_timestamp_seconds", "When the certificate of a name ends.", "ca", "domain")
)

func gauge(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(namespace, subsystem, name), help, labels, nil)
}

// Values of the label source.
const (
	fromConfiguration = "configuration"
	onDemand          = "on_demand"
)

// sources are by the index of CA.records.
var sources = [...]string{fromConfiguration, onDemand}

// askedFor is how long after its last handshake a name on demand counts: one that was abandoned would
// be the longest wait, and the first certificate to end, for ever.
const askedFor = 24 * time.Hour

// Configuration is what a configuration shows of itself at a scrape.
type Configuration struct {
	// Each calls fn with where each name is.
	Each func(fn func(parking.Status))
	// CAs are those that its issuers use, each account by itself.
	CAs func() []Used
	// CAOf is the CA of ours that a name is to have its certificate from; empty if none is.
	CAOf func(parking.Status) string
	// PerName has each name of the configuration shown by itself.
	PerName bool
}

// Used is a CA that issuers of a configuration use.
type Used struct {
	*CA
	// OrdersLeft is how many orders their pace lets through now; nil where they have none.
	OrdersLeft func() float64
	// Parallel is how many orders the CA works on now, and how many it is given to work on at once.
	Parallel func() (orders, limit int)
}

// place is where a name is.
type place struct {
	phase  parking.Phase
	reason acmepersist.Reason
	source string
}

// places are those that are shown whether a name is there or not: what is not shown cannot be told from
// zero. What is served on demand is not known.
var places = allPlaces()

func allPlaces() []place {
	var all []place
	for _, source := range sources {
		for _, r := range acmepersist.Reasons {
			if phase := parking.PhaseOf(r); phase != parking.PhaseServed {
				all = append(all, place{phase, r, source})
			}
		}
		for _, p := range []parking.Phase{parking.PhaseLooking, parking.PhasePublishing, parking.PhaseOrdering, parking.PhaseFailed} {
			all = append(all, place{p, "", source})
		}
	}
	for _, r := range acmepersist.Reasons {
		if r.IsRecord() && r != acmepersist.ReasonConfirming || r == acmepersist.ReasonEnding { // of a record that was published
			all = append(all, place{parking.PhaseServed, r, fromConfiguration})
		}
	}
	for _, p := range []parking.Phase{parking.PhaseWanted, parking.PhaseServed} {
		all = append(all, place{p, "", fromConfiguration})
	}
	return all
}

// placeOf is where a name is. Only of one that waits, or whose record is not as it should be, the reason counts: one
// that is worked on has waited for it.
func placeOf(s parking.Status) place {
	p := place{phase: s.Phase, source: fromConfiguration}
	if s.IsOnDemand {
		p.source = onDemand
	}
	switch s.Phase {
	case parking.PhaseWaiting, parking.PhaseHeld, parking.PhaseProcessing:
		p.reason = s.Reason
	case parking.PhaseServed:
		if s.Fault != nil {
			p.reason = s.Reason
		}
	}
	return p
}

// collector shows what a configuration has.
type collector struct{ Configuration }

// Describe implements prometheus.Collector.
func (c collector) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		namesDesc, longestWaitDesc, notAfterDesc, runningOutDesc, notReadyDesc, recordEndsDesc, accountDesc, reachableDesc, ordersLeftDesc, parallelDesc, mostDesc, statusDesc, nameNotAfterDesc,
	} {
		descs <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(metrics chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	cas := make(map[string]*figures)
	for _, u := range c.CAs() {
		figuresOf(cas, u.directory).use(u)
	}
	now := time.Now()
	shown := make(map[[2]string]place)
	ends := make(map[[2]string]time.Time)
	c.Each(func(s parking.Status) {
		ca := strings.ToValidUTF8(c.caOf(s), "?")
		if ca == "" {
			return // it is no longer ours
		}
		p := placeOf(s)
		figuresOf(cas, ca).add(s, p, now)
		if c.PerName && p.source == fromConfiguration {
			key := [2]string{ca, strings.ToValidUTF8(s.Domain, "?")}
			shown[key], ends[key] = p, s.NotAfter
		}
	})
	for ca, f := range cas {
		f.send(ca, send)
	}
	for key, p := range shown {
		send(statusDesc, 1, key[0], key[1], string(p.phase), string(p.reason))
		if end := ends[key]; !end.IsZero() {
			send(nameNotAfterDesc, seconds(end), key[0], key[1])
		}
	}
}

func (c collector) caOf(s parking.Status) string {
	if s.CA != "" {
		return s.CA
	}
	return c.CAOf(s)
}

// figures are those of a CA.
type figures struct {
	names map[place]int
	// these are by source
	longest    map[string]time.Duration
	notAfter   map[string]time.Time
	runningOut map[string]int
	recordsEnd map[string]time.Time
	notReady   map[string]map[propagation.Status]int // nil if not known

	account    int32
	reachable  int32
	ordersLeft float64
	hasOrders  bool
	// parallel and most are of its lanes.
	parallel, most int
}

func figuresOf(cas map[string]*figures, ca string) *figures {
	f := cas[ca]
	if f == nil {
		f = &figures{
			names: make(map[place]int, len(places)), longest: make(map[string]time.Duration), notAfter: make(map[string]time.Time),
			runningOut: make(map[string]int), recordsEnd: make(map[string]time.Time), notReady: make(map[string]map[propagation.Status]int),
		}
		for _, p := range places {
			f.names[p] = 0
		}
		cas[ca] = f
	}
	return f
}

// use takes what is known of one account: of several the worst counts.
func (f *figures) use(u Used) {
	f.account, f.reachable = worse(f.account, u.account.Load()), worse(f.reachable, u.reachable.Load())
	for i, source := range sources {
		seen := u.records[i].Load()
		if seen == nil {
			continue
		}
		f.recordsEnd[source] = earlier(f.recordsEnd[source], seen.Ends)
		if f.notReady[source] == nil {
			f.notReady[source] = make(map[propagation.Status]int)
		}
		for status, n := range seen.NotReady {
			f.notReady[source][status] += n
		}
	}
	if u.Parallel != nil {
		f.parallel, f.most = u.Parallel()
	}
	if u.OrdersLeft == nil {
		return
	}
	if left := u.OrdersLeft(); !f.hasOrders || left < f.ordersLeft {
		f.ordersLeft, f.hasOrders = left, true
	}
}

// worse is the worse of two states.
func worse(a, b int32) int32 {
	if a == unknown || b == unknown {
		return max(a, b)
	}
	return min(a, b)
}

// add takes a name.
func (f *figures) add(s parking.Status, p place, now time.Time) {
	f.names[p]++
	if p.source == onDemand && now.Sub(s.AskedAt) > askedFor {
		return
	}
	if wait := now.Sub(s.Since); p.phase != parking.PhaseServed && !s.Since.IsZero() && wait > f.longest[p.source] {
		f.longest[p.source] = wait
	}
	f.notAfter[p.source] = earlier(f.notAfter[p.source], s.NotAfter)
	if s.IsRunningOut(now) {
		f.runningOut[p.source]++
	}
}

// earlier is the earlier of two times; a zero one is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// send shows the figures. What is not known is not shown: zero would be 1970, or a lost account.
func (f *figures) send(ca string, send func(d *prometheus.Desc, value float64, labels ...string)) {
	for p, n := range f.names {
		send(namesDesc, float64(n), ca, string(p.phase), string(p.reason), p.source)
	}
	for _, source := range sources {
		send(longestWaitDesc, f.longest[source].Seconds(), ca, source)
		send(runningOutDesc, float64(f.runningOut[source]), ca, source)
		if end := f.notAfter[source]; !end.IsZero() {
			send(notAfterDesc, seconds(end), ca, source)
		}
		if end := f.recordsEnd[source]; !end.IsZero() {
			send(recordEndsDesc, seconds(end), ca, source)
		}
		if f.notReady[source] == nil {
			continue
		}
		for _, status := range acmepersist.NotReady {
			send(notReadyDesc, float64(f.notReady[source][status]), ca, string(status), source)
		}
	}
	if f.account != unknown {
		send(accountDesc, float64(f.account-no), ca)
	}
	if f.reachable != unknown {
		send(reachableDesc, float64(f.reachable-no), ca)
	}
	if f.most > 0 {
		send(parallelDesc, float64(f.parallel), ca)
		send(mostDesc, float64(f.most), ca)
	}
	if f.hasOrders {
		send(ordersLeftDesc, f.ordersLeft, ca)
	}
}

func seconds(t time.Time) float64 { return float64(t.Unix()) }
