package acmepersist

import (
	"slices"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

// refusedFor is how long a value that the CA may accept, but did not, is not tried again
// by itself.
const refusedFor = 7 * 24 * time.Hour

// refusedValue is a value that the CA has refused although it may accept such ones.
type refusedValue struct {
	Value   string    `json:"value"`
	Account string    `json:"account"`
	At      time.Time `json:"at"`
}

// refused reports whether the CA has refused the value lately.
func (n *nameState) refused(value, account string) bool {
	return slices.ContainsFunc(n.Refused, func(r refusedValue) bool {
		return r.Value == value && r.Account == account && walltime.Since(r.At) < refusedFor
	})
}

// satisfies reports whether the CA is to be asked with these values: one is good, or may
// be and was not refused, or was accepted last time. The note says what is doubtful.
func (n *nameState) satisfies(values []string, want record.Want, account string) (ok bool, note string) {
	result := record.Evaluate(values, want, time.Now())
	if result.Good() {
		return true, ""
	}
	for _, v := range result.Verdicts {
		if v.Outlook == record.OutlookDepends && !n.refused(v.Text, account) {
			return true, "presumed good until the CA refuses it: " + v.Reason()
		}
	}
	if n.accepts(values, account, want.Wildcard) {
		return true, "accepted by the CA last time, although: " + result.Explain()
	}
	note = result.Explain()
	if result.Outlook() == record.OutlookDepends {
		note = "the CA has refused it: " + note
	}
	return false, note
}

// target makes the wanted record a thing to look for in DNS.
func (s *session) target(w wanted, state nameState) propagation.Target {
	account := s.account.Location
	return propagation.Target{
		Name:   w.record.Name,
		Host:   record.Base(w.identifier),
		Accept: func(values []string) (bool, string) { return state.satisfies(values, w.want, account) },
		Weigh:  weigh(w.want),
		Mistaken: func(zone string) (places []propagation.Place) {
			for _, m := range record.Misplacements(w.identifier, zone) {
				places = append(places, propagation.Place(m))
			}
			return places
		},
	}
}

// weigh says how much a value has to do with what is wanted.
func weigh(want record.Want) func(value string) int {
	return func(value string) int {
		for _, v := range record.Evaluate([]string{value}, want, time.Now()).Verdicts {
			switch {
			case v.Outlook != record.OutlookBad:
				return propagation.WeightWanted
			case v.Code != record.CodeForeign:
				return propagation.WeightNear
			}
		}
		return propagation.WeightNone
	}
}

// satisfied notes which values the CA has accepted: the good ones, or where there was
// none those that it may accept.
func (n *nameState) satisfied(values []string, want record.Want, account string, now time.Time) {
	n.Attempts, n.Refused = nil, nil
	n.PartialSince, n.NotBefore, n.CAASince = time.Time{}, time.Time{}, time.Time{}
	if len(values) == 0 {
		return // nobody has looked: what was accepted before is the best that is known
	}
	n.Accepted = nil
	result := record.Evaluate(values, want, now)
	for _, v := range result.Verdicts {
		if v.Outlook == result.Outlook() && v.Outlook != record.OutlookBad {
			n.Accepted = append(n.Accepted, acceptedValue{Value: v.Text, Account: account, Wildcard: v.Value.Wildcard, At: now.UTC()})
		}
	}
}

// dissatisfied notes that the CA has refused the values: its word beats our model. Those
// that it may accept are not tried again, if its error is what it would report of them;
// a good one may have met a DNS server that did not have it.
func (n *nameState) dissatisfied(values []string, want record.Want, account, problem string, now time.Time) {
	n.Accepted = nil
	n.Refused = slices.DeleteFunc(n.Refused, func(r refusedValue) bool { return now.Sub(r.At) >= refusedFor })
	result := record.Evaluate(values, want, now)
	if result.Good() || !slices.Contains(result.ErrorTypes(), problem) {
		return
	}
	for _, v := range result.Verdicts {
		if v.Outlook == record.OutlookDepends && !n.refused(v.Text, account) {
			n.Refused = append(n.Refused, refusedValue{Value: v.Text, Account: account, At: now.UTC()})
		}
	}
}
