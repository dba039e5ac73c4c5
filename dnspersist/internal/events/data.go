package events

import (
	"cmp"
	"math"
	"slices"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/parking"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// Names of the events.
const (
	// RecordNeeded: somebody has to publish a record.
	RecordNeeded = "dns_persist_record_needed"
	// RecordWrong: something is published, and it is not the record.
	RecordWrong = "dns_persist_record_wrong"
	// RecordComplete: a record that was needed, wrong or gone is published on every server.
	RecordComplete = "dns_persist_record_complete"
	// RecordGone: a record that a certificate is renewed by is gone or was changed.
	RecordGone = "dns_persist_record_gone"
	// RecordEnding: a record ends before its third renewal from now.
	RecordEnding = "dns_persist_record_ending"
	// RecordPublished: a record was written by the DNS provider.
	RecordPublished = "dns_persist_record_published"
	// CAChanged: the CA asks for other records than before.
	CAChanged = "dns_persist_ca_changed"
	// AccountLost: the account cannot be used.
	AccountLost = "dns_persist_account_lost"
)

// Names are all of them.
var Names = []string{RecordNeeded, RecordWrong, RecordComplete, RecordGone, RecordEnding, RecordPublished, CAChanged, AccountLost}

// mostDomains is how many domains, names and values an event lists.
const mostDomains = 20

// data are the data of an event: plain values, each of them bounded and with all escaped that is not printable.
func (e *event) data(now time.Time) map[string]any {
	d := data{}
	if len(e.domains) > 0 {
		slices.Sort(e.domains)
		d["domain"], d["domains"] = e.domains[0], e.domains
	}
	if e.count > 0 {
		d["count"] = e.count
	}
	d["on_demand"] = e.onDemand
	if e.key != (recordKey{}) {
		d["ca"], d["account"], d["name"], d["value"] = e.key.ca, e.account, e.key.name, e.key.value
	}
	switch {
	case e.isOfMany:
		d["do"] = "see which they are by caddy dns-persist status"
	case e.status != nil:
		d.explain(e.status, now)
	case e.notice != nil:
		d.notice(e.name, e.notice, now)
	}
	if e.code != "" {
		d["code"] = e.code
	}
	if e.name == RecordComplete {
		delete(d, "do")
	}
	return clean(map[string]any(d)).(map[string]any)
}

// data are those of an event.
type data map[string]any

// explain adds why a domain waits.
func (d data) explain(s *parking.Status, now time.Time) {
	x := s.Explain()
	d["ca"], d["account"], d["since"] = s.CA, s.Account, s.Since
	var report propagation.Report
	if s.Report != nil {
		report = *s.Report
		d["dns"] = report.Summary()
	}
	d.record(s.Record, report)
	if !s.NotAfter.IsZero() {
		d["certificate_until"] = s.NotAfter
	}
	if s.IsComplete() {
		return
	}
	d["code"], d["why"], d["do"], d["severity"] = x.Code, x.Text, x.Do, s.Severity(now).String()
	if d["dns"] == x.Text {
		delete(d, "dns") // it has nothing to add
	}
	d.published(x.Published)
}

// notice adds what an issuer has found.
func (d data) notice(name string, n *acmepersist.Notice, now time.Time) {
	d["ca"], d["account"] = n.CA, n.Account
	if n.Record != (acmepersist.Record{}) {
		d.record(n.Record, n.Report)
	}
	if n.Report.Status != "" {
		d["dns"] = n.Report.Summary()
	}
	if !n.NeededBy.IsZero() {
		d["needed_by"], d["days_left"] = n.NeededBy, days(n.NeededBy.Sub(now))
	}
	switch name {
	case RecordGone:
		d["do"] = cmp.Or(n.Finding.Do, "publish the TXT record again before the certificate is renewed")
		d.published(n.Finding.Values)
	case RecordEnding:
		d["published_value"], d["ends"], d["days_left"] = n.Value, n.Ends, days(n.Ends.Sub(now))
		d["do"] = "publish the TXT record beside the one that ends, then take that away"
	case RecordPublished:
		d["zone"] = n.Zone
	case CAChanged:
		d["changes"] = n.Changes
		d["do"] = "nothing yet; the record to publish beside each published one is logged with the next look at it"
	case AccountLost:
		d["why"], d["names"], d["count"] = n.Err.Error(), n.Names, len(n.Names)
		d["do"] = "restore the account, see caddy dns-persist account"
	}
}

// record adds the record, as the log has it.
func (d data) record(r acmepersist.Record, report propagation.Report) {
	fields := zapcore.NewMapObjectEncoder()
	for _, f := range r.LogFields(report) {
		f.AddTo(fields)
	}
	for key, value := range fields.Fields {
		d[key] = value
	}
}

// published adds what is published, and why it is not enough.
func (d data) published(values []acmepersist.ValueVerdict) {
	var all []any
	for _, v := range values {
		all = append(all, map[string]any{"value": v.Value, "code": string(v.Code), "outlook": string(v.Outlook), "reason": v.Reason})
	}
	if len(all) > 0 {
		d["published"] = all
	}
}

// clean returns a value with all in it bounded, escaped and fit for JSON.
func clean(value any) any {
	switch v := value.(type) {
	case string:
		return foreign.Text(v)
	case time.Time:
		return v.UTC().Format(time.RFC3339)
	case []string:
		all := make([]string, 0, min(len(v), mostDomains))
		for _, text := range v[:min(len(v), mostDomains)] {
			all = append(all, foreign.Text(text))
		}
		return all
	case []any:
		all := make([]any, 0, min(len(v), mostDomains))
		for _, element := range v[:min(len(v), mostDomains)] {
			all = append(all, clean(element))
		}
		return all
	case map[string]any:
		for key, element := range v {
			v[key] = clean(element)
		}
	case int64:
		return int(v)
	}
	return value
}

func days(d time.Duration) int { return int(math.Floor(d.Hours() / 24)) }
