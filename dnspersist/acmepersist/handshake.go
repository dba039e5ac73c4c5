package acmepersist

import (
	"context"
)

// background is the context key of attempts on which no handshake hangs.
type background struct{}

// InBackground marks an attempt that may take its time also where Config.OnDemand is set.
func InBackground(ctx context.Context) context.Context {
	return context.WithValue(ctx, background{}, true)
}

// IsInBackground reports whether an attempt is marked so.
func IsInBackground(ctx context.Context) bool { return ctx.Value(background{}) != nil }
