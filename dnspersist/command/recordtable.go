package command

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/operator"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/site"
)

// toPublish is a record as it is shown to people.
type toPublish struct {
	set         operator.RecordSet
	what, state string
	// values are that of the record, and what some frontends of the CA may want in its place.
	values []string
}

// listed are the records of sets, as out shows them.
func listed(out io.Writer, sets []operator.RecordSet) []toPublish {
	var all []toPublish
	for _, s := range sets {
		if s.Type == "CNAME" {
			all = append(all, toPublish{s, strings.Join(identifiersOf(s), ", "), paintedState(out, s, s.Target), []string{s.Target + "."}})
			continue
		}
		for _, w := range s.Wanted {
			one := toPublish{s, strings.Join(w.Identifiers, ", "), paintedState(out, s, w.Value), []string{w.Value}}
			if w.Standby {
				one.what += " (standby account)"
			}
			if w.OrValue != "" {
				one.values = append(one.values, w.OrValue)
			}
			all = append(all, one)
		}
	}
	return all
}

// recordTable prints records for people: a table, or a card for each record where the terminal is
// narrower than that.
func recordTable(out io.Writer, sets []operator.RecordSet) error {
	all := listed(out, sets)
	var b bytes.Buffer
	if err := table(&b, func(row func(...string)) {
		row("NAME", "TTL", "TYPE", "VALUE", "FOR", "STATE")
		for _, p := range all {
			row(p.set.Name, fmt.Sprint(p.set.TTL), p.set.Type, p.values[0], p.what, p.state)
			for _, other := range p.values[1:] {
				row("", "", "or", other)
			}
		}
	}); err != nil {
		return err
	}
	if columns := columnsOf(out); columns > 0 {
		for line := range strings.Lines(b.String()) {
			if widthOf(strings.TrimSuffix(line, "\n")) > columns {
				for i, p := range all {
					if i > 0 {
						fmt.Fprintln(out)
					}
					p.card(out, columns)
				}
				return nil
			}
		}
	}
	_, err := b.WriteTo(out)
	return err
}

// card prints a record as the panels of DNS providers ask for it. The value is alone on its line, to be
// copied.
func (p toPublish) card(out io.Writer, columns int) {
	if p.state != "" {
		p.what += ": " + p.state
	}
	wrap(out, columns, "", p.what)
	place := p.set.Name
	if d := p.set.DNS; d != nil {
		if p.set.Type == "TXT" && d.Alias != "" {
			place = d.Alias
		}
		if host := site.HostIn(place, d.Zone); host != "" {
			wrap(out, columns, "    Host    ", host)
		}
	}
	wrap(out, columns, "    Name    ", place)
	wrap(out, columns, "    Type    ", p.set.Type)
	label := "Value"
	for _, value := range p.values {
		fmt.Fprintf(out, "    %s\n%s\n", label, value)
		label = "or"
	}
	wrap(out, columns, "    TTL     ", fmt.Sprint(p.set.TTL))
}

// putValues prints nothing but the values, each on a line.
func (r *recordsRun) putValues(sets []operator.RecordSet) error {
	var values []string
	for _, p := range listed(r.out, sets) {
		if p.set.Type != sets[0].Type {
			return errors.New("--value is the value of one kind of record, and these names are delegated: add --only CNAME for where their owners lead them, or --only TXT for the records there")
		}
		if !slices.Contains(values, p.values[0]) {
			values = append(values, p.values[0])
		}
		for _, other := range p.values[1:] {
			r.report("note: some frontends of the CA may want to see another value at %s: %s", p.set.Name, other)
		}
	}
	if len(values) > 1 {
		r.report("note: these are %d values, each on a line; without --value it is shown which is for what", len(values))
	}
	for _, v := range values {
		if _, err := fmt.Fprintln(r.out, v); err != nil {
			return err
		}
	}
	return nil
}

// paintedState is stateOf as out shows it.
func paintedState(out io.Writer, s operator.RecordSet, value string) string {
	switch state := stateOf(s, value); state {
	case statePublished:
		return paint(out, green, state)
	case stateToPublish:
		return paint(out, yellow, state)
	default:
		return state
	}
}

// identifiersOf are the names that a set is for.
func identifiersOf(s operator.RecordSet) []string {
	var all []string
	for _, w := range s.Wanted {
		all = append(all, w.Identifiers...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// States of a record whose name was looked at.
const (
	stateToPublish = "to be published"
	statePublished = "published"
)

// stateOf is how far a record is; empty if that was not looked up.
func stateOf(s operator.RecordSet, value string) string {
	switch {
	case s.DNS == nil:
		return s.Waiting
	case s.DNS.LeftOut != "":
		return s.DNS.LeftOut
	case s.DNS.Error != "":
		return s.DNS.Error
	case s.Type == "CNAME" && aliasWarning(s) != "":
		return "something else is published"
	}
	switch {
	case slices.Contains(s.DNS.Add, value):
		return stateToPublish
	case s.IsHeld:
		return "published; held: " + s.Waiting
	}
	return statePublished
}
