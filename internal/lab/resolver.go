package lab

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// validationLabel is in front of the domain in a validation name.
const validationLabel = "_validation-persist."

// resolverPatience is longer than Pebble's own, so that it is Pebble who gives
// up.
const resolverPatience = 5 * time.Second

// listenDNS starts the resolver that stands between Pebble and the one of the
// configuration. It knows TCP only, as that is how Pebble asks.
func (c *CA) listenDNS() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("resolver of the CA: %w", err)
	}
	started := make(chan struct{})
	c.resolver = &dns.Server{Listener: listener, Handler: dns.HandlerFunc(c.resolve), NotifyStartedFunc: func() { close(started) }}
	c.wg.Go(func() { c.resolver.ActivateAndServe() })
	<-started
	return nil
}

// closeDNS stops the resolver, if it was started.
func (c *CA) closeDNS() {
	if c.resolver == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	c.resolver.ShutdownContext(ctx)
}

// resolve answers what the resolver of the configuration answers, with the
// records at validation names judged.
func (c *CA) resolve(w dns.ResponseWriter, query *dns.Msg) {
	reply, err := c.forward(query)
	if err != nil {
		w.Close() // Pebble sees about what it would see without this resolver
		return
	}
	if len(query.Question) == 1 && query.Question[0].Qtype == dns.TypeTXT {
		name := strings.ToLower(strings.TrimSuffix(query.Question[0].Name, "."))
		if domain, ok := strings.CutPrefix(name, validationLabel); ok {
			for _, rr := range reply.Answer {
				// The owner does not matter: behind a CNAME it is another one, and
				// the domain that is validated still that of the question.
				if txt, ok := rr.(*dns.TXT); ok {
					value := strings.Join(txt.Txt, "")
					if judged := c.judge(domain, value); judged != value {
						txt.Txt = splitTXT(judged)
					}
				}
			}
		}
	}
	reply.Truncate(dns.MaxMsgSize) // compresses when it must
	w.WriteMsg(reply)
}

// forward asks the resolver of the configuration.
func (c *CA) forward(query *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(c.ctx, resolverPatience)
	defer cancel()
	var dialer net.Dialer
	stream, err := dialer.DialContext(ctx, "tcp", c.config.Resolver)
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	defer context.AfterFunc(ctx, func() { stream.Close() })()
	conn := &dns.Conn{Conn: stream}
	if err := conn.WriteMsg(query); err != nil {
		return nil, err
	}
	return conn.ReadMsg()
}

// splitTXT cuts a TXT value in presentation format into character-strings of at
// most 255 octets.
func splitTXT(value string) []string {
	var parts []string
	start, octets := 0, 0
	for i := 0; i < len(value); octets++ {
		if octets == 255 {
			parts = append(parts, value[start:i])
			start, octets = i, 0
		}
		i += octetLen(value[i:])
	}
	return append(parts, value[start:])
}

// octetLen is how many characters the first octet of a TXT value takes: \DDD,
// \X or X.
func octetLen(s string) int {
	digit := func(i int) bool { return i < len(s) && '0' <= s[i] && s[i] <= '9' }
	switch {
	case s[0] != '\\':
		return 1
	case digit(1) && digit(2) && digit(3):
		return 4
	}
	return min(2, len(s))
}
