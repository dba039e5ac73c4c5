package command

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/operator"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

func checkCommand() *cobra.Command {
	cmd := newCommand("check [NAME… | -] [flags]", "Shows what the CA would make of the records in DNS", `
Reads DNS, as the CA would, and shows for each name what is published, what
the CA makes of it and why, what each server shows, and what to do. The CA is
asked for nothing but the account. Where the running Caddy waits for something
else than the record, that is shown too, and what somebody may have corrected
is tried again.

--wait looks again until all names are ok and none is held, or --timeout is
over, and reports each change with what to do; of over 20 names it reports how
many are in which state.

--ask NAME asks the CA itself about one name: one order, validated and not
finalized. Whatever DNS shows the CA looks, and a no counts against its
limits.

The exit status is 2 unless all names are ok.`, runCheck)
	f := cmd.Flags()
	f.Bool("wait", false, "Look again until all names are ok")
	f.Duration("timeout", time.Hour, "How long --wait waits")
	f.Bool("quiet", false, "No progress and no changes while it waits, only what comes of it")
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
	if err := checkFlagsOfCheck(r); err != nil {
		return err
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
		return errNoNames
	}
	if r.flag("wait") {
		if err := l.wait(); err != nil {
			return err
		}
	}
	var all []acmepersist.Checked
	var held []operator.NameStatus
	ok := true
	var unwritten error
	err = l.at(l.checks, len(l.checks) <= thoroughUpTo, func(c acmepersist.Checked) {
		holds := l.holds(c)
		ok = ok && c.State.IsOK() && !slices.ContainsFunc(holds, operator.NameStatus.NeedsSomebody)
		if held = append(held, holds...); r.isJSON() {
			all = append(all, c)
			return
		}
		unwritten = cmp.Or(unwritten, reportOne(l.out, c))
		for _, n := range holds {
			l.reportHold(n)
		}
	})
	if err == nil && r.isJSON() {
		err = r.json(struct {
			Checks []acmepersist.Checked `json:"checks"`
			Held   []operator.NameStatus `json:"held,omitempty"`
			Failed []operator.Failure    `json:"failed,omitempty"`
		}{all, held, r.failed})
	}
	if err = cmp.Or(err, unwritten); err == nil && !ok {
		return errNotOK
	}
	return err
}

// reportHold reports why Caddy does not obtain a certificate, and what to do.
func (l *looks) reportHold(n operator.NameStatus) {
	wrap(l.out, columnsOf(l.out), "    held    ", inOneLine(l.out, n)+": "+foreign.Line(n.Why))
	if n.Do != "" {
		l.line("do", n.Do)
	}
	l.line("next", nextOf(n))
}

// checkFlagsOfCheck refuses flags that mean nothing.
func checkFlagsOfCheck(r *run) error {
	if was := r.text("ca"); was != "" && !strings.Contains(was, "://") {
		return fmt.Errorf("--ca takes the directory URL of a CA, and %s is not one: --ask %[1]s asks the CA about that name", was)
	}
	if r.cmd.Flags().Changed("timeout") && !r.flag("wait") {
		return errors.New("--timeout is how long --wait waits: give both, or neither")
	}
	return nil
}

// holds are why Caddy does not obtain the certificates of what was checked, but for the record.
func (l *looks) holds(c acmepersist.Checked) (all []operator.NameStatus) {
	for _, n := range l.held {
		if n.CA == c.CA && slices.Contains(c.Identifiers, n.Domain) {
			all = append(all, n)
		}
	}
	return all
}

// colourOf is that of a state.
func colourOf(s acmepersist.State) colour {
	switch s {
	case acmepersist.StateGood:
		return green
	case acmepersist.StateDepends, acmepersist.StatePartial, acmepersist.StateMissing:
		return yellow
	}
	return red
}

// reportOne reports one name to a person. A reason is told once, at the value that it is about.
func reportOne(out io.Writer, c acmepersist.Checked) error {
	var b bytes.Buffer
	columns := columnsOf(out)
	line := func(label, format string, args ...any) {
		wrap(&b, columns, fmt.Sprintf("    %-8s", label), foreign.Line(fmt.Sprintf(format, args...)))
	}
	wrap(&b, columns, "", fmt.Sprintf("%s: %s (%s at %s)", c.Name, paint(out, colourOf(c.State), string(c.State)), strings.Join(c.Identifiers, ", "), c.CA))
	var reasons []string
	isKnown := c.OrValue == "" && strings.HasSuffix(c.Do, c.Value) // what to do ends with it
	for _, v := range c.Published {
		what := string(v.Outlook)
		if string(v.Code) != what {
			what += ", " + string(v.Code)
		}
		if v.Reason != "" {
			what += ": " + v.Reason
			reasons = append(reasons, v.Reason)
		}
		isKnown = isKnown || v.Value == c.Value
		line("found", "%q", v.Value)
		line("", "%s", what)
	}
	if !c.State.IsOK() && !isKnown {
		line("wanted", "%q", c.Value)
		if c.OrValue != "" {
			line("or", "%q", c.OrValue)
		}
	}
	for _, a := range answersOf(c, reasons) {
		label := "server"
		if len(a.hosts) > 1 {
			label = "servers"
		}
		line(label, "%s%s", strings.Join(a.hosts, ", "), a.text)
	}
	for i, d := range c.Diagnostics {
		if i > 0 { // the first is the state of the name, which the rest of this shows too
			line("note", "%s: %s", d.Code, d.Text)
		}
	}
	if !c.EndsAt.IsZero() {
		line("ends", "%s", c.EndsAt.Format(time.DateTime))
	}
	if c.Do != "" {
		line("do", "%s", withoutKnown(c.Do, c.Published, reasons))
	}
	_, err := b.WriteTo(out)
	return err
}

// withoutKnown is what to do without what was told before: the value, if it is the only one, and the
// reasons.
func withoutKnown(do string, published []acmepersist.ValueVerdict, reasons []string) string {
	if len(published) == 1 {
		do = strings.Replace(do, "the value "+foreign.Text(published[0].Value)+" by", "it by", 1)
	}
	for _, reason := range reasons {
		do = strings.TrimSuffix(strings.Replace(do, reason+"; ", "", 1), ": "+reason)
	}
	return do
}

// answer is what some servers show.
type answer struct {
	text  string
	hosts []string
}

// answersOf lists what the servers show, those together that show the same. The address of a host is
// in it where that is to be looked after. The reasons were told before.
func answersOf(c acmepersist.Checked, reasons []string) []answer {
	what := func(s propagation.ServerReport) string {
		text := string(s.Verdict)
		if s.Reason != "" && !slices.Contains(reasons, s.Reason) {
			text += ": " + s.Reason
		}
		if s.Name != c.Name { // where a CNAME leads
			return " for " + s.Name + ": " + text
		}
		return ": " + text
	}
	var all []answer
	for _, s := range c.Report.Servers {
		text, host := what(s), s.Host
		isOdd := s.Verdict == propagation.VerdictBroken || s.Verdict == propagation.VerdictSilent ||
			slices.ContainsFunc(c.Report.Servers, func(o propagation.ServerReport) bool { return o.Host == s.Host && o.Name == s.Name && what(o) != text })
		if isOdd && s.Addr != "" && s.Addr != s.Host {
			host += " (" + s.Addr + ")"
		}
		i := slices.IndexFunc(all, func(a answer) bool { return a.text == text })
		if i < 0 {
			i = len(all)
			all = append(all, answer{text: text})
		}
		if !slices.Contains(all[i].hosts, host) {
			all[i].hosts = append(all[i].hosts, host)
		}
	}
	return all
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
	tellRunning(r, asked)
	switch {
	case r.isJSON():
		err = r.json(askReply{Asked: []acmepersist.Asked{asked}})
	case asked.Earlier:
		_, err = fmt.Fprintf(r.out, "%s: the CA has validated it before and will not look again until %s\n", asked.Identifier, asked.Until.Format(time.DateTime))
	case asked.Valid:
		_, err = fmt.Fprintf(r.out, "%s: the CA has accepted the record\n", asked.Identifier)
	default:
		_, err = fmt.Fprintf(r.out, "%s: the CA has refused: %s\n", asked.Identifier, foreign.Line(asked.Error))
	}
	if err == nil && !asked.Valid {
		return errNotOK
	}
	return err
}

// tellRunning has a Caddy that runs try a name again that the CA has accepted meanwhile.
func tellRunning(r *run, asked acmepersist.Asked) {
	if !asked.Valid || r.text("config") != "" {
		return
	}
	cfg, err := r.config()
	if err != nil {
		return
	}
	if address, err := adminAddress(cfg); err == nil && address != "" {
		if c, err := newClient(r, address); err == nil { // if none runs, nobody has to know
			_ = c.call(http.MethodPost, "check", operator.CheckRequest{Names: []string{asked.Identifier}, CA: asked.CA}, new(operator.CheckReply))
		}
	}
}

// askReply is the JSON of check --ask.
type askReply struct {
	Asked []acmepersist.Asked `json:"asked"`
}
