package command

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/operator"
)

func checkCommand() *cobra.Command {
	cmd := newCommand("check [NAME… | -] [--wait] [--timeout DURATION] [--format text|json]", "Shows what the CA would make of the records in DNS", `
Reads DNS, as the CA would, and shows for each name what is published, what the CA makes
of it and why, what each server shows, and what to do. The CA is asked for nothing but
the account.

--wait looks again until all names are ok or --timeout is over.

--ask NAME asks the CA itself about one name: one order, validated and not finalized.
Whatever DNS shows the CA looks, and a no counts against its limits.

The exit status is 2 unless all names are ok.`, runCheck)
	f := cmd.Flags()
	f.Bool("wait", false, "Look again until all names are ok")
	f.Duration("timeout", time.Hour, "How long --wait waits")
	f.Bool("quiet", false, "No progress")
	f.String("ask", "", "Ask the CA itself about this name")
	choice(f, "format", "text", "Output", "text", "json")
	cmd.MarkFlagsMutuallyExclusive("ask", "wait")
	cmd.ValidArgsFunction = completeNames
	cmd.Example = examples("check", "check example.com --wait --timeout 30m", "check --ask example.com", "check - --format json < names.txt")
	return cmd
}

func runCheck(r *run) error {
	names, err := r.names()
	if err != nil {
		return err
	}
	if was := r.text("ca"); was != "" && !strings.Contains(was, "://") {
		return fmt.Errorf("--ca takes the directory URL of a CA, and %s is none: --ask %[1]s asks the CA about that name", was)
	}
	if name := r.text("ask"); r.cmd.Flags().Changed("ask") {
		if len(names) > 0 {
			return errors.New("--ask asks about its own name only: leave the others out")
		}
		return r.ask(name)
	}
	src, err := r.source()
	if err != nil {
		return err
	}
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
	var all []acmepersist.Checked
	ok := true
	err = l.at(l.checks, len(l.checks) <= thoroughUpTo, func(c acmepersist.Checked) {
		ok = ok && c.State.IsOK()
		if r.isJSON() {
			all = append(all, c)
		} else {
			reportOne(l.out, c)
		}
	})
	if err == nil && r.isJSON() {
		err = r.json(struct {
			Checks []acmepersist.Checked `json:"checks"`
			Failed []operator.Failure    `json:"failed,omitempty"`
		}{all, r.failed})
	}
	if err == nil && !ok {
		return errNotOK
	}
	return err
}

// reportOne reports one name to a person.
func reportOne(out io.Writer, c acmepersist.Checked) {
	fmt.Fprintf(out, "%s: %s (%s at %s)\n", c.Name, c.State, strings.Join(c.Identifiers, ", "), c.CA)
	for _, v := range c.Published {
		what := string(v.Outlook)
		if string(v.Code) != what {
			what += ", " + string(v.Code)
		}
		if v.Reason != "" {
			what += ": " + v.Reason
		}
		fmt.Fprintf(out, "    found   %q\n            %s\n", v.Value, what)
	}
	if !c.State.IsOK() {
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
		if i > 0 { // the first is the state of the name, which the rest of this shows too
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
	open := l.checks
	began := time.Now()
	last := make(map[string]string)
	for {
		var still []acmepersist.Wanted
		err := l.at(open, false, func(c acmepersist.Checked) {
			if !c.State.IsOK() {
				still = append(still, c.Wanted)
			}
			now := string(c.State)
			if c.State == acmepersist.StatePartial || c.State == acmepersist.StateBlocked {
				now += ": " + c.Do
			}
			if key := keyOf(c.Wanted); last[key] != now {
				last[key] = now
				if !l.flag("quiet") {
					l.report("%s: %s", c.Name, now)
				}
			}
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
		select {
		case <-time.After(min(pause, time.Minute+time.Duration(len(open))*time.Second/50, limit-waited)):
		case <-l.Done():
			return errors.New("interrupted while waiting")
		}
	}
}

// ask lets the CA validate one name.
func (r *run) ask(name string) error {
	off, err := r.changing()
	if err != nil {
		return err
	}
	iss, err := off.For(r.text("ca"), name)
	if err != nil {
		return err
	}
	asked, err := iss.Ask(r, name)
	if err != nil {
		return err
	}
	switch {
	case r.isJSON():
		err = r.json(askReply{Asked: []acmepersist.Asked{asked}})
	case asked.Earlier:
		_, err = fmt.Fprintf(r.out, "%s: the CA has validated it before and will not look again until %s\n", asked.Identifier, asked.Until.Format(time.DateTime))
	case asked.Valid:
		_, err = fmt.Fprintf(r.out, "%s: the CA has accepted the record\n", asked.Identifier)
	default:
		_, err = fmt.Fprintf(r.out, "%s: the CA has refused: %s\n", asked.Identifier, asked.Error)
	}
	if err == nil && !asked.Valid {
		return errNotOK
	}
	return err
}

// askReply is the JSON of check --ask.
type askReply struct {
	Asked []acmepersist.Asked `json:"asked"`
}
