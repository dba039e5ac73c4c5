package acmepersist

import (
	"fmt"
	"strings"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

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
func cacheCap(directory string) time.Duration {
	if strings.Contains(directory, "letsencrypt.org") {
		return cacheCapLetsEncrypt
	}
	return cacheCapOthers
}

// disagrees reports whether what DNS showed should have satisfied the CA.
func disagrees(seen propagation.Report, want record.Requirement) bool {
	return seen.Status == propagation.StatusReady && record.Evaluate(seen.Values, want, time.Now()).Good()
}
