package propagation

import (
	"context"
	"errors"
	"strings"

	"github.com/miekg/dns"
)

// hookNet is memNet with a say of the test on each question.
type hookNet struct {
	*memNet
	hook func(network, addr string, q *dns.Msg) (*dns.Msg, error, bool)
	log  []string
}

func (n *hookNet) Exchange(ctx context.Context, network, addr string, q *dns.Msg) (*dns.Msg, error) {
	n.mu.Lock()
	n.log = append(n.log, network+" "+addr+" "+q.Question[0].Name+" "+dns.TypeToString[q.Question[0].Qtype])
	n.mu.Unlock()
	if n.hook != nil {
		if m, err, done := n.hook(network, addr, q); done {
			return m, err
		}
	}
	return n.memNet.Exchange(ctx, network, addr, q)
}

func (n *hookNet) checker() *Checker {
	return NewChecker(Config{Resolvers: []string{"192.0.2.53"}, Exchanger: n})
}

func (n *hookNet) questions(parts ...string) (c int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.log {
		ok := true
		for _, p := range parts {
			ok = ok && strings.Contains(l, p)
		}
		if ok {
			c++
		}
	}
	return c
}

var errSilent = errors.New("i/o timeout")
