package acmepersist

import (
	"fmt"
	"strings"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/publish"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/site"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// What a CA and a DNS provider refuse with.
type (
	// NotOfferedError is a CA that does not offer dns-persist-01.
	NotOfferedError = ca.NotOfferedError
	// RateLimitedError is a CA that asks to come back later than one attempt can wait.
	RateLimitedError = ca.RateLimitedError
	// AccountURIError is a CA that wants another account URI in the record than the account's.
	AccountURIError = ca.AccountURIError
	// PublishError is a record that the DNS provider has not published, and when it is tried again.
	PublishError = publish.Error
)

// WaitingError says that the CA was not asked yet because the record is not
// published on every server that the CA may ask. Nothing was spent: no validation
// failed.
type WaitingError struct {
	// Identifier is the name that the certificate is for.
	Identifier string
	// Record is what has to be published.
	Record site.Record
	// Report is what DNS showed, Found what of that is published in place of the record.
	Report propagation.Report
	Found  site.Finding
	// Retry is when the CA will be asked whatever DNS shows; zero if never.
	Retry time.Time
	// Err is what else somebody has to know: that the validation name leads elsewhere, or that the record
	// could not be published. Nil if there is nothing.
	Err error
}

// Unwrap returns Err.
func (e *WaitingError) Unwrap() error { return e.Err }

// Code is a stable word for the kind of wait: record_absent, record_wrong, record_partial,
// record_confirming or dns_blocked.
func (e *WaitingError) Code() string { return string(reasonOf(e.Report, e.Found)) }

func (e *WaitingError) Error() string {
	what := "the TXT record at " + e.Record.Place()
	if e.Record.Target != "" && !e.Report.Alias().LeadsTo(e.Record.Target) {
		what = fmt.Sprintf("%s to be an alias (CNAME) of %s", e.Record.Name, e.Record.Target)
	}
	text := fmt.Sprintf("%s: waiting for %s, nothing was asked of the CA: %s", e.Code(), what, e.Report.Summary())
	if e.Err != nil {
		text += "; " + e.Err.Error()
	}
	return text
}

// BudgetError says that the CA has refused the name so often that asking again
// now could only use up its rate limits.
type BudgetError struct {
	Name    string
	Failed  int
	RetryAt time.Time
	// Answer is what the CA has last refused it with; nil if that is not known.
	Answer *Answer
}

func (e *BudgetError) Error() string {
	text := fmt.Sprintf("the CA failed to validate %s lately (%d times): it is asked again after %s", e.Name, e.Failed, e.RetryAt.UTC().Format(time.RFC3339))
	if e.Answer != nil {
		text += "; its last answer, at " + e.Answer.At.UTC().Format(time.RFC3339) + ": " + e.Answer.Text
	}
	return text
}

// ProcessingError says that the CA has been asked and has not decided yet. The order is
// kept and looked at again, also after a restart.
type ProcessingError struct {
	// Identifier is the name that is being validated.
	Identifier string
	// CA is the directory URL.
	CA string
	// Since is when the CA was asked, RetryAt when it is looked at again.
	Since, RetryAt time.Time
}

func (e *ProcessingError) Error() string {
	return fmt.Sprintf("ca_processing: %s has been validating %s since %s and has not decided; its order is kept and looked at again after %s",
		e.CA, e.Identifier, e.Since.UTC().Format(time.RFC3339), e.RetryAt.UTC().Format(time.RFC3339))
}

// RefusedError says that the CA has not validated a name.
type RefusedError struct {
	// Identifier is the name, Name its validation name.
	Identifier, Name string
	// Internal is true if that was a fault inside the CA, of which the record and DNS know
	// nothing.
	Internal bool
	// Err is what the CA said.
	Err error
}

func (e *RefusedError) Error() string {
	if e.Internal {
		return fmt.Sprintf("a fault inside the CA kept it from validating %s; neither the record at %s nor DNS is the cause, and it is asked again later: %v",
			e.Identifier, e.Name, e.Err)
	}
	return fmt.Sprintf("the CA did not validate %s by the record at %s: %v", e.Identifier, e.Name, e.Err)
}

func (e *RefusedError) Unwrap() error { return e.Err }

const (
	// cacheCapLetsEncrypt is the longest time for which Let's Encrypt's resolvers keep an
	// answer, cacheCapOthers a usual one.
	cacheCapLetsEncrypt = time.Minute
	cacheCapOthers      = 5 * time.Minute
)

// DisagreementError says that the CA has refused a name although its record stood on every
// server that counts. The CA's word is remembered, and it is asked again later.
type DisagreementError struct {
	// Identifier is the name, Name its validation name.
	Identifier, Name string
	// CA is the directory URL.
	CA string
	// Report is what DNS showed before the CA was asked.
	Report propagation.Report
	// RetryAt is when the CA is asked again at the earliest; zero if at once.
	RetryAt time.Time
	// Err is what the CA said.
	Err error
	// problem is the type of the CA's error, without the namespace.
	problem string
}

func (e *DisagreementError) Error() string {
	yes, hosts := 0, make(map[string]bool)
	for _, s := range e.Report.Servers {
		if s.Verdict == propagation.VerdictYes && !hosts[s.Host] {
			hosts[s.Host] = true
			yes++
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "ca_disagrees: %s did not validate %s: %v; but %d name servers of %s showed the record at %s",
		e.CA, e.Identifier, e.Err, yes, e.Report.Zone, e.Report.When.UTC().Format(time.RFC3339))
	b.WriteString(": " + e.hint())
	if !e.RetryAt.IsZero() {
		fmt.Fprintf(&b, "; asked again after %s", e.RetryAt.UTC().Format(time.RFC3339))
	}
	return b.String()
}

func (e *DisagreementError) Unwrap() error { return e.Err }

// hint says what to look at.
func (e *DisagreementError) hint() string {
	detail := strings.ToLower(e.Err.Error())
	switch {
	case strings.Contains(detail, "dnssec") || strings.Contains(detail, "bogus"):
		return "the zone's DNSSEC signatures do not validate; check them and the DS record with a validating resolver"
	case e.problem == "caa" || strings.Contains(detail, "caa"):
		return "the CA's reading of the CAA records forbids it; check them at the name and at every name above"
	case strings.Contains(detail, "secondary") || strings.Contains(detail, "perspective"):
		return "the CA looks from several places; check that the name servers answer the same everywhere (anycast, geographic answers, firewalls)"
	case e.problem == "dns" || strings.Contains(detail, "dns"):
		return "the CA's resolver met a server that does not answer it, or a zone whose DNSSEC signatures do not validate; check both from outside"
	}
	return "the CA has seen other data than we have: check for servers that answer differently from elsewhere (anycast, geographic answers, split horizon)"
}

// cacheCap is the longest time for which the resolvers of a CA keep an answer.
func cacheCap(cfg Config) time.Duration {
	switch {
	case cfg.PrivateCA:
		return -1 // a CA within reach has resolvers within reach
	case strings.Contains(cfg.CA, "letsencrypt.org"):
		return cacheCapLetsEncrypt
	}
	return cacheCapOthers
}

// disagrees reports whether what DNS showed should have satisfied the CA.
func disagrees(seen propagation.Report, want record.Requirement) bool {
	return seen.Status == propagation.StatusReady && record.Evaluate(seen.Values, want, time.Now()).Good()
}
