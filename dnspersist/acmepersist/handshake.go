package acmepersist

import (
	"context"
	"errors"
	"time"
)

const (
	// handshakePatience is how long a TLS handshake waits for a write of its record, which may
	// be all that a quick provider needs.
	handshakePatience = 10 * time.Second
	// afterHandshake is when a write that took longer is gone on with in the background.
	afterHandshake = time.Second
)

// background is the context key of attempts on which no handshake hangs.
type background struct{}

// InBackground marks an attempt that may take its time also where Config.OnDemand is set.
func InBackground(ctx context.Context) context.Context {
	return context.WithValue(ctx, background{}, true)
}

// IsInBackground reports whether an attempt is marked so.
func IsInBackground(ctx context.Context) bool { return ctx.Value(background{}) != nil }

// errInBackground says why a handshake has no certificate yet.
var errInBackground = errors.New("it takes longer than a TLS handshake can wait, and goes on in the background")

// whileHandshakeWaits bounds ctx where a handshake hangs on it.
func (s *session) whileHandshakeWaits(ctx context.Context) (context.Context, context.CancelFunc) {
	if !s.iss.OnDemand || IsInBackground(ctx) {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, handshakePatience, errInBackground)
}
