package command

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/formats"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/operator"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// thoroughUpTo is for how many names the questions are asked that find out what is wrong.
const thoroughUpTo = 50

// readPublished fills in what is published at the names.
func (r *recordsRun) readPublished(src *client, sets []operator.RecordSet) error {
	if len(sets) == 0 {
		return nil
	}
	var names []string
	for _, s := range sets {
		for _, w := range s.Wanted {
			names = append(names, w.Identifiers...)
		}
	}
	slices.Sort(names)
	l, err := r.looks(src, slices.Compact(names))
	if err != nil {
		return err
	}
	byName := make(map[string]*operator.RecordSet)
	for i := range sets {
		byName[sets[i].Name] = &sets[i]
	}
	warned := make(map[string][]string)
	err = l.at(l.checks, len(l.checks) <= thoroughUpTo, func(c acmepersist.Checked) {
		set := byName[c.Name]
		if set == nil {
			return
		}
		if at := c.AtTarget; at != nil {
			if c.Report.Shadows != "" {
				warned[c.Name] = append(warned[c.Name], c.Report.Shadows)
			}
			fillAlias(set, at.Alias, c.Report)
			if place := byName[at.Name]; place != nil {
				fillTarget(place, c)
			}
			return
		}
		good := slices.ContainsFunc(c.Published, func(v acmepersist.ValueVerdict) bool { return v.Outlook == record.OutlookGood })
		fill(set, c.Report, r.flag("follow-aliases"), func(w acmepersist.Wanted) bool {
			return good && w.CA == c.CA && w.Account == c.Account
		})
		warned[c.Name] = append(warned[c.Name], warningsOf(c.Diagnostics)...)
	})
	r.warn(sets, warned)
	return err
}

// warningsOf is what is to be known before the record is published.
func warningsOf(diagnostics []propagation.Diagnostic) []string {
	var all []string
	for _, d := range diagnostics {
		switch d.Code {
		case propagation.CodeWildcardBreaks, propagation.CodeWildcard, propagation.CodeWrongName:
			all = append(all, d.Text)
		}
	}
	return all
}

// warn reports what is to be known of the sets before they are published.
func (r *run) warn(sets []operator.RecordSet, warned map[string][]string) {
	for _, s := range sets {
		all := warned[s.Name]
		switch {
		case s.DNS != nil && s.DNS.LeftOut != "":
			all = append(all, "it is left out of what is for tools: "+s.DNS.LeftOut)
		case s.Type == "CNAME":
			if why := aliasWarning(s); why != "" {
				all = append(all, why)
			}
		case s.DNS != nil && s.DNS.Alias != "":
			all = append(all, fmt.Sprintf("it is an alias (CNAME) of %s: the record has to be published there", s.DNS.Alias))
		}
		for _, w := range all {
			r.report("warning: %s: %s", s.Name, w)
		}
	}
}

// fill notes what a report shows of a set. hasGood tells for which wanted values a good one
// is published, if in other words. follow is true if a CNAME is followed into whatever zone.
func fill(set *operator.RecordSet, report propagation.Report, follow bool, hasGood func(acmepersist.Wanted) bool) {
	found := set.DNS
	if found == nil {
		found = &operator.Published{Values: []string{}, Add: []string{}, Zone: cmp.Or(report.At(set.Name).Zone, report.Zone)}
		set.DNS = found
		found.Cached = report.Mode == propagation.ModeRecursive
		at, err := report.Published()
		if disputed, ok := errors.AsType[*propagation.AliasError](err); ok {
			found.LeftOut, found.Error = disputed.Error(), disputed.Error()
			return
		}
		if at.Name != set.Name {
			if !follow && (at.Zone != found.Zone || at.Zone == "") {
				// somebody else has chosen that name
				found.LeftOut = fmt.Sprintf("it is an alias (CNAME) of %s, which is not known to be in its zone: have the CNAME removed, or publish there if that name is yours, see --follow-aliases", at.Name)
				return
			}
			found.Alias, found.Zone = at.Name, at.Zone
		}
		found.TTL = at.TTL
		found.Values = append(found.Values, at.Values...)
		if err != nil {
			found.Error = "what is published could not be read: " + report.Reason
		}
		if err := report.Whole(); err != nil {
			found.Error = err.Error()
		}
		if found.TTL > 0 { // of a cache what is left of it: an update changes that of the whole set
			set.TTL = found.TTL
		}
	}
	if found.LeftOut == "" {
		judge(set, hasGood)
	}
}

// judge notes for which wanted values a good one is published, and which are to be added.
func judge(set *operator.RecordSet, hasGood func(acmepersist.Wanted) bool) {
	found := set.DNS
	for _, w := range set.Wanted {
		i := slices.Index(found.Add, w.Value)
		switch {
		case found.HasGood(w.Value):
		case slices.Contains(found.Values, w.Value) || !hasEnd(w.Value) && hasGood(w):
			found.Good = append(found.Good, w.Value)
			if i >= 0 {
				found.Add = slices.Delete(found.Add, i, i+1)
			}
		case i < 0:
			found.Add = append(found.Add, w.Value)
			if w.OrValue != "" && !slices.Contains(found.Values, w.OrValue) {
				found.Add = append(found.Add, w.OrValue)
			}
		}
	}
}

// hasEnd reports whether a wanted value ends: then no other one is as good, for it would end at
// another time.
func hasEnd(value string) bool {
	p, err := record.Parse(value)
	return err == nil && p.HasPersistUntil
}

// readBare reads what is published without a configuration.
func (r *recordsRun) readBare(checker *propagation.Checker, sets []operator.RecordSet) error {
	warned := make(map[string][]string)
	for i := range sets {
		rep := checker.Check(r, propagation.Target{Name: sets[i].Name}, checker.NewGate())
		if err := r.Err(); err != nil {
			return err
		}
		warned[sets[i].Name] = warningsOf(rep.Diagnostics())
		if sets[i].Type == "CNAME" {
			fillAlias(&sets[i], bareAlias(sets[i], rep), rep)
			continue
		}
		fill(&sets[i], rep, r.flag("follow-aliases"), func(w acmepersist.Wanted) bool { return isPublished(sets[i].DNS.Values, w) })
	}
	r.warn(sets, warned)
	return nil
}

// isPublished reports whether one of the values is as good as w, in other words.
func isPublished(values []string, w acmepersist.Wanted) bool {
	// --policy wildcard wants the policy for a name without a wildcard, too
	value, err := record.Parse(w.Value)
	if err != nil {
		return false
	}
	return record.Evaluate(values, record.Requirement{
		IssuerDomainNames: []string{w.IssuerDomainName}, AccountURI: w.AccountURI, Wildcard: value.Wildcard,
	}, time.Now()).Good()
}

// writeFormat writes the sets for another tool.
func (r *recordsRun) writeFormat(f formats.Format, sets []operator.RecordSet) error {
	all, err := r.forTool(f, sets)
	if err != nil {
		return err
	}
	if len(all) == 0 && len(sets) > 0 && f.Replaces() {
		// the tool would take it for the wish that nothing is published
		return fmt.Errorf("nothing is put out as %s, for every name is left out, see above", f)
	}
	if f == formats.Route53 {
		switch n := len(formats.Batches(all)); n {
		case 0:
			r.report("nothing has to be changed: there is no change batch")
		case 1:
		default:
			r.report("Route 53 takes so much in %d change batches only: they follow each other as JSON documents, hand them over one by one", n)
		}
	}
	return formats.Write(r.out, f, all)
}

// forTool makes of the sets what a format takes.
func (r *recordsRun) forTool(f formats.Format, sets []operator.RecordSet) ([]formats.RRset, error) {
	byName := make(map[string]int)
	var all []formats.RRset
	for _, s := range sets {
		if err := isCertain(f, s); err != nil {
			return nil, err
		}
		if s.DNS != nil && s.DNS.LeftOut != "" {
			continue // there is a warning
		}
		one := toolSet(s)
		switch i, twice := byName[one.Name]; {
		case s.Type == "CNAME" && aliasWarning(s) != "": // what is published is never taken away
		case s.Type == "CNAME" && f == formats.NSUpdate && s.DNS != nil && s.DNS.Error != "":
			// section 3.4.2.2 of RFC 2136: adding a CNAME replaces another one
			r.report("warning: %s: its CNAME is left out, for it would replace another one, and what is published could not be read: %s", s.Name, s.DNS.Error)
		case twice: // two names are aliases of one
			all[i].Add = append(all[i].Add, one.Add...)
			all[i].Comment = append(all[i].Comment, one.Comment...)
		default:
			byName[one.Name] = len(all)
			all = append(all, one)
		}
	}
	return all, nil
}

// isCertain is an error if a format would set all values of a name that are not known.
func isCertain(f formats.Format, s operator.RecordSet) error {
	d := s.DNS
	switch {
	case d == nil || !f.Replaces():
		return nil
	case d.LeftOut != "" && d.Error != "":
		return fmt.Errorf("%s sets all values of a name at once, and those at %s are not known, so one of them might be lost: %s; try again later, or leave the name out", f, s.Name, d.LeftOut)
	case d.LeftOut != "" || s.Type == "CNAME":
		return nil
	case d.Cached:
		return fmt.Errorf("%s sets all values of a name at once, and what is published at %s is known from a resolver's cache only (check is recursive), so a value that was added since might be lost: "+
			"use the format nsupdate or zone, which only add, or a configuration with check authoritative where port 53 is open", f, s.Name)
	case d.Error != "":
		return fmt.Errorf("%s sets all values of a name at once, and those at %s could not be read, so one of them might be lost: %s; try again, or use the format nsupdate or zone, which only add", f, s.Name, d.Error)
	}
	return nil
}

// toolSet is a set as other tools set it.
func toolSet(s operator.RecordSet) formats.RRset {
	one := formats.RRset{Name: s.Name, TTL: s.TTL, CNAME: s.Target}
	for _, w := range s.Wanted {
		comment := "for " + strings.Join(w.Identifiers, ", ")
		if w.CA != "" && s.Type == "TXT" {
			comment += " at " + w.CA
		}
		one.Comment = append(one.Comment, comment)
		if s.DNS == nil && s.Type == "TXT" {
			one.Add = append(one.Add, w.Value)
			if w.OrValue != "" {
				one.Add = append(one.Add, w.OrValue)
			}
		}
	}
	d := s.DNS
	if d == nil {
		return one
	}
	one.Zone, one.Published, one.Known, one.Add = strings.TrimSuffix(d.Zone, "."), d.Values, d.Error == "", d.Add
	switch {
	case s.Type == "CNAME":
		one.Published, one.Add = nil, nil
		if d.Alias != "" {
			one.Published = []string{d.Alias}
		}
	case d.Alias != "":
		one.Name = d.Alias
		one.Comment = append(one.Comment, s.Name+" is an alias of this name")
	}
	return one
}
