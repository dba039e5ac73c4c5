package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

const (
	peersZone = "example.test"
	// peersLimit bounds one run of one contestant.
	peersLimit = 4 * time.Minute
)

type peersOptions struct {
	names, rounds, load, slow int
	only, profile             string
}

// contestant is somebody who gets certificates for many names.
type contestant struct {
	name, note string
	// waits is who waits so long that it takes part in one round, with few names.
	waits bool
	// resolver is whom the CA asks, if not the lab's.
	resolver string
	run      func(*attempt) (measured, error)

	results map[bool][]measured // by whether there was load
	ratios  map[bool][]ratio
}

// ratio is a run as a part of the loop's in the same round.
type ratio struct{ rate, cpu float64 }

func peerNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("n%d.%s", i, peersZone)
	}
	return names
}

// peers measures this Caddy against others that get certificates from the same CA: a bare loop,
// Caddy's own issuer, and lego's library.
func peers(args []string, out, complaints io.Writer) error {
	var o peersOptions
	flags := flag.NewFlagSet("peers", flag.ContinueOnError)
	flags.IntVar(&o.names, "names", 500, "how many names, each with its record published before")
	flags.IntVar(&o.rounds, "rounds", 3, "how many rounds, in which the contestants take turns")
	flags.IntVar(&o.load, "load", 4, "how many busy loops run beside them in the second half; 0: none, and no second half")
	flags.IntVar(&o.slow, "slow", 20, "how many names those get who mostly wait by themselves; they take part in one round")
	flags.StringVar(&o.only, "only", "loop,default,caddy,stock,lego", "who takes part: a `list`, always with the loop")
	flags.StringVar(&o.profile, "profile", "", "a `directory` for CPU profiles of this Caddy's first seconds")
	if err := parse(flags, args, complaints); err != nil {
		return err
	}
	if o.names < 1 || o.rounds < 1 || o.load < 0 || o.slow < 1 {
		return errors.New("--names, --rounds and --slow must be at least 1, and --load not negative")
	}
	dir, err := os.MkdirTemp("", "bench-peers-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	all, skipped, end, err := o.contestants(dir)
	if err != nil {
		return err
	}
	defer end()
	heading(out)
	states := []bool{false}
	if o.load > 0 {
		states = append(states, true)
	}
	for _, loaded := range states {
		for round := range o.rounds {
			if err := o.round(all, loaded, round, complaints); err != nil {
				return err
			}
		}
	}
	o.table(all, states).print(out)
	for _, c := range all {
		fmt.Fprintf(out, "%s: %s\n", c.name, c.note)
	}
	for _, s := range skipped {
		fmt.Fprintln(out, s)
	}
	fmt.Fprintln(out)
	fmt.Fprint(out, peersShown)
	return nil
}

// peersShown says what the tables show, and what they do not.
const peersShown = `Each run has a CA, an account, a storage and a process of its own. The times begin with the start of the contestant's process.
The first certificate and the median are by the CA's log of what it issued; the whole ends when the loop's or lego's process has
ended, or Caddy serves what was issued last. CPU is that of the contestant's process, without the CA, the name servers and the load.
Ratios are to the loop of the same round; of several rounds the median is shown, and in brackets the least and the most.

What they do not show: the network (all is on loopback: no latency to the CA, none to name servers), a public CA (Pebble validates at
once and from one place, has no limits, and stands behind a gate that lets one request in at a time; it shares the cores with the
contestant), names in more than one zone, and what the loop leaves out: it looks at no DNS before it orders, stores and serves
nothing, keeps no lock, and knows no restart.
`

// contestants are those that can take part, and a sentence for each that cannot.
func (o peersOptions) contestants(dir string) (all []*contestant, skipped []string, end func(), err error) {
	end = func() {}
	chosen := strings.Split(o.only, ",")
	for _, c := range chosen {
		if !slices.Contains([]string{"loop", "default", "caddy", "stock", "lego"}, c) {
			return nil, nil, end, fmt.Errorf("--only: there is no contestant %q", c)
		}
	}
	all = []*contestant{{name: "loop", note: loopNote, run: func(a *attempt) (measured, error) { return a.loop(loopInterval) }}}
	if slices.Contains(chosen, "default") {
		all = append(all, &contestant{name: "default", waits: true, note: plainNote, run: func(a *attempt) (measured, error) { return a.loop(250 * time.Millisecond) }})
	}
	if slices.Contains(chosen, "caddy") {
		all = append(all, &contestant{
			name: "caddy", run: (*attempt).caddy,
			note: "this Caddy with issuer dns_persist, all names in one site block, file storage; two name servers are asked before each order",
		})
	}
	if slices.Contains(chosen, "stock") {
		if bindProgram() == "" {
			skipped = append(skipped, "stock: not measured, for there is no BIND here: install the Debian package bind9")
		} else {
			b, err := startBIND(dir, peersZone)
			if err != nil {
				return nil, nil, end, err
			}
			end = b.close
			all = append(all, &contestant{
				name: "stock", waits: true, resolver: b.addr,
				run: func(a *attempt) (measured, error) { return a.stock(b) },
				note: "the same Caddy with issuer acme and dns-01, records written to a BIND by dynamic updates (RFC 2136); with resolvers" +
					" set to that BIND, propagation_delay and propagation_timeout as they come. Its fixed waits: 2 s before the first look at" +
					" a record that it has written, and 10 orders in 10 s",
			})
		}
	}
	if slices.Contains(chosen, "lego") {
		c, err := lego(dir)
		if err != nil {
			skipped = append(skipped, fmt.Sprintf("lego: not measured, for tools/peers cannot be built here: %v", err))
		} else {
			all = append(all, c)
		}
	}
	for _, c := range all {
		c.results, c.ratios = make(map[bool][]measured), make(map[bool][]ratio)
	}
	return all, skipped, end, nil
}

// lego builds the contestant that is a module of its own.
func lego(dir string) (*contestant, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/dnspersist/caddy-dnspersist").Output()
	if err != nil {
		return nil, errors.New("this is not run in the repository")
	}
	program := filepath.Join(dir, "lego")
	build := exec.CommandContext(ctx, "go", "build", "-mod=mod", "-o", program, "./cmd/lego")
	build.Dir = filepath.Join(strings.TrimSpace(string(root)), "tools", "peers")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	version, err := exec.CommandContext(ctx, program, "--version").Output()
	if err != nil {
		return nil, err
	}
	run := func(a *attempt) (measured, error) {
		ctx, cancel := context.WithTimeout(context.Background(), peersLimit)
		defer cancel()
		cmd := exec.CommandContext(ctx, program, "--directory", a.lab.Directory, "--control", a.lab.Control,
			"--resolver", a.lab.Resolver, "--issuer", lab.DefaultIssuerName, "--names", strings.Join(a.names, ","))
		cmd.Env = append(os.Environ(), "LEGO_CA_CERTIFICATES="+a.lab.Roots)
		return a.finish(cmd)
	}
	return &contestant{
		name: "lego", waits: true, run: run,
		note: "the library of lego " + strings.TrimSpace(string(version)) + ", 8 workers, dns-persist-01, nothing stored, authoritative servers not" +
			" asked. Its fixed waits for each name: 1/18 s before an authorization is read, 2 s before the record is looked at, 5 s" +
			" (half of it more or less, at random) after a look at an authorization that is pending, 0.5 s between looks at an order",
	}, nil
}

// round has each contestant run once; the loop is the first.
func (o peersOptions) round(all []*contestant, loaded bool, number int, complaints io.Writer) error {
	if loaded {
		stop, err := burn(o.load)
		if err != nil {
			return err
		}
		defer stop()
	}
	var loop measured
	for _, c := range all {
		names := o.names
		if c.waits {
			if number > 0 {
				continue
			}
			names = min(names, o.slow)
		}
		profile := ""
		if o.profile != "" && c.name == "caddy" {
			profile = filepath.Join(o.profile, fmt.Sprintf("%s-%d", map[bool]string{false: "idle", true: "loaded"}[loaded], number+1))
		}
		m, err := c.once(names, profile)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		fmt.Fprintf(complaints, "%s: round %d, load %t: %d names in %s, %d failed %s\n",
			c.name, number+1, loaded, m.names, span(m.took), m.tallies.Failed, m.tallies.FirstFailure)
		if c.name == "loop" {
			loop = m
		}
		c.results[loaded] = append(c.results[loaded], m)
		c.ratios[loaded] = append(c.ratios[loaded], ratio{m.rate() / loop.rate(), m.cpuPerName() / loop.cpuPerName()})
	}
	return nil
}

// once is one run with a CA and a folder of its own.
func (c *contestant) once(names int, profile string) (m measured, err error) {
	dir, err := os.MkdirTemp("", "bench-peer-")
	if err != nil {
		return m, err
	}
	defer os.RemoveAll(dir)
	a, err := startApart(apartOptions{Zones: []string{peersZone}, Resolver: c.resolver})
	if err != nil {
		return m, err
	}
	defer a.close()
	return c.run(&attempt{lab: a, names: peerNames(names), dir: dir, profile: profile})
}

// table sums up the rounds.
func (o peersOptions) table(all []*contestant, states []bool) *table {
	t := newTable(fmt.Sprintf("Certificates for %d names of one zone (those that wait: fewer), rounds in turn", o.names),
		"contestant", "busy loops", "names", "certificates a second", "to the loop", "first", "median, of the whole",
		"failed validations", "CPU a certificate, ms", "to the loop")
	for _, loaded := range states {
		for _, c := range all {
			runs, ratios := c.results[loaded], c.ratios[loaded]
			failed, names := 0, runs[0].names
			for _, m := range runs {
				failed += m.tallies.Failed
				names = min(names, m.names)
			}
			var firsts []time.Duration
			for _, m := range runs {
				firsts = append(firsts, m.first)
			}
			t.row(c.name, o.loops(loaded), names,
				spread(runs, measured.rate), spread(ratios, func(r ratio) float64 { return r.rate }),
				quantile(firsts, 0.5), spread(runs, measured.medianShare)+" %", failed,
				spread(runs, measured.cpuPerName), spread(ratios, func(r ratio) float64 { return r.cpu }))
		}
	}
	return t
}

func (o peersOptions) loops(loaded bool) int {
	if loaded {
		return o.load
	}
	return 0
}

// spread is the median of a figure, with the least and the most of several.
func spread[T any](runs []T, figure func(T) float64) string {
	var all []float64
	for _, r := range runs {
		all = append(all, figure(r))
	}
	slices.Sort(all)
	middle := cell(all[len(all)/2])
	if len(all) == 1 {
		return middle
	}
	return fmt.Sprintf("%s (%s to %s)", middle, cell(all[0]), cell(all[len(all)-1]))
}
