package acmepersist

import (
	"context"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"
)

// serving is Siblings, or this issuer for all.
func (iss *Issuer) serving() func(identifier string) *Issuer {
	if iss.Siblings == nil {
		return func(string) *Issuer { return iss }
	}
	return iss.Siblings()
}

func (iss *Issuer) logger() *zap.Logger {
	if iss.Logger == nil {
		return zap.NewNop()
	}
	return iss.Logger
}

func (iss *Issuer) timeout() time.Duration { return orDefault(iss.Timeout, defaultTimeout) }

func (iss *Issuer) propagationTimeout() time.Duration {
	return orDefault(iss.PropagationTimeout, defaultPropagationTimeout)
}

func (iss *Issuer) pollInterval() time.Duration {
	return orDefault(iss.PollInterval, defaultPollInterval)
}

func (iss *Issuer) windowRatio() float64 {
	return orDefault(iss.RenewalWindowRatio, defaultWindowRatio)
}

func (iss *Issuer) limiter(account string) *rate.Limiter {
	if iss.Limiter == nil {
		return nil
	}
	return iss.Limiter(account)
}

func orDefault[T comparable](value, def T) T {
	var zero T
	if value == zero {
		return def
	}
	return value
}

// background is the context key of attempts on which no handshake hangs.
type background struct{}

// InBackground marks an attempt that may take its time also where Config.OnDemand is set.
func InBackground(ctx context.Context) context.Context {
	return context.WithValue(ctx, background{}, true)
}

// IsInBackground reports whether an attempt is marked so.
func IsInBackground(ctx context.Context) bool { return ctx.Value(background{}) != nil }
