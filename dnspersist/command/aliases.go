package command

import (
	"cmp"
	"fmt"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/operator"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// fillAlias notes what is published at a validation name that is to be delegated. alias is what of
// its CNAMEs counts.
func fillAlias(set *operator.RecordSet, alias string, report propagation.Report) {
	at := report.At(set.Name)
	found := &operator.Published{Values: []string{}, Add: []string{}, Alias: alias, Zone: cmp.Or(at.Zone, report.Zone)}
	set.DNS = found
	if a := report.Alias(); a.Kind == propagation.AliasNotAgreed {
		found.LeftOut = (&propagation.AliasError{Alias: a}).Error()
		found.Error = found.LeftOut
		return
	}
	switch {
	case len(at.Servers) == 0:
		found.Error = "what is published could not be read: " + report.Reason
	case found.Alias == set.Target:
		found.Good = []string{set.Target}
	case found.Alias == "":
		found.Add = []string{set.Target}
		found.Values = append(found.Values, at.Values...)
	}
}

// bareAlias is what the CNAME at a name leads to, without a configuration that knows what else it
// may lead to.
func bareAlias(set operator.RecordSet, report propagation.Report) string {
	a := report.Alias()
	switch {
	case a.LeadsTo(set.Target):
		return set.Target
	case a.Kind == propagation.AliasSet:
		return a.Targets[0]
	}
	return ""
}

// fillTarget notes what is published at the target of a delegation.
func fillTarget(set *operator.RecordSet, c acmepersist.Checked) {
	at, found := c.AtTarget, set.DNS
	if found == nil {
		found = &operator.Published{Values: at.Values, Add: []string{}, Zone: at.Zone, TTL: at.TTL}
		set.DNS = found
		if at.State == acmepersist.StateBlocked {
			found.Error = "what is published could not be read: " + at.Reason
		}
		found.Cached = c.Report.Mode == propagation.ModeRecursive
		if at.TTL > 0 {
			set.TTL = at.TTL
		}
	}
	judge(set, func(w acmepersist.Wanted) bool {
		return at.State == acmepersist.StateGood && w.CA == c.CA && w.Account == c.Account || isPublished(at.Values, w)
	})
}

// aliasWarning is why a CNAME cannot be set as it is; empty if it can.
func aliasWarning(s operator.RecordSet) string {
	d := s.DNS
	switch {
	case d == nil || d.Error != "":
	case d.Alias != "" && d.Alias != s.Target:
		return fmt.Sprintf("it is an alias (CNAME) of %s: let the owner of the domain change it to %s", d.Alias, s.Target)
	case len(d.Values) > 0:
		return fmt.Sprintf("it has TXT records (%q), beside which there can be no CNAME: let the owner of the domain remove them", d.Values)
	}
	return ""
}
