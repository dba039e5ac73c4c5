package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"time"
)

// goals of the project for a name that waits, and for all of them.
const (
	goalBytes = 8 << 10
	goalCPU   = 0.05
)

// waitingOptions is what the command line says.
type waitingOptions struct {
	names, zones, beside int
	duration, later      time.Duration
}

// waiting measures names that wait for their records: the first minute by the
// clock on the wall, the rest of it by one that jumps to whatever is next, so that
// hours cost nothing but the work that is done in them.
func waiting(args []string, out, complaints io.Writer) error {
	var o waitingOptions
	flags := flag.NewFlagSet("waiting", flag.ContinueOnError)
	flags.IntVar(&o.names, "names", 10_000, "how many names wait")
	flags.IntVar(&o.zones, "zones", 1, "in how many zones")
	flags.IntVar(&o.beside, "beside", 20, "how many further names wait in a zone each")
	flags.DurationVar(&o.duration, "duration", time.Minute, "how long to measure by the real clock; 0: not at all")
	flags.DurationVar(&o.later, "later", 2*time.Hour, "how long to go on by the simulated clock; 0: not at all")
	if err := parse(flags, args, complaints); err != nil {
		return err
	}
	if o.duration != 0 && o.duration < time.Second {
		return errors.New("--duration must be at least a second, or 0")
	}
	heading(out)
	fmt.Fprintf(out, "%d names waiting in %s, beside them %s in a zone each;\ntwo servers for each zone, every answer after %s\n\n", o.names, plural(o.zones, "zone"), plural(o.beside, "name"), latency)
	if o.duration > 0 {
		if err := firstMinute(o, out); err != nil {
			return err
		}
	}
	if o.later == 0 {
		return nil
	}
	return simulated(func() error { return hours(o, out) })
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// firstMinute measures by the real clock.
func firstMinute(o waitingOptions, out io.Writer) error {
	p, err := newPlace(o.names, o.zones, o.beside)
	if err != nil {
		return err
	}
	defer p.close()
	t := newTable("By the real clock", "time", "queries", "queries/s", "CPU s per s", "most goroutines")
	t.add("first looks", p.begin())
	// as many windows as print well
	step := max(time.Second, o.duration/6)
	for from := time.Duration(0); from+step <= o.duration; from += step {
		t.add(fmt.Sprintf("%s to %s", whole(from), whole(from+step)), p.observe(step))
	}
	t.print(out)

	perName := p.perName()
	g := newTable("Against the goals", "what", "measured", "goal", "met")
	g.row("memory per name, bytes", perName, goalBytes, yes(perName <= goalBytes))
	g.row("CPU s per s, while polling", p.cpu(), goalCPU, yes(p.cpu() <= goalCPU))
	g.print(out)
	return nil
}

// moments are when records are published, after the begin of the wait.
var moments = []time.Duration{time.Minute, 30 * time.Minute}

// hours measures by the simulated clock: for each moment a new process's worth of names.
func hours(o waitingOptions, out io.Writer) error {
	loads := newTable("By the simulated clock", "time", "queries", "queries/s", "CPU s per s", "most goroutines")
	noticed := newTable("From visible to StatusReady, by the simulated clock; of that, 10 s are the settle time",
		"published", "names", "ready", "median", "95 %", "worst")
	for _, at := range moments {
		if at < o.later {
			if err := moment(o, at, newTable("", ""), noticed); err != nil {
				return err
			}
		}
	}
	if err := moment(o, o.later, loads, noticed); err != nil {
		return err
	}
	loads.print(out)
	noticed.print(out)
	return nil
}

// moment lets names wait until some get their records, and at the end all.
func moment(o waitingOptions, at time.Duration, loads, noticed *table) error {
	p, err := newPlace(o.names, o.zones, o.beside)
	if err != nil {
		return err
	}
	defer p.close()
	start := time.Now()
	loads.add("first looks", p.begin())
	var until time.Duration
	for _, next := range []time.Duration{time.Minute, 10 * time.Minute, time.Hour, 2 * time.Hour, 4 * time.Hour, at} {
		if next = min(next, at); next > until {
			loads.add(fmt.Sprintf("until %s", whole(next)), p.observe(next-time.Since(start)))
			until = next
		}
	}
	part := take(&p.order, max(1, o.names/100))
	for i, n := range p.publish(part, p.beside) {
		noticed.add(fmt.Sprintf("after %s, %s", whole(at), []string{"1 %", "beside"}[i]), n)
	}
	if at == o.later {
		noticed.add("then all the others", p.publish(p.order)[0])
	}
	return nil
}

func yes(ok bool) string {
	if ok {
		return "yes"
	}
	return "no"
}

// whole is a duration without zeros at its end.
func whole(d time.Duration) string {
	switch {
	case d >= time.Hour && d%time.Hour == 0:
		return fmt.Sprintf("%d h", d/time.Hour)
	case d >= time.Minute && d%time.Minute == 0:
		return fmt.Sprintf("%d min", d/time.Minute)
	}
	return fmt.Sprintf("%.0f s", d.Seconds())
}

// load is what was used in some time.
type load struct {
	queries    int64
	took, cpu  time.Duration
	goroutines int
}

func (l load) rate() float64 { return float64(l.queries) / l.took.Seconds() }

func (l load) share() float64 { return l.cpu.Seconds() / l.took.Seconds() }

// add makes a row of what was measured.
func (t *table) add(what string, result any) {
	switch r := result.(type) {
	case load:
		t.row(what, r.queries, r.rate(), r.share(), r.goroutines)
	case news:
		t.row(what, r.names, len(r.took), quantile(r.took, 0.5), quantile(r.took, 0.95), quantile(r.took, 1))
	}
}
