package command

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/operator"
)

func statusCommand() *cobra.Command {
	cmd := newCommand("status [NAME… | -] [flags]", "Shows where each name is on its way to a certificate", `
Shows why a name has no certificate, or no new one: what it waits for and
since when, until when the certificate is valid, what is published and why
that is not enough, what the CA has last answered, what to do, and what
happens next. Nobody is asked but the running Caddy.

Without names it counts those that the configuration manages and those that
wait, and shows what is wrong, the most urgent first. With --phase it lists
the names in these phases: wanted, waiting, held, looking, publishing,
ordering, processing, failed, served.

Where no Caddy runs, and with --config, it shows what the storage has:
certificates, and what the CA has last answered.

--watch goes on: on a terminal it draws anew, elsewhere it reports each
change.

The exit status is 2 unless all names are fine; without NAME those of
on-demand TLS, which strangers choose, do not count.`, runStatus)
	f := cmd.Flags()
	f.StringSlice("phase", nil, "List the names in these phases")
	f.Bool("watch", false, "Go on until interrupted")
	choice(f, "format", "text", "Output", "text", "json")
	cmd.MarkFlagsMutuallyExclusive("watch", "format")
	_ = cmd.RegisterFlagCompletionFunc("phase", completePhases)
	cmd.ValidArgsFunction = completeNames
	cmd.Example = examples("status", "status example.com", "status --phase waiting,held --format json", "status --watch")
	return cmd
}

func runStatus(r *run) error {
	names, err := r.names()
	if err != nil {
		return err
	}
	phases, err := r.cmd.Flags().GetStringSlice("phase")
	if err != nil {
		return err
	}
	src, err := r.source()
	if err != nil {
		return err
	}
	if src.off != nil {
		r.report("note: this is what the storage has; what a Caddy that runs waits for is not in it")
	}
	r.reportUnsupported(src.off, names)
	s := &statuses{run: r, client: src, names: names, phases: phases}
	limit := 0
	if !r.isJSON() && !s.isChosen() && !r.flag("watch") {
		limit = mostShown
	}
	reply, err := s.get(limit)
	if err != nil {
		return err
	}
	if reply.Counts.Total == 0 {
		return errNoNames
	}
	switch {
	case r.isJSON():
		reply.Failed = r.failed
		err = r.json(reply)
	case r.flag("watch"):
		reply, err = s.watch(reply)
	default:
		s.show(reply)
	}
	if err == nil && !s.isOK(reply) {
		return errNotOK
	}
	return err
}

// errNoNames ends a command for all names where there is none.
var errNoNames = errors.New("the configuration manages no name with dns_persist: give the names as arguments")

// statuses are what a call of the command status is about.
type statuses struct {
	*run
	client        *client
	names, phases []string
}

// isChosen reports whether names or phases are given; else what is fine is only counted.
func (s *statuses) isChosen() bool { return len(s.names)+len(s.phases) > 0 }

// get asks for what is to be shown: so many names, or all.
func (s *statuses) get(limit int) (all operator.NamesReply, err error) {
	for some := range s.chunks() {
		reply, err := s.ask(some, limit)
		if err != nil {
			return all, err
		}
		all = all.Plus(reply)
	}
	return all, nil
}

// chunks are the names in as many as a URL takes; one that is empty means all.
func (s *statuses) chunks() iter.Seq[[]string] {
	if len(s.names) == 0 {
		return slices.Values([][]string{nil})
	}
	return slices.Chunk(s.names, urlNames)
}

// ask asks for some names, page after page.
func (s *statuses) ask(names []string, limit int) (all operator.NamesReply, err error) {
	query := url.Values{"domain": names, "ca": {s.text("ca")}, "phase": s.phases, "limit": {"1000"}}
	if limit > 0 {
		query.Set("limit", fmt.Sprint(limit))
	}
	if !s.isChosen() && !s.isJSON() {
		query["severity"] = []string{"info", "warning", "error"}
	}
	for {
		reply, err := get[operator.NamesReply](s.client, "names", query)
		if err != nil {
			return all, err
		}
		s.note(reply.Failed)
		reply.Names = append(all.Names, reply.Names...)
		all = reply
		if all.After == "" || limit > 0 {
			return all, nil
		}
		query.Set("after", all.After)
	}
}

// isOK reports whether the names that are meant are ok, and whether those are there that were given.
func (s *statuses) isOK(reply operator.NamesReply) bool {
	if len(reply.Names) == 0 && len(s.names) > 0 {
		return false
	}
	return !slices.ContainsFunc(reply.Names, func(n operator.NameStatus) bool { return !n.IsOK() && (!n.OnDemand || len(s.names) > 0) })
}

// mostShown is how many names are shown by themselves that nobody has chosen.
const mostShown = 20

// show shows all to a person.
func (s *statuses) show(reply operator.NamesReply) {
	if len(s.names) > 0 {
		if len(reply.Names) == 0 {
			s.report("none of the names is in the phases %s", strings.Join(s.phases, ", "))
		}
		for _, n := range reply.Names {
			s.story(n)
		}
		return
	}
	s.summary(reply.Counts)
	for i, n := range reply.Names {
		switch {
		case len(s.phases) > 0:
			s.head(inOneLine(s.out, n))
		case i < mostShown:
			s.story(n)
		}
	}
	if left := reply.Matching - mostShown; len(s.phases) == 0 && left > 0 {
		s.head(fmt.Sprintf("%d more are not fine: --phase lists those of a phase, and --format json has all", left))
	}
}

// summary is how many names there are in which phase.
func (s *statuses) summary(c operator.Counts) {
	var parts []string
	for _, phase := range operator.Phases() {
		for p, n := range c.Phases {
			if string(p) == phase {
				parts = append(parts, fmt.Sprintf("%d %s", n, phase))
			}
		}
	}
	text := fmt.Sprintf("%d names", c.Total)
	if len(parts) > 0 {
		text += ": " + strings.Join(parts, ", ")
	}
	if c.OnDemand > 0 {
		text += fmt.Sprintf(" (%d on demand)", c.OnDemand)
	}
	s.head(text)
}

// head writes a text from the beginning of a line, and line one below it, with a label.
func (s *statuses) head(text string) { wrap(s.out, columnsOf(s.out), "", text) }

func (r *run) line(label, text string) {
	wrap(r.out, columnsOf(r.out), fmt.Sprintf("    %-8s", label), foreign.Line(text))
}

// nextOf is what happens next, and when.
func nextOf(n operator.NameStatus) string {
	if n.NextAt.IsZero() {
		return n.Next
	}
	return n.Next + fmt.Sprintf(" at %s (in %s) at the latest", n.NextAt.Local().Format(time.DateTime), span(time.Until(n.NextAt)))
}

// inOneLine is where a name is, for somebody who reads it at out.
func inOneLine(out io.Writer, n operator.NameStatus) string {
	now := time.Now()
	c := green
	switch n.Severity {
	case "info", "warning":
		c = yellow
	case "error":
		c = red
	}
	text := foreign.Text(n.Domain) + ": " + paint(out, c, foreign.Text(string(n.Phase)))
	if !n.Since.IsZero() && !n.IsOK() {
		text += " for " + span(now.Sub(n.Since)) // the wait; its reason may be younger
	}
	if n.Code != "" && n.Code != string(n.Phase) {
		text += ", " + foreign.Text(n.Code)
	}
	switch left := n.CertificateUntil.Sub(now); {
	case n.CertificateUntil.IsZero() && n.IsOK():
	case n.CertificateUntil.IsZero():
		text += ", no certificate"
	case left < 0:
		text += ", its certificate has ended on " + n.CertificateUntil.Local().Format(time.DateTime)
	default:
		text += fmt.Sprintf(", certificate until %s (%s left)", n.CertificateUntil.Local().Format(time.DateTime), span(left))
	}
	if n.OnDemand {
		text += " (on demand)"
	}
	return text
}

// story is all that is known of a name.
func (s *statuses) story(n operator.NameStatus) {
	s.head(inOneLine(s.out, n))
	if n.CA != "" && !n.IsOK() {
		s.line("ca", n.CA)
	}
	if n.Why != "" && len(n.Published) == 0 {
		s.line("why", n.Why)
	}
	var reasons []string
	for _, v := range n.Published {
		s.line("found", fmt.Sprintf("%q", v.Value))
		s.line("", strings.TrimSuffix(fmt.Sprintf("%s, %s: %s", v.Outlook, v.Code, v.Reason), ": "))
		reasons = append(reasons, v.Reason)
	}
	if r := n.Record; r != nil && !n.IsOK() {
		s.line("record", r.Type+" "+r.Name)
		if r.Host != "" {
			s.line("host", r.Host)
		}
		if !strings.HasSuffix(n.Do, r.Value) {
			s.line("value", r.Value)
		}
	}
	if n.DNS != "" && n.DNS != n.Why {
		s.line("dns", n.DNS)
	}
	if !n.LookedAt.IsZero() {
		s.line("looked", n.LookedAt.Local().Format(time.DateTime)+" ("+span(time.Since(n.LookedAt))+" ago)")
	}
	if n.Answer != nil && !strings.Contains(n.Why, n.Answer.Text) {
		s.line("answer", n.Answer.At.Local().Format(time.DateTime)+": "+n.Answer.Text)
	}
	if n.Do != "" {
		s.line("do", withoutKnown(n.Do, n.Published, reasons))
	}
	if n.Next != "" {
		s.line("next", nextOf(n))
	}
}

// span is a length of time for a person: two units are enough.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 2*day:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd", int(d/day))
}
