package parking

import (
	"context"
	"crypto/x509"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// silence is DNS that never answers.
type silence struct{}

func (silence) Exchange(ctx context.Context, _, _ string, _ *dns.Msg) (*dns.Msg, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// world is a registry with its log.
type world struct {
	*Registry
	logs *observer.ObservedLogs
}

// newWorld is a registry whose log is kept. Close has to be called within the bubble of a clock.
func newWorld(t *testing.T) *world {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	w := &world{New(propagation.SchedulerConfig{MinInterval: 1000 * time.Hour, MaxInterval: 1000 * time.Hour}), logs}
	w.SetLogger(zap.New(core))
	return w
}

// owner is an issuer of a configuration that is made for a test.
type owner struct {
	key             string
	chain, onDemand bool
	configuration   *Configuration
	stored          *x509.Certificate
	storage         state.Store

	mu       sync.Mutex
	obtained []time.Time // when it was asked to obtain a certificate
	// obtain is what comes of that; nil for nothing.
	obtain func(domain string) (done bool, err error)
	cancel context.CancelFunc
	work   sync.WaitGroup
}

// configure starts a configuration with one issuer, which manages domains.
func (w *world) configure(key string, domains ...string) *owner {
	alive, cancel := context.WithCancel(context.Background())
	o := &owner{key: key, cancel: cancel}
	managed := make(map[string]bool)
	for _, d := range domains {
		managed[d] = true
	}
	o.configuration = &Configuration{
		Go: func(fn func(context.Context)) bool {
			if alive.Err() != nil {
				return false
			}
			o.work.Go(func() { fn(alive) })
			return true
		},
		CA: func(domain string) (ca string, isAlone bool) {
			if managed[domain] {
				ca = testCA
			}
			return ca, true
		},
		IsOnDemand: func(domain string) bool { return !managed[domain] },

		Names:  func(domain string) bool { return managed[domain] },
		Limits: Limits{MaxWaiting: 6, MaxWaitingPerDomain: 3, ForgetAfter: 24 * time.Hour},
		Logger: w.logger,
	}
	w.Start(o.configuration)
	return o
}

// end ends its configuration.
func (w *world) end(o *owner) {
	o.cancel()
	w.End(o.configuration)
	o.work.Wait()
}

func (o *owner) Configuration() *Configuration { return o.configuration }
func (o *owner) Key() string                   { return o.key }
func (o *owner) IsAlone() bool                 { return !o.chain }
func (o *owner) IsOnDemand() bool              { return o.onDemand }
func (o *owner) Storage() state.Store          { return o.storage }

func (o *owner) Stored(context.Context, string) *x509.Certificate { return o.stored }

func (o *owner) Obtain(_ context.Context, domain string, _ time.Time) (bool, error) {
	o.mu.Lock()
	o.obtained = append(o.obtained, time.Now())
	obtain := o.obtain
	o.mu.Unlock()
	if obtain == nil {
		return false, nil
	}
	return obtain(domain)
}

// retries is how often it was asked to obtain a certificate.
func (o *owner) retries() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.obtained)
}

var errWait = errors.New("wait")

const testCA = "https://ca.test/dir"

// held is a Hold for another reason than the record.
func held(domain string, until time.Time) *acmepersist.Hold {
	return &acmepersist.Hold{Reason: acmepersist.ReasonAccount, Domain: domain, CA: testCA, Until: until, Err: errWait}
}

// missing is a Hold of a domain whose record, of this value, is missing.
func missing(domain, value string) *acmepersist.Hold {
	h := held(domain, time.Time{})
	h.Reason, h.Account = acmepersist.ReasonAbsent, "https://ca.test/1"
	h.Record = acmepersist.Record{Name: "_validation-persist." + domain, Value: value}
	checker := propagation.NewChecker(propagation.Config{Exchanger: silence{}, Resolvers: []string{"192.0.2.53"}})
	h.Watch = &acmepersist.Watch{
		Checker: checker, Target: propagation.Target{Name: h.Record.Name}, Gate: checker.NewGate(),
		Report: propagation.Report{Name: h.Record.Name, Status: propagation.StatusAbsent, When: time.Now()},
		Find:   func(propagation.Report) acmepersist.Finding { return acmepersist.Finding{} },
	}
	return h
}

// attempt is an attempt that ends with an error; it is what CertMagic is answered with.
func (w *world) attempt(ctx context.Context, o *owner, domain string, err error) error {
	a, answer := w.Begin(ctx, o, domain)
	if answer != nil {
		return answer
	}
	a.Settle(ctx, err)
	return err
}

// entryOf is the domain's entry for an owner; nil if there is none.
func (w *world) entryOf(o *owner, domain string) *entry {
	w.mu.Lock()
	defer w.unlock()
	return w.entries[keyOf(o, domain)]
}

// change changes the domain's entry.
func (w *world) change(o *owner, domain string, fn func(*entry)) {
	e := w.entryOf(o, domain)
	w.mu.Lock()
	defer w.unlock()
	fn(e)
}

// show is a poll that shows a status.
func (w *world) show(o *owner, domain string, status propagation.Status) {
	w.entryOf(o, domain).observed(propagation.Report{Name: "_validation-persist." + domain, Status: status, When: time.Now()})
}
