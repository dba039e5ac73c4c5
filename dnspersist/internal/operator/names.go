package operator

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/parking"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/site"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

// NameStatus is where a domain is on its way to a certificate of a CA: a parking.Status in words.
type NameStatus struct {
	Domain string `json:"domain"`
	// CA is the directory URL; empty if another issuer serves the domain.
	CA    string        `json:"ca,omitempty"`
	Phase parking.Phase `json:"phase"`
	// Reason is why it waits, Code the most precise word for that.
	Reason acmepersist.Reason `json:"reason,omitempty"`
	Code   string             `json:"code,omitempty"`
	// Severity is ok, info, warning or error.
	Severity string `json:"severity"`
	// Since is since when it waits, or is served.
	Since time.Time `json:"since,omitzero"`
	// CertificateUntil is the end of the certificate that is served.
	CertificateUntil time.Time `json:"certificate_until,omitzero"`
	// Record has to be published; nil if nothing has.
	Record *Missing `json:"record,omitempty"`
	// Published are the published values with why they are not enough.
	Published []acmepersist.ValueVerdict `json:"published,omitempty"`
	// DNS is what DNS has shown, LookedAt when.
	DNS      string    `json:"dns,omitempty"`
	LookedAt time.Time `json:"looked_at,omitzero"`
	// Answer is what the CA has last refused the domain with.
	Answer *acmepersist.Answer `json:"answer,omitempty"`
	// Why is why there is no certificate, or no new one, Do what somebody has to do, Next what happens
	// then, and NextAt when, at the latest.
	Why    string    `json:"why,omitempty"`
	Do     string    `json:"do,omitempty"`
	Next   string    `json:"next,omitempty"`
	NextAt time.Time `json:"next_at,omitzero"`
	// OnDemand is true for a domain that visitors ask for, and the configuration does not name.
	OnDemand bool `json:"on_demand,omitempty"`
}

// IsOK reports whether there is a certificate, and nothing is to be done.
func (s NameStatus) IsOK() bool {
	return s.Severity == parking.SeverityOK.String() && (s.Phase == parking.PhaseServed || !s.CertificateUntil.IsZero())
}

// NeedsSomebody reports whether it does not pass by itself.
func (s NameStatus) NeedsSomebody() bool {
	return s.Severity == parking.SeverityWarning.String() || s.Severity == parking.SeverityError.String()
}

// IsHeld reports whether somebody has to act, or was asked to and it is being tried.
func (s NameStatus) IsHeld() bool {
	switch s.Phase {
	case parking.PhaseLooking, parking.PhasePublishing, parking.PhaseOrdering:
		return true
	}
	return s.NeedsSomebody()
}

// Missing is a record that has to be published.
type Missing struct {
	// Name is where, without final dot, and Host the same as the panels of DNS providers want it, without
	// the zone; empty if that is not known.
	Name string `json:"name"`
	Host string `json:"host,omitempty"`
	// Type is "TXT" or "CNAME".
	Type  string `json:"type"`
	Value string `json:"value"`
	TTL   int    `json:"ttl"`
}

// NamesReply is the answer to GET /dns_persist/names, and the JSON of the command status.
type NamesReply struct {
	Names []NameStatus `json:"names"`
	// Counts are of all domains, or of those that were named, whatever else chooses among them.
	Counts Counts `json:"counts"`
	// Matching is how many were chosen, of which Names has those from after on.
	Matching int `json:"matching"`
	// After is given as after to get what follows; empty at the end.
	After string `json:"after,omitempty"`
	// Stored is true if no Caddy was asked: then this is what storage has.
	Stored bool `json:"stored,omitempty"`
	// Failed are CAs of whose domains nothing is known.
	Failed []Failure `json:"failed,omitempty"`
}

// Plus is the answer for the domains of two answers, which were asked for one after the other.
func (r NamesReply) Plus(more NamesReply) NamesReply {
	if r.Names == nil {
		return more
	}
	r.Names = append(r.Names, more.Names...)
	slices.SortStableFunc(r.Names, func(a, b NameStatus) int { return a.place().compare(b.place()) })
	r.Counts.Total += more.Counts.Total
	r.Counts.OnDemand += more.Counts.OnDemand
	for phase, n := range more.Counts.Phases {
		r.Counts.Phases[phase] += n
	}
	for severity, n := range more.Counts.Severities {
		r.Counts.Severities[severity] += n
	}
	r.Matching += more.Matching
	r.Failed = append(r.Failed, more.Failed...)
	return r
}

// place is that of the status that it was made of.
func (s NameStatus) place() place {
	severity := parking.Severity(slices.Index(severities, s.Severity))
	return placeOf(parking.Status{
		Domain: s.Domain, CA: s.CA, Since: s.Since, Certificate: parking.Certificate{NotAfter: s.CertificateUntil}, IsOnDemand: s.OnDemand,
	}, severity)
}

// Counts are how many domains there are.
type Counts struct {
	// Total is how many there are, OnDemand how many of them visitors ask for. Those that are served on
	// demand are not among them.
	Total    int `json:"total"`
	OnDemand int `json:"on_demand"`
	// Phases and Severities are how many are in each. The severities are of those that the
	// configuration names.
	Phases     map[parking.Phase]int `json:"phases"`
	Severities map[string]int        `json:"severities"`
}

// NamesQuery chooses domains.
type NamesQuery struct {
	// Domains, Phases, Reasons, Severities and CA are those that are meant; all if there is none.
	Domains, Phases, Reasons, Severities []string
	CA                                   string
	// After is NamesReply.After, Limit how many are returned at most.
	After string
	Limit int
}

const (
	// defaultNames and mostNames are how many domains an answer has.
	defaultNames = 100
	mostNames    = 1000
)

// phases are all phases.
var phases = []parking.Phase{
	parking.PhaseWanted, parking.PhaseWaiting, parking.PhaseHeld, parking.PhaseLooking, parking.PhasePublishing, parking.PhaseOrdering,
	parking.PhaseProcessing, parking.PhaseFailed, parking.PhaseServed,
}

// severities are all severities.
var severities = []string{
	parking.SeverityOK.String(), parking.SeverityInfo.String(), parking.SeverityWarning.String(), parking.SeverityError.String(),
}

// Phases lists all phases.
func Phases() []string { return texts(phases) }

// check is an error for a query that nothing could answer.
func (q NamesQuery) check() error {
	for _, phase := range q.Phases {
		if !slices.Contains(phases, parking.Phase(phase)) {
			return fmt.Errorf("there is no phase %q: there are %s", phase, strings.Join(texts(phases), ", "))
		}
	}
	for _, reason := range q.Reasons {
		if !slices.Contains(acmepersist.Reasons, acmepersist.Reason(reason)) {
			return fmt.Errorf("there is no reason %q: there are %s", reason, strings.Join(texts(acmepersist.Reasons), ", "))
		}
	}
	for _, severity := range q.Severities {
		if !slices.Contains(severities, severity) {
			return fmt.Errorf("there is no severity %q: there are %s", severity, strings.Join(severities, ", "))
		}
	}
	switch {
	case q.Limit < 0:
		return fmt.Errorf("limit is %d: give 1 to %d, or 0 for %d", q.Limit, mostNames, defaultNames)
	case q.Limit > mostNames:
		return fmt.Errorf("limit is %d: at most %d domains are in one answer, and after has the next ones", q.Limit, mostNames)
	}
	_, err := parsePlace(q.After)
	return err
}

func texts[T ~string](all []T) (list []string) {
	for _, t := range all {
		list = append(list, string(t))
	}
	return list
}

// matches reports whether a status is meant.
func (q NamesQuery) matches(s parking.Status, severity parking.Severity) bool {
	return (len(q.Severities) == 0 || slices.Contains(q.Severities, severity.String())) &&
		(len(q.Phases) == 0 || slices.Contains(q.Phases, string(s.Phase))) &&
		(len(q.Reasons) == 0 || slices.Contains(q.Reasons, string(s.Reason))) && (q.CA == "" || q.CA == s.CA)
}

// Names returns where domains are, the most urgent first: all that the configuration manages and that
// wait beside them, or the given ones, also if they are served on demand.
func (o *Operator) Names(ctx context.Context, q NamesQuery) (reply NamesReply, err error) {
	for i, domain := range q.Domains {
		if q.Domains[i], err = record.Normalize(domain); err != nil {
			return reply, &acmepersist.UnsupportedNameError{Name: domain, Err: err}
		}
	}
	all, failed, err := o.statuses(ctx, q.Domains)
	if err != nil {
		return reply, err
	}
	if len(failed) == 0 { // else those of the CA may be among them
		if err := o.checkCA(q, all); err != nil {
			return reply, err
		}
	}
	now := walltime.Now()
	after, err := parsePlace(q.After)
	if err != nil {
		return reply, err
	}
	reply = NamesReply{
		Names: []NameStatus{}, Stored: o.Registry == nil, Failed: failed,
		Counts: Counts{Total: len(all), Phases: make(map[parking.Phase]int), Severities: make(map[string]int)},
	}
	type placed struct {
		place
		at int
	}
	var meant []placed
	for i, s := range all {
		severity := s.Severity(now)
		reply.Counts.Phases[s.Phase]++
		if s.IsOnDemand {
			reply.Counts.OnDemand++
		} else {
			reply.Counts.Severities[severity.String()]++
		}
		if !q.matches(s, severity) {
			continue
		}
		reply.Matching++
		if at := placeOf(s, severity); q.After == "" || at.compare(after) > 0 {
			meant = append(meant, placed{at, i})
		}
	}
	slices.SortFunc(meant, func(a, b placed) int { return a.compare(b.place) })
	if limit := cmp.Or(q.Limit, defaultNames); len(meant) > limit {
		meant = meant[:limit]
		reply.After = meant[limit-1].String()
	}
	for _, p := range meant {
		reply.Names = append(reply.Names, o.nameStatus(all[p.at], now))
	}
	return reply, nil
}

// checkCA is an error for a CA that the configuration does not have, or that does not serve a domain of the query.
func (o *Operator) checkCA(q NamesQuery, all []parking.Status) error {
	isAt := func(domain string) bool {
		return slices.ContainsFunc(all, func(s parking.Status) bool {
			return s.CA == q.CA && (domain == "" || s.Domain == domain || s.Domain == covering(domain))
		})
	}
	if q.CA == "" {
		return nil
	}
	if !slices.Contains(o.CAs(), q.CA) && !isAt("") {
		return unknownCA(q.CA, o.CAs())
	}
	var errs []error
	for _, domain := range q.Domains {
		if !isAt(domain) {
			errs = append(errs, &UnknownNameError{Name: domain, CA: q.CA})
		}
	}
	return errors.Join(errs...)
}

// statuses are where domains are: the given ones, or all.
func (o *Operator) statuses(ctx context.Context, domains []string) ([]parking.Status, []Failure, error) {
	switch {
	case o.Registry == nil:
		return o.stored(ctx, domains)
	case len(domains) == 0:
		return o.Registry.Snapshot(), nil, nil
	}
	p := o.Plan()
	var all []parking.Status
	for _, domain := range domains {
		some := o.Registry.Of(domain)
		if len(some) == 0 {
			some = o.Registry.Of(covering(domain))
		}
		issuers := p.Serving(domain)
		if i := slices.IndexFunc(issuers, Issuer.IsOnDemand); len(some) == 0 && i >= 0 {
			some = []parking.Status{{Domain: domain, CA: issuers[i].Directory(), Phase: parking.PhaseWanted, IsOnDemand: true}}
		}
		if len(some) == 0 {
			return nil, nil, unknownName(p, domain, true)
		}
		all = append(all, some...)
	}
	return all, nil, nil
}

// covering is the wildcard that serves a domain too, if it is managed.
func covering(domain string) string {
	_, rest, _ := strings.Cut(domain, ".")
	return "*." + rest
}

// nameStatus puts a status into words.
func (o *Operator) nameStatus(s parking.Status, now time.Time) NameStatus {
	why := s.Explain()
	n := NameStatus{
		Domain: s.Domain, CA: s.CA, Phase: s.Phase, Reason: s.Reason, Code: why.Code, Severity: s.Severity(now).String(),
		Since: s.Since, CertificateUntil: s.NotAfter, Published: why.Published, LookedAt: s.LookedAt, Answer: s.Answer,
		Do: why.Do, OnDemand: s.IsOnDemand,
	}
	if s.Report != nil {
		n.DNS = s.Report.Summary()
	}
	if s.Reason != "" || s.Phase == parking.PhaseFailed {
		n.Why, n.Record = why.Text, missing(s)
	}
	if isOthers(s) && n.Why != "" {
		n.Why = "another issuer serves it, and this one does not: " + n.Why
	}
	n.Next, n.NextAt = o.next(s, now)
	return n
}

// isOthers reports whether the certificate that is served is another issuer's.
func isOthers(s parking.Status) bool {
	if s.Phase != parking.PhaseServed {
		return false
	}
	return s.CA == "" && !s.IsOnDemand || s.Issuer != "" && s.Issuer != acmepersist.IssuerKey(s.CA)
}

// held are where those of the names are that wait for something else than the record.
func (o *Operator) held(names []string) (all []NameStatus) {
	for _, name := range names {
		normal, _ := record.Normalize(name)
		for _, s := range o.Registry.Of(normal) {
			if s.Reason != "" && !s.Reason.IsRecord() && s.Phase != parking.PhaseServed {
				all = append(all, o.nameStatus(s, walltime.Now()))
			}
		}
	}
	return all
}

// missing is the record that has to be published; nil if that is not known, or not what is waited for.
func missing(s parking.Status) *Missing {
	if s.Record == (acmepersist.Record{}) {
		return nil
	}
	var zone string
	place, alias := s.Record, s.Record.Target != ""
	if s.Report != nil {
		place, _ = s.Record.AtEnd(*s.Report)
		alias = alias && !s.Report.Alias().LeadsTo(s.Record.Target)
		zone = cmp.Or(s.Report.At(place.Place()).Zone, s.Report.Zone)
	}
	m := &Missing{Name: place.Place(), Type: "TXT", Value: place.Value, TTL: TTL}
	if alias {
		m.Name, m.Type, m.Value = s.Record.Name, "CNAME", s.Record.Target
	}
	m.Host = site.HostIn(m.Name, zone)
	return m
}

// next is what happens next, and when at the latest.
func (o *Operator) next(s parking.Status, now time.Time) (words string, at time.Time) {
	at = s.Next
	if !at.After(now) {
		at = time.Time{}
	}
	switch {
	case o.Registry == nil && s.Phase != parking.PhaseServed:
		return "what a running Caddy does next is not in storage, and without one nothing happens", at
	case s.HasOthers && s.IsCertMagics:
		return "CertMagic tries it again, with the other issuers of its policy", time.Time{}
	case s.IsCertMagics:
		return "CertMagic tries it again", time.Time{}
	}
	again, byItself, last := "it is tried again in any case", "it is tried again by itself", at
	if !s.ForgottenAt.IsZero() && s.ForgottenAt.Before(at) {
		again, last = "it is forgotten unless a visitor asks for it", s.ForgottenAt
		byItself = again
	}
	switch s.Phase {
	case parking.PhaseWanted:
		if s.IsOnDemand {
			return "the first visitor has its certificate obtained", at
		}
		return "its first attempt has its turn", at
	case parking.PhaseLooking, parking.PhasePublishing, parking.PhaseOrdering:
		return "an attempt is under way", at
	case parking.PhaseWaiting:
		return "DNS is watched, and the certificate is ordered as soon as the record is complete; " + again, last
	case parking.PhaseProcessing:
		return "the order is looked at again", at
	case parking.PhaseServed:
		if s.Fault != nil {
			return "the record is looked at again, and the certificate renewed by it", at
		}
		if isOthers(s) {
			return "another issuer than dns_persist serves it, and renews it when it is due", time.Time{}
		}
		if s.IsOnDemand {
			return "a visitor has it renewed when it is due", at
		}
		return "it is renewed by itself when it is due", at
	}
	switch {
	case s.Reason == acmepersist.ReasonQueued:
		return "it is tried again when its turn at the CA comes", at
	case s.Report != nil:
		return "DNS is watched, and " + byItself, last
	}
	return byItself, last
}

// place is where a status is in the order of urgency. It is made of the status alone: whoever goes on
// after one misses or repeats only those that have changed their place meanwhile.
type place struct {
	// Rank is 0 for the domains of the configuration, 1 for those on demand with a certificate to lose, and
	// 2 for the others, which anybody can have as many of as the permission lets them.
	Rank int `json:"r"`
	// Mercy is the lower the more severe it is.
	Mercy int `json:"m"`
	// At is the end of the certificate, in seconds. Without one it is since when it waits, which is before
	// the end of any.
	At     int64  `json:"t"`
	Domain string `json:"d"`
	CA     string `json:"c"`
}

func placeOf(s parking.Status, severity parking.Severity) place {
	p := place{Mercy: int(parking.SeverityError - severity), At: s.NotAfter.Unix(), Domain: s.Domain, CA: s.CA}
	if s.NotAfter.IsZero() {
		p.At = s.Since.Unix()
	}
	switch {
	case s.IsOnDemand && s.NotAfter.IsZero():
		p.Rank = 2
	case s.IsOnDemand:
		p.Rank = 1
	}
	return p
}

func (p place) compare(q place) int {
	return cmp.Or(cmp.Compare(p.Rank, q.Rank), cmp.Compare(p.Mercy, q.Mercy), cmp.Compare(p.At, q.At),
		strings.Compare(p.Domain, q.Domain), strings.Compare(p.CA, q.CA))
}

// String is the place as NamesReply.After has it.
func (p place) String() string {
	data, _ := json.Marshal(p)
	return base64.RawURLEncoding.EncodeToString(data)
}

func parsePlace(text string) (p place, err error) {
	if text == "" {
		return p, nil
	}
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(data, &p)
	}
	if err != nil {
		return p, fmt.Errorf("%q is not what an answer had as after: give that as it is, or leave after out to begin anew", text)
	}
	return p, nil
}
