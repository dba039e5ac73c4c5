// Package metrics shows Prometheus what the issuers do and where the names are. Without it only whoever
// reads the log knows that a name waits, or that a certificate runs out.
//
// What is counted lives as long as the process, in Metrics, and is registered anew with each
// configuration. What can be looked up is looked up at each scrape, in memory alone: the names in
// parking.Registry, so that metrics, log and commands cannot differ. No domain is in a label unless the
// configuration asks for it: there are under a hundred series for a CA, whatever the number of names.
package metrics

import (
	"crypto/sha256"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/publish"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// Names and labels of what is counted. The reference has the same table, see internal/docs.
var (
	ordersOpts      = counter("orders_total", "Requests for an order, by what the CA answered.", "ca", "result")
	validationsOpts = counter("validations_total", "Validations, by what the CA has decided.", "ca", "result")
	askedEarlyOpts  = counter("asked_early_total", "Validations that were asked for before the record was known to be complete.", "ca")
	queriesOpts     = counter("dns_queries_total", "Questions to name servers and resolvers, retransmissions apart, by how they ended.", "result")
	writesOpts      = counter("provider_writes_total", "Calls of DNS providers that change a zone, by how they ended.", "operation", "result")
	issuanceOpts    = counter("issuance_seconds", "Time from the attempt's knowing that the record is complete to the certificate.", "ca")
)

// Values of the label result, and of operation.
var (
	orderResults = [...]string{
		acmepersist.EventOrderMade: "made", acmepersist.EventOrderRefused: "refused",
		acmepersist.EventOrderLimited: "rate_limited", acmepersist.EventOrderFailed: "failed",
	}
	validationResults = [...]string{
		acmepersist.EventValid: "valid", acmepersist.EventRefused: "refused",
		acmepersist.EventCAFault: "ca_fault", acmepersist.EventUndecided: "undecided",
	}
	queryResults = [...]string{
		propagation.OutcomeAnswered: "answered", propagation.OutcomeFailed: "failed", propagation.OutcomeUnusable: "unusable",
		propagation.OutcomeSilent: "silent", propagation.OutcomeNotAsked: "not_asked", propagation.OutcomeAbandoned: "abandoned",
	}
	writeOperations = [...]string{publish.OperationAdd: "add", publish.OperationRemove: "remove"}
	writeResults    = [...]string{publish.OutcomeOK: "ok", publish.OutcomeError: "error", publish.OutcomeUnknown: "unknown"}
)

// issuanceBuckets reach from a quick CA to one that takes hours to decide.
var issuanceBuckets = []float64{1, 2, 5, 10, 20, 30, 60, 120, 300, 900, 3600, 14400}

// options are those of a metric with labels.
type options struct {
	prometheus.Opts
	labels []string
}

func counter(name, help string, labels ...string) options {
	return options{prometheus.Opts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help}, labels}
}

func (o options) counters() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts(o.Opts), o.labels)
}

const namespace, subsystem = "caddy", "dns_persist"

// Metrics counts for a process. A nil one counts nothing.
type Metrics struct {
	orders, validations, askedEarly, queries, writes *prometheus.CounterVec
	issuance                                         *prometheus.HistogramVec

	// byOutcome are the counters of queries: at each of them nothing is looked up.
	byOutcome [len(queryResults)]prometheus.Counter

	mu  sync.Mutex
	cas map[[sha256.Size]byte]*CA
}

// New returns what counts for a process.
func New() *Metrics {
	m := &Metrics{
		orders: ordersOpts.counters(), validations: validationsOpts.counters(), askedEarly: askedEarlyOpts.counters(),
		queries: queriesOpts.counters(), writes: writesOpts.counters(),
		issuance: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Subsystem: subsystem, Name: issuanceOpts.Name, Help: issuanceOpts.Help, Buckets: issuanceBuckets,
		}, issuanceOpts.labels),
		cas: make(map[[sha256.Size]byte]*CA),
	}
	for outcome, result := range queryResults {
		m.byOutcome[outcome] = m.queries.WithLabelValues(result)
	}
	for _, operation := range writeOperations {
		for _, result := range writeResults {
			m.writes.WithLabelValues(operation, result)
		}
	}
	return m
}

// Register has a registry show all, and what a configuration has besides.
func (m *Metrics) Register(r prometheus.Registerer, c Configuration) error {
	if m == nil {
		return nil
	}
	var errs []error
	for _, col := range []prometheus.Collector{m.orders, m.validations, m.askedEarly, m.queries, m.writes, m.issuance, collector{c}} {
		if err := r.Register(col); !errors.As(err, new(prometheus.AlreadyRegisteredError)) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Asked counts a question of DNS. It is a propagation.Config.Asked.
func (m *Metrics) Asked(outcome propagation.Outcome) {
	if m != nil {
		m.byOutcome[outcome].Inc()
	}
}

// Called counts a call of a DNS provider. It is a publish.Process.Called.
func (m *Metrics) Called(operation publish.Operation, outcome publish.Outcome) {
	if m != nil {
		m.writes.WithLabelValues(writeOperations[operation], writeResults[outcome]).Inc()
	}
}

// CA returns what counts for an account of a CA. What identifies the account may be its key, and is not kept.
func (m *Metrics) CA(directory, account string) *CA {
	if m == nil {
		return nil
	}
	key := sha256.Sum256([]byte(directory + "\x00" + account))
	m.mu.Lock()
	defer m.mu.Unlock()
	if known := m.cas[key]; known != nil {
		return known
	}
	label := strings.ToValidUTF8(directory, "?")
	ca := &CA{directory: label, issuance: m.issuance.WithLabelValues(label)}
	for event, result := range orderResults {
		ca.counters[event] = m.orders.WithLabelValues(label, result)
	}
	for event, result := range validationResults[len(orderResults):] {
		ca.counters[event+len(orderResults)] = m.validations.WithLabelValues(label, result)
	}
	ca.counters[acmepersist.EventAskedEarly] = m.askedEarly.WithLabelValues(label)
	m.cas[key] = ca
	return ca
}

// CA counts for an account of a CA, and remembers what was last seen of both. It has the
// methods of an acmepersist.Observer that count. A nil one counts nothing.
type CA struct {
	directory string
	counters  [acmepersist.EventAskedEarly + 1]prometheus.Counter
	issuance  prometheus.Observer

	account, reachable atomic.Int32 // one of the states
	// downSince is since when the CA is not reachable, in seconds; 0 if it is.
	downSince atomic.Int64
	// records are those for domains of the configuration, and those on demand; nil if not known.
	records [2]atomic.Pointer[acmepersist.Records]
}

// States of the account and the directory.
const (
	unknown int32 = iota
	no
	yes
)

// Happened implements acmepersist.Observer.
func (ca *CA) Happened(event acmepersist.Event) {
	switch {
	case ca == nil:
	case event == acmepersist.EventAccountUsable:
		ca.account.Store(yes)
	case event == acmepersist.EventAccountLost:
		ca.account.Store(no)
	case event == acmepersist.EventCAAnswered:
		ca.reachable.Store(yes)
		ca.downSince.Store(0)
	case event == acmepersist.EventCADown:
		ca.reachable.Store(no)
		ca.downSince.CompareAndSwap(0, time.Now().Unix())
	default:
		ca.counters[event].Inc()
	}
}

// IsAccountLost reports whether the CA has last not accepted the account.
func (ca *CA) IsAccountLost() bool { return ca != nil && ca.account.Load() == no }

// DownSince is since when the CA does not answer; zero if it does.
func (ca *CA) DownSince() (since time.Time) {
	if ca != nil && ca.downSince.Load() != 0 {
		since = time.Unix(ca.downSince.Load(), 0)
	}
	return since
}

// Issued implements acmepersist.Observer.
func (ca *CA) Issued(took time.Duration) {
	if ca != nil {
		ca.issuance.Observe(max(took, 0).Seconds())
	}
}

// Records implements acmepersist.Observer.
func (ca *CA) Records(onDemand bool, seen acmepersist.Records) {
	switch {
	case ca == nil:
	case onDemand:
		ca.records[1].Store(&seen)
	default:
		ca.records[0].Store(&seen)
	}
}
