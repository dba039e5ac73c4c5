package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

// counting counts the questions of Caddy, by type and name.
type counting struct {
	propagation.Exchanger

	mu    sync.Mutex
	asked map[string]int
}

func (c *counting) Exchange(ctx context.Context, network, addr string, query *dns.Msg) (*dns.Msg, error) {
	q := query.Question[0]
	c.mu.Lock()
	c.asked[dns.TypeToString[q.Qtype]+" "+strings.TrimSuffix(q.Name, ".")]++
	c.mu.Unlock()
	return c.Exchanger.Exchange(ctx, network, addr, query)
}

// of is how often a question was asked.
func (c *counting) of(question string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked[question]
}

// In every dialect a first certificate looks at its record twice and a renewal once, one question to each of three
// server addresses, and CAA records are asked for once within their TTL, which is a minute here.
func TestQuestionsOfARenewal(t *testing.T) {
	count := &counting{asked: make(map[string]int)}
	e := harness.New(t, harness.Options{Servers: 3, Tuning: func(v *tuning.Values) { count.Exchanger, v.Exchanger = v.Exchanger, count }})
	config := e.Global("renew_interval 1s")
	names := make(map[string]*lab.CA)
	for _, draft := range []string{"00", "01", "02"} {
		ca := e.NewCA(harness.Options{Lifetime: 15 * time.Second, CA: lab.CAConfig{Dialect: lab.Dialect{Draft: draft}}})
		ca.MutateDirectory(func(d map[string]any) { delete(d, "renewalInfo") }) // it may have a certificate renewed at once
		name, account := e.Name("d"+draft), e.BindFor(ca)
		value := e.ValueFor(ca, account, false)
		if draft == "02" {
			value = hashedValue(ca, account, name, false)
		}
		e.Publish(name, value)
		names[name] = ca
		config += e.Site(name, e.BlockFor(ca))
	}
	began := time.Now()
	e.Load(config)
	for name, ca := range names {
		e.Eventually(time.Minute, "two renewals of "+name+" with three questions each", func() error {
			n, asked := ca.Certificates(), count.of("TXT _validation-persist."+name)
			if n < 3 || asked != 6+3*(n-1) {
				return fmt.Errorf("%d certificates, %d questions", n, asked)
			}
			return nil
		})
		if n := count.of("CAA " + name); n != 1 && time.Since(began) < 50*time.Second {
			t.Errorf("%d questions for the CAA records of %s", n, name)
		}
	}
}
