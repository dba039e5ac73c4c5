// Command lab shows the plugin at work on one machine: a CA (Pebble), two
// authoritative name servers, a recursive one, and a real Caddy with three sites.
// It needs no root, no fixed port and no network.
//
//	go run ./cmd/lab [--once | --play] [--dialect 00|01|02|02+01|mixed] [--scenario NAME]
//	go run ./cmd/lab ctl COMMAND…
//
// It narrates what happens as it happens, ends up serving HTTPS, and shows a renewal
// by Caddy's maintenance loop. With --once it exits when all of that was verified,
// with status 1 and the reason otherwise. --dialect is the draft that the CA speaks:
// -01 by default, -02 that still accepts records of -01, or frontends of both.
// --scenario plays one way in which DNS is slow or broken instead, on one site, and
// verifies what comes of it; --scenario list lists them.
//
// After that, or at once with --play, it is a playground: records, name servers and the
// CA are published, broken and mended by commands, typed or given with ctl in another
// terminal, and `caddy dns-persist` shows what the running Caddy makes of it.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"time"

	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// within bounds the whole demonstration with --once.
const within = 4 * time.Minute

// options is what the command line says.
type options struct {
	once, play, verbose, list bool
	dialect                   lab.Dialect
	scenario                  *scenario
	// control is a command for a lab that runs.
	control string
}

// parse reads the command line. Flags that the flag package refuses, it has
// complained about already.
func parse(args []string, complaints io.Writer) (options, error) {
	var o options
	if len(args) > 0 && args[0] == "ctl" {
		o.control = cmp.Or(strings.Join(args[1:], " "), "help")
		return o, nil
	}
	flags := flag.NewFlagSet("lab", flag.ContinueOnError)
	flags.SetOutput(complaints)
	flags.BoolVar(&o.once, "once", false, "exit when everything was verified; non-zero with the reason otherwise")
	flags.BoolVar(&o.play, "play", false, "publish nothing: take commands at once")
	flags.BoolVar(&o.verbose, "verbose", false, "print Caddy's log as well")
	word := flags.String("dialect", "01", "the `draft` that the CA speaks: 00, 01, 02, 02+01 (also accepts records of -01) or mixed (frontends of both)")
	play := flags.String("scenario", "", "play the scenario of this `name` instead of the demonstration; list lists them")
	if err := flags.Parse(args); err != nil {
		return o, errors.Join(errRefused, err)
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q; see --help", flags.Arg(0))
	}
	if o.play && (o.once || *play != "") {
		return o, errors.New("--play leaves everything to you: leave --once and --scenario out")
	}
	var err error
	if o.dialect, err = lab.ParseDialect(*word); err != nil {
		return o, fmt.Errorf("--dialect: %w", err)
	}
	switch *play {
	case "":
	case "list":
		o.list = true
	default:
		if o.scenario, err = findScenario(*play); err != nil {
			return o, fmt.Errorf("--scenario: %w", err)
		}
	}
	return o, nil
}

// errRefused marks errors that the flag package has told about.
var errRefused = errors.New("refused flags")

func main() {
	o, err := parse(os.Args[1:], os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(0)
	case errors.Is(err, errRefused):
		os.Exit(2)
	case err != nil:
		fmt.Fprintf(os.Stderr, "lab: %v\n", err)
		os.Exit(2)
	}
	if o.list {
		for _, s := range scenarios {
			fmt.Printf("%-14s %s\n", s.name, s.about)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	if o.control != "" {
		err = order(ctx, o.control, os.Stdout)
	} else {
		err = run(ctx, o, os.Stdin, os.Stdout)
	}
	stop()
	if status, ok := errors.AsType[statusError](err); ok {
		os.Exit(int(status))
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "\nlab: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, in io.Reader, out io.Writer) error {
	d, err := begin(o, out)
	if err != nil {
		return err
	}
	defer d.close()
	var watching sync.WaitGroup
	watched, stop := context.WithCancel(ctx)
	watching.Go(func() { d.watch(watched) })
	defer func() {
		stop()
		watching.Wait()
	}()
	if err := d.show(ctx, o); err != nil {
		if errors.Is(ctx.Err(), context.Canceled) {
			return nil // interrupted by the user
		}
		return err
	}
	if o.once {
		return nil
	}
	return d.playground(ctx, in)
}

// show plays what was asked for, and verifies it.
func (d *demo) show(ctx context.Context, o options) error {
	limited, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	switch {
	case o.play:
		return d.start(d.caddyfile())
	case o.scenario != nil:
		return d.play(limited, o.scenario)
	}
	return d.demonstrate(limited)
}
