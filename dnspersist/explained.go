package dnspersist

import (
	"errors"

	"github.com/mholt/acmez/v3/acme"
)

// explained is an error that says all it has to say in CertMagic's log: CertMagic
// looks for the CA's problem document in an error and logs that instead of the error,
// without the account, the names and what to do.
type explained struct{ err error }

func (e explained) Error() string { return e.err.Error() }

func (e explained) Unwrap() error { return e.err }

// As gives the CA's problem document with the whole error as its detail.
func (e explained) As(target any) bool {
	problem, ok := target.(*acme.Problem)
	if !ok {
		return false
	}
	var found acme.Problem
	if !errors.As(e.err, &found) {
		return false
	}
	*problem = acme.Problem{Type: found.Type, Status: found.Status, Detail: e.err.Error()}
	return true
}
