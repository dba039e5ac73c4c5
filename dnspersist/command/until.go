package command

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/operator"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// renewedAfter is when certificates of 90 days are renewed. Those that live shorter are so earlier.
const renewedAfter = 60 * 24 * time.Hour

// parseUntil reads --until.
func (r *recordsRun) parseUntil(now time.Time) error {
	text := r.text("until")
	if !r.cmd.Flags().Changed("until") {
		return nil
	}
	until, err := parseTime(text, now)
	switch {
	case err != nil:
		return fmt.Errorf("--until: %w", err)
	case !until.After(now):
		return fmt.Errorf("--until %s is past (%s): a CA would not validate by the record: give a time ahead, or how long from now, such as 180d", text, until.Format(time.RFC3339))
	}
	r.until = until
	r.report("note: the records end at %s, and nobody renews them: publish their successors before", until.Format(time.RFC3339))
	if until.Sub(now) < renewedAfter {
		r.report("warning: that is in less than %d days, when certificates of 90 days are renewed: the first renewal may come too late", int(renewedAfter.Hours()/24))
	}
	return nil
}

// parseTime reads a time, a date, seconds of Unix, or how long from now. The record has whole seconds.
func parseTime(text string, now time.Time) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC().Truncate(time.Second), nil
		}
	}
	if seconds, err := strconv.ParseUint(text, 10, 40); err == nil {
		return time.Unix(int64(seconds), 0).UTC(), nil //nolint:gosec // 40 bits
	}
	d, err := caddy.ParseDuration(text)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is not a time: give one such as 2027-06-01T12:00:00Z or 2027-06-01, or how long from now, such as 180d", text)
	}
	return now.Add(d).UTC().Truncate(time.Second), nil
}

// endSets gives the values the end that --until asks for. It is the only place that does.
func (r *recordsRun) endSets(sets []operator.RecordSet) error {
	if r.until.IsZero() {
		return nil
	}
	end := func(value *string) error {
		if *value == "" {
			return nil
		}
		p, err := record.Parse(*value)
		if err != nil {
			return fmt.Errorf("giving %q an end: %w", *value, err)
		}
		p.Value.PersistUntil = r.until
		*value = p.Value.String()
		return nil
	}
	for _, s := range sets {
		for i := range s.Wanted {
			if err := errors.Join(end(&s.Wanted[i].Value), end(&s.Wanted[i].OrValue)); err != nil {
				return err
			}
		}
	}
	return nil
}

// reportOutliving warns of published values by which the CA goes on after the end of the new ones.
func (r *recordsRun) reportOutliving(sets []operator.RecordSet) {
	if r.until.IsZero() {
		return
	}
	for _, s := range sets {
		if s.Type != "TXT" || s.DNS == nil {
			continue
		}
		for _, value := range s.DNS.Values {
			p, err := record.Parse(value)
			isOurs := err == nil && slices.ContainsFunc(s.Wanted, func(w acmepersist.Wanted) bool {
				return w.AccountURI == p.AccountURI && w.IssuerDomainName == p.IssuerDomainName
			})
			if isOurs && (!p.HasPersistUntil || p.PersistUntil.After(r.until)) {
				r.report("warning: %s: a value is published there that ends later or never: remove it once the new one is on all name servers, or the end means nothing: %s", s.Name, foreign.Text(value))
			}
		}
	}
}
