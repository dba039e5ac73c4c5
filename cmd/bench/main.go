// Command bench measures what the plugin costs. It prints plain tables: they are kept in
// RUNS.md beside this file, and summed up in docs/benchmarks.md.
//
//	go run ./cmd/bench waiting [--names 10000] [--zones 1|10000] [--duration 60s]
//	go run ./cmd/bench hostile [--good 20] [--after 20s]
//	go run ./cmd/bench fleet [--sites 2000] [--without 1500] [--profile DIR]
//	go run ./cmd/bench site [--runs 11] [--validation 100ms]
//	go run ./cmd/bench scrape [--names 10000] [--served]
//	go run ./cmd/bench record
//	go run ./cmd/bench operator [--names 10000]
//	go run ./cmd/bench peers [--names 500] [--rounds 3] [--load 4]
//
// It needs no root, no fixed port and no network.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

// command is one benchmark.
type command func(args []string, out, complaints io.Writer) error

var commands = map[string]command{
	"waiting":  waiting,
	"hostile":  hostile,
	"fleet":    fleet,
	"scrape":   scrape,
	"record":   records,
	"operator": operator,
	"site":     oneSite,
	runOne:     fleetRun,
	"peers":    peers,
	apartRun:   apartMain,
	runSite:    oneSiteRun,
	loopRun:    loopMain,
	burnRun:    burnMain,
}

const usage = "usage: bench waiting|hostile|fleet|site|scrape|record|operator|peers [flags]; see bench waiting --help"

// selfEnv is set in the processes that this program starts of itself, so that a test's binary
// knows that it is one.
const selfEnv = "DNS_PERSIST_BENCH_SELF"

// errUsage marks what the flag package has already complained about.
var errUsage = errors.New("wrong flags")

func main() {
	err := beCaddy()
	if err == nil {
		err = run(os.Args[1:], os.Stdout, os.Stderr)
	}
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		os.Exit(2)
	default:
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string, out, complaints io.Writer) error {
	if len(args) == 0 {
		return errors.New(usage)
	}
	do, ok := commands[args[0]]
	if !ok {
		return fmt.Errorf("no benchmark %q; %s", args[0], usage)
	}
	return do(args[1:], out, complaints)
}

// parse reads flags and takes no further arguments.
func parse(flags *flag.FlagSet, args []string, complaints io.Writer) error {
	flags.SetOutput(complaints)
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return err
	case err != nil:
		return errUsage
	case flags.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	return nil
}
