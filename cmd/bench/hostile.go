package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// hostileOptions is what the command line says, and what a test shortens.
type hostileOptions struct {
	good                    int
	after, settle, patience time.Duration
}

// crowd is what is watched beside the good names: so many bad ones, in one domain or in a domain
// each, all with servers of one kind.
type crowd struct {
	kind string
	bad  int
	own  bool
}

// hostile measures, over real sockets, how long good names of one domain take to be ready after
// their records are published, alone and beside names whose servers do what they can.
func hostile(args []string, out, complaints io.Writer) error {
	o := hostileOptions{settle: propagation.DefaultSettle, patience: time.Minute}
	flags := flag.NewFlagSet("hostile", flag.ContinueOnError)
	flags.IntVar(&o.good, "good", 20, "how many good names there are")
	flags.DurationVar(&o.after, "after", 20*time.Second, "when their records are published")
	if err := parse(flags, args, complaints); err != nil {
		return err
	}
	if o.good < 1 || o.after <= 0 {
		return errors.New("--good and --after must be more than zero")
	}
	heading(out)
	fmt.Fprintf(out, "%d good names of one domain, whose records are published after %s, beside bad ones; UDP and TCP on loopback\n\n", o.good, o.after)
	t := newTable(fmt.Sprintf("From published to ready; of that, %s are the settle time", whole(o.settle)),
		"beside", "names", "in", "ready", "median", "last", "last/alone", "asked of bad servers")
	alone, _, err := crowd{}.run(o)
	if err != nil {
		return err
	}
	if len(alone) < o.good {
		return fmt.Errorf("only %d of %d names were ready alone", len(alone), o.good)
	}
	last := quantile(alone, 1)
	t.row("nobody", 0, "", len(alone), quantile(alone, 0.5), last, 1.0, 0)
	for _, bad := range []int{40, 300} {
		for _, own := range []bool{false, true} {
			if err := beside(o, t, bad, own, last); err != nil {
				return err
			}
		}
	}
	t.print(out)
	return nil
}

// beside measures all kinds at once, each in a world of its own.
func beside(o hostileOptions, t *table, bad int, own bool, alone time.Duration) error {
	took, asked, errs := make([][]time.Duration, len(hostileKinds)), make([]int64, len(hostileKinds)), make([]error, len(hostileKinds))
	var wg sync.WaitGroup
	for i, kind := range hostileKinds {
		wg.Go(func() { took[i], asked[i], errs[i] = crowd{kind, bad, own}.run(o) })
	}
	wg.Wait()
	where := "one domain"
	if own {
		where = "a domain each"
	}
	for i, kind := range hostileKinds {
		last, ratio := any(quantile(took[i], 1)), any(float64(quantile(took[i], 1))/float64(alone))
		if len(took[i]) < o.good {
			last, ratio = "never", "-"
		}
		t.row(kind, bad, where, strconv.Itoa(len(took[i])), quantile(took[i], 0.5), last, ratio, asked[i])
	}
	return errors.Join(errs...)
}

// run returns how long the good names took that were ready in time, and how much the servers of
// the bad ones were asked.
func (c crowd) run(o hostileOptions) (took []time.Duration, asked int64, err error) {
	// The good names are those in zone 0.
	names, zones, others := 2*max(o.good, c.bad), 2, 0
	if c.own {
		names, zones, others = o.good, 1, c.bad
	}
	w, err := newWorld(names, zones, others)
	if err != nil {
		return nil, 0, err
	}
	var good, bad []int
	for i := range w.visible {
		if w.zoneOf(i) == 0 {
			good = append(good, i)
		} else {
			bad = append(bad, i)
		}
	}
	good, bad = good[:o.good], bad[:c.bad]

	worse := hostileAnswer(c.kind)
	servers := make(map[string]string)
	var all []*socket
	defer func() {
		for _, s := range all {
			s.close()
		}
	}()
	listen := func(a answerer, at ...string) error {
		s, err := newSocket(a)
		if err != nil {
			return err
		}
		all = append(all, s)
		for _, addr := range at {
			servers[addr] = s.addr
		}
		return nil
	}
	var atBad []string
	for zone := 1; zone < zones+others; zone++ {
		atBad = append(atBad, serverAddr(zone, 0), serverAddr(zone, 1))
	}
	if err := errors.Join(
		listen(w.honest(true), resolverAddr),
		listen(w.honest(false), serverAddr(0, 0)),
		listen(w.honest(false), serverAddr(0, 1)),
		listen(worse, atBad...),
	); err != nil {
		return nil, 0, err
	}

	p := newPlaceIn(w, propagation.Config{Resolvers: []string{resolver}, Exchanger: lab.Redirected{Servers: servers}, Settle: o.settle})
	p.patience = o.patience
	var looks sync.WaitGroup
	defer looks.Wait()
	defer p.close()
	for _, i := range slices.Concat(good, bad) {
		looks.Go(func() { p.watch(i) })
	}
	time.Sleep(o.after)
	n := p.publish(good)[0]
	return n.took, all[len(all)-1].asked.Load(), nil
}

func serverAddr(zone, which int) string { return net.JoinHostPort(server(zone, which).String(), "53") }
