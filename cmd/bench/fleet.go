package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// runOne is the command that fleet starts itself with, in a process for each run:
// Caddy, CertMagic and acmez keep state for the whole process.
const runOne = "fleet-run"

// fleetLimit bounds one run.
const fleetLimit = 10 * time.Minute

type fleetOptions struct {
	sites, without, runs int
	profile              string
}

func (o *fleetOptions) flags(name string) *flag.FlagSet {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.IntVar(&o.sites, "sites", 2000, "how many names one site block has")
	flags.IntVar(&o.without, "without", 1500, "how many of them have no record")
	flags.IntVar(&o.runs, "runs", 3, "how often each is run, in turns; what took the median time is shown")
	flags.StringVar(&o.profile, "profile", "", "a `directory` for pprof files")
	return flags
}

func (o *fleetOptions) parse(name string, args []string, complaints io.Writer) error {
	if err := parse(o.flags(name), args, complaints); err != nil {
		return err
	}
	if o.runs < 1 {
		return errors.New("--runs must be at least 1")
	}
	if o.without < 0 || o.sites <= o.without {
		return errors.New("--sites must be more than --without, for somebody must get a certificate")
	}
	return nil
}

// fleet measures a real Caddy of which most names have no record, against one that
// has only the others.
func fleet(args []string, out, complaints io.Writer) error {
	var o fleetOptions
	if err := o.parse("fleet", args, complaints); err != nil {
		return err
	}
	with := o.sites - o.without
	heading(out)
	fmt.Fprintf(out, "%d names in one site block, %d of them without a record, against %d names of which all have one\n\n", o.sites, o.without, with)
	kinds := []struct {
		name    string
		without int
	}{{"alone", 0}, {"beside", o.without}}
	results := make([][]result, len(kinds))
	for range o.runs {
		for i, k := range kinds {
			args := []string{"--sites", strconv.Itoa(with + k.without), "--without", strconv.Itoa(k.without)}
			if o.profile != "" {
				args = append(args, "--profile", filepath.Join(o.profile, k.name))
			}
			var r result
			if err := another(append([]string{runOne}, args...), &r); err != nil {
				return fmt.Errorf("run %q: %w", k.name, err)
			}
			results[i] = append(results[i], r)
		}
	}
	runs := newTable("The last certificate in each run", "run", "alone", "beside", "ratio")
	for i := range o.runs {
		runs.row(i+1, results[0][i].Last, results[1][i].Last, results[1][i].Last.Seconds()/results[0][i].Last.Seconds())
	}
	runs.print(out)
	alone, beside := middle(results[0]), middle(results[1])
	compare(out, fmt.Sprintf("Until %d names have their certificates", with), alone, beside)
	if o.without > 0 {
		fmt.Fprintf(out, "memory per waiting name in the whole process: %s bytes\n\n", cell((beside.Heap-alone.Heap)/int64(o.without)))
	}
	return nil
}

// middle is the run that took the median time.
func middle(runs []result) result {
	slices.SortFunc(runs, func(a, b result) int { return cmp.Compare(a.Last, b.Last) })
	return runs[len(runs)/2]
}

// another makes one run in a process of its own.
func another(args []string, into any) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), fleetLimit+time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, self, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		tail := stderr.Bytes()
		return fmt.Errorf("%w\n%s", err, tail[max(0, len(tail)-4000):])
	}
	return json.Unmarshal(stdout.Bytes(), into)
}

// fleetRun is one run; it prints what it measured as JSON.
func fleetRun(args []string, out, complaints io.Writer) error {
	var o fleetOptions
	if err := o.parse(runOne, args, complaints); err != nil {
		return err
	}
	r, err := runFleet(o)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(r)
}

// compare prints two runs side by side.
func compare(out io.Writer, title string, a, b result) {
	t := newTable(title, "what", "alone", "beside", "ratio")
	spans := func(what string, x, y time.Duration) { t.row(what, x, y, y.Seconds()/x.Seconds()) }
	spans("loading the configuration", a.Load, b.Load)
	spans("the first certificate", a.First, b.First)
	spans("the median", a.Median, b.Median)
	spans("the last certificate", a.Last, b.Last)
	spans("CPU until then, CA included", a.CPU, b.CPU)
	t.row("heap afterwards, MiB", float64(a.Heap)/(1<<20), float64(b.Heap)/(1<<20), float64(b.Heap)/float64(a.Heap))
	t.row("most goroutines", a.Goroutines, b.Goroutines, float64(b.Goroutines)/float64(a.Goroutines))
	t.row("DNS queries until then, CA's included", a.Queries, b.Queries, float64(b.Queries)/float64(a.Queries))
	t.print(out)

	t = newTable("What was asked of storage and of the CA until then", "what", "alone", "beside", "time in it, beside")
	keys := slices.Concat(keysOf(a.Ops), keysOf(b.Ops))
	slices.Sort(keys)
	for _, k := range slices.Compact(keys) {
		t.row(k, a.Ops[k].Count, b.Ops[k].Count, b.Ops[k].Took)
	}
	steps := slices.Concat(keysOf(a.Requests), keysOf(b.Requests))
	slices.Sort(steps)
	for _, k := range slices.Compact(steps) {
		t.row("CA: "+k, a.Requests[k], b.Requests[k], "")
	}
	t.print(out)
}

func keysOf[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	return keys
}
