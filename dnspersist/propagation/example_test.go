package propagation_test

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// oneServer plays a resolver and the only name server of example.com.
type oneServer struct{}

func (oneServer) Exchange(_ context.Context, _, _ string, query *dns.Msg) (*dns.Msg, error) {
	resp := new(dns.Msg)
	resp.SetReply(query)
	resp.Authoritative = true
	zone := map[uint16]string{
		dns.TypeSOA: "example.com. 300 SOA ns.example.com. h.example.com. 1 3600 600 86400 300",
		dns.TypeNS:  "example.com. 300 NS ns.example.com.",
		dns.TypeA:   "ns.example.com. 300 A 192.0.2.1",
		dns.TypeTXT: `_validation-persist.example.com. 300 TXT "ca.example; accounturi=https://ca.example/acct/1"`,
	}
	if text, ok := zone[query.Question[0].Qtype]; ok {
		rr, err := dns.NewRR(text)
		if err != nil {
			return nil, err
		}
		resp.Answer = append(resp.Answer, rr)
	}
	return resp, nil
}

func Example() {
	checker := propagation.NewChecker(propagation.Config{
		Resolvers: []string{"192.0.2.53"},
		Exchanger: oneServer{}, // left out outside of this example
	})
	target := propagation.Target{
		Name: "_validation-persist.example.com",
		Host: "example.com",
		Accept: func(values []string) (bool, string) {
			return slices.Contains(values, "ca.example; accounturi=https://ca.example/acct/1"), "no record for our account"
		},
	}

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	report := checker.Check(ctx, target, checker.NewGate())
	fmt.Println(report.Summary())
	// Output:
	// _validation-persist.example.com: ready: record on 1 of 1 name servers of example.com
}

func ExampleScheduler() {
	checker := propagation.NewChecker(propagation.Config{Resolvers: []string{"192.0.2.53"}, Exchanger: oneServer{}})
	scheduler := propagation.NewScheduler(propagation.SchedulerConfig{})
	defer scheduler.Close()

	ready := make(chan propagation.Report, 1)
	stop := scheduler.Watch("example.com", checker,
		propagation.Target{Name: "_validation-persist.example.com"}, nil,
		func(r propagation.Report) {
			if r.Status == propagation.StatusReady {
				select {
				case ready <- r:
				default: // it is reported again at every poll
				}
			}
		})
	fmt.Println((<-ready).Status)
	stop()
	// Output: ready
}
