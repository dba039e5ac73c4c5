package command

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/operator"
)

// watchEvery is the time between two looks.
const watchEvery = 2 * time.Second

// watch goes on until it is interrupted, and returns what it has seen last.
func (s *statuses) watch(reply operator.NamesReply) (operator.NamesReply, error) {
	// a terminal that is read aloud, or that is none, has a line for each change
	draws := canOverwrite(s.out)
	if draws {
		s.draw(reply)
	} else {
		s.show(reply)
	}
	known, failure := s.lines(reply), ""
	for {
		select {
		case <-time.After(watchEvery + time.Duration(len(reply.Names))*time.Millisecond):
		case <-s.Done():
			return reply, nil
		}
		fresh, err := s.get(0)
		switch {
		case s.Err() != nil:
			return reply, nil //nolint:nilerr // it was interrupted, as it has to be
		case err != nil: // Caddy may be restarting
			if err.Error() != failure {
				s.report("%s %v; asking again until it answers", time.Now().Format(time.TimeOnly), err)
			}
			failure = err.Error()
			continue
		}
		reply, failure = fresh, ""
		if draws {
			s.draw(reply)
			continue
		}
		now := s.lines(reply)
		for _, key := range slices.Sorted(maps.Keys(now)) {
			if known[key].state != now[key].state {
				s.head(time.Now().Format(time.TimeOnly) + " " + now[key].text)
			}
		}
		left := slices.DeleteFunc(slices.Sorted(maps.Keys(known)), func(key string) bool { _, ok := now[key]; return ok })
		for i, key := range left {
			s.head(time.Now().Format(time.TimeOnly) + " " + s.whereTo(known[key], i < mostShown))
		}
		known = now
	}
}

// whereTo is what has become of a name that is not among the others any more; of the first ones it is asked.
func (s *statuses) whereTo(was watched, ask bool) string {
	if ask {
		reply, err := get[operator.NamesReply](s.client, "names", url.Values{"domain": {was.name.Domain}, "ca": {was.name.CA}})
		if err == nil && len(reply.Names) > 0 {
			return inOneLine(s.out, reply.Names[0])
		}
		return foreign.Text(was.name.Domain) + ": not wanted any more"
	}
	return foreign.Text(was.name.Domain) + ": is ok, or not wanted any more"
}

// watched is a name as it was reported.
type watched struct {
	state, text string
	name        operator.NameStatus
}

// lines are what is reported of each name when its state is another one.
func (s *statuses) lines(reply operator.NamesReply) map[string]watched {
	all := make(map[string]watched, len(reply.Names))
	for _, n := range reply.Names {
		text := inOneLine(s.out, n)
		if n.Do != "" {
			text += ": " + foreign.Line(n.Do)
		}
		all[n.Domain+" "+n.CA] = watched{
			state: string(n.Phase) + n.Code + n.Do + n.CertificateUntil.String(), text: text, name: n,
		}
	}
	return all
}

// page is what a terminal is to show.
type page struct {
	bytes.Buffer
	of io.Writer
}

// Columns are those of the terminal.
func (p *page) Columns() int { return columnsOf(p.of) }

// draw shows on a cleared terminal what has room on it.
func (s *statuses) draw(reply operator.NamesReply) {
	p := &page{of: s.out}
	onPage := *s.run
	onPage.out = p
	(&statuses{run: &onPage, client: s.client, names: s.names, phases: s.phases}).show(reply)
	text, hidden := firstRows(p.String(), rowsOf(s.out)-2, reply.Names)
	fmt.Fprint(s.out, "\x1b[H\x1b[2J", text)
	end := "looked at " + time.Now().Format(time.TimeOnly) + "; interrupt to end"
	if hidden > 0 {
		end = fmt.Sprintf("%d more names have no room here; ", hidden) + end
	}
	fmt.Fprint(s.out, fit(end, columnsOf(s.out)-1), "\n")
}

// firstRows is the beginning of a text about names, and how many of them are not in it.
func firstRows(text string, rows int, names []operator.NameStatus) (shown string, hidden int) {
	lines := slices.Collect(strings.Lines(text))
	if len(lines) <= rows || rows <= 0 {
		return text, 0
	}
	shown = strings.Join(lines[:rows], "")
	for _, n := range names {
		if !strings.Contains("\n"+shown, "\n"+foreign.Text(n.Domain)+": ") {
			hidden++
		}
	}
	return shown, hidden
}
