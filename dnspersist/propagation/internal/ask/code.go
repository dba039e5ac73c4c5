package ask

import "errors"

// Code is a stable word for what was found, for programs and alerts.
type Code string

// CodeTCPBlocked is that of answers that are cut over UDP and not to be had over TCP.
const CodeTCPBlocked Code = "tcp_blocked"

// codedError is an error with a code.
type codedError struct {
	code Code
	err  error
}

func (e *codedError) Error() string { return e.err.Error() }

func (e *codedError) Unwrap() error { return e.err }

// Coded gives err a code, unless it has one, which then is more exact.
func Coded(code Code, err error) error {
	if CodeOf(err) != "" {
		return err
	}
	return &codedError{code, err}
}

// CodeOf returns the code of an error, empty if it has none.
func CodeOf(err error) Code {
	var c *codedError
	if errors.As(err, &c) {
		return c.code
	}
	return ""
}
