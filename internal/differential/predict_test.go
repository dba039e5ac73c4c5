package differential

import (
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// prediction is what package record says about a set.
type prediction struct {
	outlook record.Outlook
	// errorTypes are what a CA that says no may report.
	errorTypes []string
	verdicts   []record.Verdict
}

// predict is the only place that asks package record.
func predict(texts []string, want record.Requirement, now time.Time) prediction {
	r := record.Evaluate(texts, want, now)
	return prediction{outlook: r.Outlook(), errorTypes: r.ErrorTypes(), verdicts: r.Verdicts}
}
