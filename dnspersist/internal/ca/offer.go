package ca

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

// ChallengeType is the type of the challenge (draft-ietf-acme-dns-persist,
// section 4).
const ChallengeType = "dns-persist-01"

// Offer is what is known of a CA, learned from authorizations, kept in storage.
type Offer struct {
	CA string `json:"ca"`
	// Offered is nil while nothing is known.
	Offered *bool `json:"offered,omitempty"`
	// IssuerDomainNames and Dialect are those of the last challenge.
	IssuerDomainNames []string       `json:"issuer_domain_names,omitempty"`
	Dialect           record.Dialect `json:"dialect,omitempty"`
	// Directory is what the directory had when it was last compared.
	Directory *directoryTerms `json:"directory,omitempty"`
	// OtherTypes are the challenges that the CA offered when ours was missing.
	OtherTypes []string  `json:"other_types,omitempty"`
	SeenAt     time.Time `json:"seen_at,omitzero"`
	// Promised is true if the directory had its terms when the challenge was missing.
	Promised bool `json:"promised,omitempty"`
}

// Check reports what a file has to hold.
func (o *Offer) Check() error {
	if o.CA == "" {
		return errors.New("ca is missing")
	}
	return nil
}

// IsYes reports whether the CA has offered the challenge.
func (o Offer) IsYes() bool { return o.Offered != nil && *o.Offered }

// Refusal returns the error for a CA that does not offer the challenge, nil if it
// may be asked.
func (c *Client) Refusal(o Offer, renewal bool) error {
	if o.Offered == nil || *o.Offered || c.Directory.HasTerms() && !o.Promised {
		return nil
	}
	after := c.server.NotOfferedRetry
	if renewal {
		after = c.server.NotOfferedRenewalRetry
	}
	at := o.SeenAt.Add(after)
	if walltime.Now().After(at) {
		return nil
	}
	return &NotOfferedError{CA: o.CA, Offered: o.OtherTypes, SeenAt: o.SeenAt, RetryAt: at}
}

// LoadOffer returns what is known of the CA.
func (srv *Server) LoadOffer(ctx context.Context) (Offer, error) {
	cached := srv.cachedOffer()
	if cached != nil && (cached.IsYes() || walltime.Since(cached.SeenAt) < time.Minute) {
		return *cached, nil
	}
	// a "no" may have become a "yes" on another node
	return srv.ReloadOffer(ctx)
}

// ReloadOffer is LoadOffer without what is in memory.
func (srv *Server) ReloadOffer(ctx context.Context) (Offer, error) {
	o, err := srv.storedOffer(ctx)
	if err == nil {
		srv.cacheOffer(o)
	}
	return o, err
}

func (srv *Server) storedOffer(ctx context.Context) (Offer, error) {
	o := Offer{CA: srv.URL}
	if _, err := srv.Store.Load(ctx, srv.Store.Key("ca.json"), &o); err != nil {
		return o, err
	}
	if o.CA != srv.URL {
		o = Offer{CA: srv.URL} // of a directory that shares the folder
	}
	o.repair(walltime.Now())
	return o, nil
}

func (srv *Server) cachedOffer() *Offer {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	return srv.offer
}

func (srv *Server) cacheOffer(o Offer) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	srv.offer = &o
}

// Learn takes from an authorization what it shows of the CA. One that is already
// valid shows nothing: it may have been validated by another challenge.
func (c *Client) Learn(ctx context.Context, authz acme.Authorization, who Identity) error {
	if authz.Status != acme.StatusPending {
		return nil
	}
	o := Offer{CA: c.server.URL, SeenAt: walltime.Now().UTC()}
	offered := false
	for _, other := range authz.Challenges {
		if other.Type == ChallengeType {
			offered = true
		} else {
			o.OtherTypes = append(o.OtherTypes, other.Type)
		}
	}
	o.Offered = &offered
	if offered {
		o.OtherTypes = nil
		found, _, err := c.Challenge(ctx, authz, who)
		if err != nil {
			return nil // it is reported where the challenge is used
		}
		o.IssuerDomainNames, o.Dialect = found.Terms.Names, found.Terms.Dialect
	} else {
		o.Promised = c.Directory.HasTerms()
	}
	if old := c.server.cachedOffer(); old != nil && old.IsYes() && offered && slices.Equal(old.IssuerDomainNames, o.IssuerDomainNames) && old.Dialect == o.Dialect {
		return nil
	}
	if offered {
		c.logger.Info("the CA offers dns-persist-01",
			zap.String("ca", o.CA), zap.Strings("issuer_domain_names", o.IssuerDomainNames), zap.String("dialect", string(o.Dialect)))
	} else {
		c.logger.Error("the CA does not offer dns-persist-01; no record in DNS can change that",
			zap.String("ca", o.CA), zap.Strings("offered", o.OtherTypes),
			zap.Time("asked_again_after", o.SeenAt.Add(c.server.NotOfferedRetry)))
	}
	return c.server.updateOffer(ctx, func(stored *Offer) bool {
		o.Directory = stored.Directory
		*stored = o
		return true
	})
}

// updateOffer changes what is known of the CA in storage and in memory.
func (srv *Server) updateOffer(ctx context.Context, fn func(*Offer) bool) error {
	srv.updating.Lock()
	defer srv.updating.Unlock()
	o, err := srv.storedOffer(ctx)
	if err != nil {
		return err
	}
	if fn(&o) {
		if err := srv.Store.Save(ctx, srv.Store.Key("ca.json"), o); err != nil {
			return err
		}
	}
	srv.cacheOffer(o)
	return nil
}

// repair forgets what lies in the future: the clock was ahead when it was noted.
func (o *Offer) repair(now time.Time) {
	if state.IsAhead(o.SeenAt, now, 0) {
		o.SeenAt = now
		if !o.IsYes() {
			o.Offered = nil
		}
	}
	if o.Directory != nil && state.IsAhead(o.Directory.At, now, 0) {
		o.Directory.At = now
	}
	if o.Directory != nil && state.IsAhead(o.Directory.ChangedAt, now, 0) {
		o.Directory.ChangedAt = time.Time{}
	}
}
