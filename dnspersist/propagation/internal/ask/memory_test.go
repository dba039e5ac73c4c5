package ask

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

const latency = 10 * time.Millisecond

// silentNet answers for some addresses and lets the others time out.
type silentNet struct {
	mu     sync.Mutex
	answer func(addr, network string) bool
	asked  map[string]int // by network and address
}

func (n *silentNet) Exchange(ctx context.Context, network, addr string, query *dns.Msg) (*dns.Msg, error) {
	n.mu.Lock()
	n.asked[network+" "+addr]++
	ok := n.answer(addr, network)
	n.mu.Unlock()
	if ok {
		time.Sleep(latency)
		return new(dns.Msg).SetReply(query), nil
	}
	patience := DefaultUDPTimeout
	if network == "tcp" {
		patience = DefaultTCPTimeout
	}
	select {
	case <-time.After(patience):
		return nil, errors.New("i/o timeout")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// A silent server costs its time-outs once; after that a second, until it answers again.
func TestSilentServerIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := false
		n := &silentNet{asked: make(map[string]int), answer: func(string, string) bool { return up }}
		a := Asker{Exchanger: n, Memory: memoryOf(n)}
		ask := func() time.Duration {
			began := time.Now()
			if _, err := a.Ask(t.Context(), "192.0.2.1:53", "example.test.", dns.TypeTXT, false); (err == nil) != up {
				t.Fatalf("the answer is %v", err)
			}
			if up {
				a.Memory.Useful("192.0.2.1:53", "example.test.")
			} else {
				a.Memory.Silent("192.0.2.1:53", "example.test.")
			}
			return time.Since(began)
		}
		if took := ask(); took != 2*DefaultUDPTimeout+DefaultTCPTimeout {
			t.Errorf("the first question took %s", took)
		}
		if took := ask(); took != shortTimeout {
			t.Errorf("the second question took %s, want %s", took, shortTimeout)
		}
		time.Sleep(tcpAgain)
		if took := ask(); took != shortTimeout+DefaultTCPTimeout {
			t.Errorf("with TCP once a minute it took %s", took)
		}
		since, looks := a.Memory.recall("192.0.2.1:53").badSince, a.Memory.recall("192.0.2.1:53").badLooks
		if looks != 3 || time.Since(since) < tcpAgain {
			t.Errorf("bad for %s and %d looks", time.Since(since), looks)
		}
		up = true
		if took := ask(); took != latency {
			t.Errorf("the answer took %s", took)
		}
		if s := a.Memory.recall("192.0.2.1:53"); !s.badSince.IsZero() || s.silent {
			t.Errorf("it counts as bad still: %+v", s)
		}
		up = false
		if took := ask(); took != 2*minRTTWait+DefaultTCPTimeout {
			t.Errorf("a server that was quick is waited for %s", took)
		}
		time.Sleep(memoryFor + time.Second)
		if s := a.Memory.recall("192.0.2.1:53"); s != (serverMemory{}) {
			t.Errorf("after a day something is remembered: %+v", s)
		}
	})
}

// A server that answers over TCP alone is asked over UDP once and briefly.
func TestTCPOnlyServerIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &silentNet{asked: make(map[string]int), answer: func(_, network string) bool { return network == "tcp" }}
		a := Asker{Exchanger: n, Memory: memoryOf(n)}
		for i, want := range []time.Duration{2*DefaultUDPTimeout + latency, shortTimeout + latency} {
			began := time.Now()
			if _, err := a.Ask(t.Context(), "192.0.2.1:53", "example.test.", dns.TypeTXT, false); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took != want {
				t.Errorf("question %d took %s, want %s", i+1, took, want)
			}
		}
	})
}
