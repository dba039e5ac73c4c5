package state

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

// Order is an order that is kept until it is final, so that neither a restart
// nor a wait for DNS costs another one.
type Order struct {
	// URL is empty while the order is being made.
	URL     string    `json:"url"`
	Account string    `json:"account"`
	Profile string    `json:"profile,omitempty"`
	At      time.Time `json:"at"`
	// Challenge is the challenge that the CA has been asked to validate, PostedAt when.
	Challenge string    `json:"challenge,omitempty"`
	PostedAt  time.Time `json:"posted_at,omitzero"`
	// Seen is what DNS showed when it was asked: its answer may come when nobody remembers.
	Seen *propagation.Report `json:"seen,omitempty"`
	// FinalizedFor is the public key for which the order was finalized, FinalizedAt when.
	FinalizedFor string    `json:"finalized_for,omitempty"`
	FinalizedAt  time.Time `json:"finalized_at,omitzero"`
}

// Check reports what a file has to hold.
func (o *Order) Check() error {
	if o.Account == "" {
		return errors.New("account is missing")
	}
	return nil
}

// OrderKey is the storage key of the order for a name.
func (s Store) OrderKey(name string) string { return s.Key("orders", Safe(name)+".json") }

// Order returns the order that is kept for a name.
func (s Store) Order(ctx context.Context, name string) (order Order, found bool, err error) {
	key := s.OrderKey(name)
	found, err = s.Load(ctx, key, &order)
	if err != nil {
		return order, false, err
	}
	if found && order.repair(walltime.Now().UTC()) {
		if err := s.Save(ctx, key, order); err != nil && s.Logger != nil {
			s.Logger.Warn("the times of a kept order lie ahead, and could not be corrected", zap.String("identifier", name), zap.Error(err))
		}
	}
	return order, found && order.URL != "", nil
}
