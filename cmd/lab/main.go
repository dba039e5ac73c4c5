// Command lab shows the plugin at work on one machine: a CA (Pebble), two
// authoritative name servers, a recursive one, and a real Caddy with three sites.
// It needs no root, no fixed port and no network.
//
//	go run ./cmd/lab [--once]
//
// It narrates what happens as it happens, ends up serving HTTPS, and shows a renewal
// by Caddy's maintenance loop. With --once it exits when all of that was verified,
// with status 1 and the reason otherwise.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// within bounds the whole demonstration with --once.
const within = 4 * time.Minute

func main() {
	once := flag.Bool("once", false, "exit when everything was verified; non-zero with the reason otherwise")
	verbose := flag.Bool("verbose", false, "print Caddy's log as well")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "lab: unexpected argument %q; see --help\n", flag.Arg(0))
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, *once, *verbose)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "\nlab: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, once, verbose bool) error {
	d, err := start(verbose)
	if err != nil {
		return err
	}
	defer d.close()
	defer func() { _ = caddy.Stop() }()

	limited, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if err := d.demonstrate(limited); err != nil {
		if ctx.Err() != nil {
			return nil // interrupted by the user
		}
		return err
	}
	if once {
		return nil
	}
	d.say("Caddy goes on serving and renewing; press Ctrl-C to end.")
	<-ctx.Done()
	return nil
}
