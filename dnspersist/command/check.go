package command

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
)

func checkCommand() *cobra.Command {
	cmd := newCommand("check [NAME… | -] [--wait] [--timeout DURATION] [--format text|json]", "Reports what the CA makes of what is published in DNS", `
Reads DNS, as the CA would, and reports for each name what is published, what the CA makes of it
and why, what each server shows, and what to do. The CA is asked for nothing but the
account.

--wait looks again until all names are ok or --timeout is over.

--ca NAME asks the CA itself about one name: one order, validated and not finalized.
Whatever DNS shows the CA looks, and a no counts against its limits.

The exit status is 2 unless all names are ok.`, runCheck)
	f := cmd.Flags()
	f.Bool("wait", false, "Look again until all names are ok")
	f.Duration("timeout", time.Hour, "How long --wait waits")
	f.Bool("quiet", false, "No progress")
	f.String("ca", "", "Ask the CA itself about this name")
	addFormat(f, "text", "json")
	return cmd
}

func runCheck(r *run) error {
	format, err := r.format("text", "json")
	if err != nil {
		return err
	}
	names, err := r.names()
	if err != nil {
		return err
	}
	if name := r.text("ca"); r.cmd.Flags().Changed("ca") {
		if len(names) > 0 {
			return errors.New("--ca asks about its own name only: leave the others out")
		}
		return r.ask(name, format)
	}
	src, err := r.source()
	if err != nil {
		return err
	}
	defer src.Close()
	r.reportUnsupported(src.off, names)
	l, err := r.looks(src, names)
	if err != nil {
		return err
	}
	if len(l.checks) == 0 {
		return errors.New("the configuration manages no name with dns_persist: give the names as arguments")
	}
	if r.flag("wait") {
		if err := l.wait(); err != nil {
			return err
		}
	}
	return l.report(format)
}

// report looks at all and reports, as it goes: thousands of names are not kept in memory. The
// JSON is that of operator.CheckReply.
func (l *looks) report(format string) error {
	well, count := true, 0
	var failed error
	write := func(c acmepersist.Checked) {
		well = well && c.State.Well()
		switch {
		case format == "json" && count == 0:
			fmt.Fprint(l.out, "{\"checks\":[\n")
		case format == "json":
			fmt.Fprint(l.out, ",\n")
		}
		count++
		if format == "json" {
			failed = errors.Join(failed, l.jsonLine(c))
			return
		}
		reportOne(l.out, c)
	}
	err := l.at(l.all(), len(l.checks) <= thoroughUpTo, func(_ int, c acmepersist.Checked) { write(c) })
	if format == "json" && count > 0 && err == nil && failed == nil {
		fmt.Fprint(l.out, "]")
		if len(l.failed) > 0 {
			fmt.Fprint(l.out, ",\"failed\":")
			failed = l.jsonLine(l.failed)
		}
		fmt.Fprint(l.out, "}\n") // an answer that was cut short is not to pass for a whole one
	}
	if err := errors.Join(err, failed); err != nil {
		return err
	}
	if !well {
		return errNotOK
	}
	return nil
}

// reportOne reports one name to a person.
func reportOne(out io.Writer, c acmepersist.Checked) {
	fmt.Fprintf(out, "%s: %s (%s at %s)\n", c.Name, c.State, strings.Join(c.Identifiers, ", "), c.CA)
	for _, v := range c.Standing {
		what := string(v.Outlook)
		if string(v.Code) != what {
			what += ", " + string(v.Code)
		}
		if v.Reason != "" {
			what += ": " + v.Reason
		}
		fmt.Fprintf(out, "    found   %q\n            %s\n", v.Value, what)
	}
	if !c.State.Well() {
		fmt.Fprintf(out, "    wanted  %q\n", c.Value)
		if c.OrValue != "" {
			fmt.Fprintf(out, "    or      %q\n", c.OrValue)
		}
	}
	for _, s := range c.Report.Servers {
		what := string(s.Verdict)
		if s.Reason != "" {
			what += ": " + s.Reason
		}
		at := s.Host
		if s.Addr != "" && s.Addr != s.Host {
			at += " (" + s.Addr + ")"
		}
		if s.Name != c.Name { // where a CNAME leads
			at += " for " + s.Name
		}
		fmt.Fprintf(out, "    server  %s: %s\n", at, what)
	}
	for i, d := range c.Diagnostics {
		if i > 0 { // the first is the summary, which the rest of this has as well
			fmt.Fprintf(out, "    note    %s: %s\n", d.Code, d.Text)
		}
	}
	if !c.EndsAt.IsZero() {
		fmt.Fprintf(out, "    ends    %s\n", c.EndsAt.Format(time.DateTime))
	}
	if c.Do != "" {
		fmt.Fprintf(out, "    do      %s\n", c.Do)
	}
}

// wait looks again at those that are not ok until all are, or the time is over.
func (l *looks) wait() error {
	limit, err := l.cmd.Flags().GetDuration("timeout")
	if err != nil {
		return err
	}
	open := l.all()
	began := time.Now()
	last := make(map[int]string)
	for {
		var still []int
		err := l.at(open, false, func(i int, c acmepersist.Checked) {
			if !c.State.Well() {
				still = append(still, i)
			}
			now := string(c.State)
			if c.State == acmepersist.StatePartial || c.State == acmepersist.StateBlocked {
				now += ": " + c.Do
			}
			if last[i] != now && !l.flag("quiet") {
				l.run.report("%s: %s", c.Name, now)
			}
			last[i] = now
		})
		if err != nil {
			return err
		}
		open = still
		waited := time.Since(began)
		if len(open) == 0 || waited >= limit {
			return nil
		}
		l.progress("%d of %d names are ok, %s of %s waited", len(l.checks)-len(open), len(l.checks), waited.Round(time.Second), limit)
		// a tenth of what was waited, and no more than 50 names a second
		pause := max(waited/10, 2*time.Second, time.Duration(len(open))*time.Second/50)
		timer := time.NewTimer(min(pause, time.Minute+time.Duration(len(open))*time.Second/50, limit-waited))
		select {
		case <-timer.C:
		case <-l.Done():
			timer.Stop()
			return errors.New("interrupted while waiting")
		}
	}
}

// progress shows how far it is to a person who waits.
func (r *run) progress(format string, args ...any) {
	if isTerminal(r.err) && !r.flag("quiet") {
		fmt.Fprintf(r.err, "\r\x1b[K"+format+"\r", args...)
	}
}

// ask lets the CA validate one name.
func (r *run) ask(name, format string) error {
	off, err := r.changing()
	if err != nil {
		return err
	}
	defer off.Close()
	iss, err := off.For(name)
	if err != nil {
		return err
	}
	said, err := iss.Ask(r, name)
	if err != nil {
		return err
	}
	switch {
	case format == "json":
		err = r.json(askReply{Asked: []acmepersist.Asked{said}})
	case said.Earlier:
		_, err = fmt.Fprintf(r.out, "%s: the CA has validated it before and will not look again until %s\n", said.Identifier, said.Until.Format(time.DateTime))
	case said.Valid:
		_, err = fmt.Fprintf(r.out, "%s: the CA has accepted the record\n", said.Identifier)
	default:
		_, err = fmt.Fprintf(r.out, "%s: the CA has refused: %s\n", said.Identifier, said.Error)
	}
	if err != nil {
		return err
	}
	if !said.Valid {
		return errNotOK
	}
	return nil
}

// askReply is the JSON of check --ca.
type askReply struct {
	Asked []acmepersist.Asked `json:"asked"`
}
