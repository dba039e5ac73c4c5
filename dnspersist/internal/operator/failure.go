package operator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
)

// Failure is a CA of which nothing is known. What is returned beside it is of the others, and whole
// for them.
type Failure struct {
	// CA is the directory URL.
	CA string `json:"ca"`
	// Identifiers are the names that are left out for it, sorted.
	Identifiers []string `json:"identifiers,omitempty"`
	// Reason is why nothing is known.
	Reason string `json:"error"`

	err error
}

// mostLeftOut is how many names an error lists.
const mostLeftOut = 5

func (f Failure) Error() string {
	text := fmt.Sprintf("nothing is known of the CA %s: %s", f.CA, f.Reason)
	names, more := f.Identifiers, ""
	if len(names) > mostLeftOut {
		names, more = names[:mostLeftOut], fmt.Sprintf(" and %d more", len(names)-mostLeftOut)
	}
	if len(names) > 0 {
		text += "; left out: " + strings.Join(names, ", ") + more
	}
	return text
}

// failures collects what has failed, CA by CA.
type failures struct {
	failed []Failure
	done   int // CAs of which something is known
	// asked is the error for what was asked, whichever CA it is for.
	asked error
}

// add takes what came of one CA.
func (f *failures) add(ca string, identifiers []string, err error) {
	var unsupported *acmepersist.UnsupportedNameError
	switch {
	case err == nil:
		f.done++
		return
	case errors.As(err, &unsupported): // whoever gave the name has to know
		f.asked = errors.Join(f.asked, err)
		return
	}
	one := Failure{CA: ca, Identifiers: slices.Clone(identifiers), Reason: err.Error(), err: err}
	at := slices.IndexFunc(f.failed, func(other Failure) bool { return other.CA == ca && other.Reason == one.Reason })
	if at < 0 {
		at, f.failed = len(f.failed), append(f.failed, one)
	} else { // another issuer of the same CA
		f.failed[at].Identifiers = append(f.failed[at].Identifiers, identifiers...)
	}
	slices.Sort(f.failed[at].Identifiers)
	f.failed[at].Identifiers = slices.Compact(f.failed[at].Identifiers)
}

// end returns of which CAs nothing is known. Where that is so of all it is their error.
func (f *failures) end(ctx context.Context) ([]Failure, error) {
	switch {
	case f.asked != nil:
		return nil, f.asked
	case len(f.failed) == 0:
		return nil, nil
	case ctx.Err() != nil:
		return nil, f.failed[0].err
	case f.done > 0:
		return f.failed, nil
	}
	var errs []error
	for _, one := range f.failed {
		errs = append(errs, one.err)
	}
	return nil, errors.Join(errs...)
}
