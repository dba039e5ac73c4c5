package operator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
)

// Failure is a CA of which nothing is known.
type Failure struct {
	// CA is the directory URL.
	CA string `json:"ca"`
	// Identifiers are the names that are left out for it, sorted.
	Identifiers []string `json:"identifiers,omitempty"`
	// Error is the reason.
	Error string `json:"error"`

	err error
}

// PartialError is for CAs of which nothing is known. What is returned beside it is of the
// others, and whole for them.
type PartialError struct {
	Failed []Failure
}

// mostLeftOut is how many names an error lists.
const mostLeftOut = 5

func (e *PartialError) Error() string {
	var all []string
	for _, f := range e.Failed {
		text := fmt.Sprintf("nothing is known of the CA %s: %s", f.CA, f.Error)
		if names := f.Identifiers; len(names) > 0 {
			more := ""
			if len(names) > mostLeftOut {
				names, more = names[:mostLeftOut], fmt.Sprintf(" and %d more", len(names)-mostLeftOut)
			}
			text += "; left out: " + strings.Join(names, ", ") + more
		}
		all = append(all, text)
	}
	return strings.Join(all, "\n")
}

// Unwrap returns the errors of the CAs.
func (e *PartialError) Unwrap() []error {
	var all []error
	for _, f := range e.Failed {
		if f.err != nil {
			all = append(all, f.err)
		}
	}
	return all
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
	identifiers = slices.Clone(identifiers)
	slices.Sort(identifiers)
	one := Failure{CA: ca, Identifiers: slices.Compact(identifiers), Error: err.Error(), err: err}
	for i, other := range f.failed { // another issuer of the same CA
		if other.CA == one.CA && other.Error == one.Error {
			identifiers := append(other.Identifiers, one.Identifiers...)
			slices.Sort(identifiers)
			f.failed[i].Identifiers = slices.Compact(identifiers)
			return
		}
	}
	f.failed = append(f.failed, one)
}

// end is the error for all: where nothing is known of any CA it is theirs.
func (f *failures) end(ctx context.Context) error {
	switch {
	case f.asked != nil:
		return f.asked
	case len(f.failed) == 0:
		return nil
	case ctx.Err() != nil:
		return f.failed[0].err
	case f.done > 0:
		return &PartialError{f.failed}
	}
	var errs []error
	for _, one := range f.failed {
		errs = append(errs, one.err)
	}
	return errors.Join(errs...)
}

// partly takes a PartialError for what it is: there is an answer beside it.
func partly(err error) ([]Failure, error) {
	var some *PartialError
	if errors.As(err, &some) {
		return some.Failed, nil
	}
	return nil, err
}
