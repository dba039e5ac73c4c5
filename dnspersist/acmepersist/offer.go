package acmepersist

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

const (
	// notOfferedRetry is how long a CA's "no" is believed for first certificates,
	// notOfferedRenewalRetry for renewals: only an order shows whether a CA of the
	// deployed drafts has begun to offer the challenge.
	notOfferedRetry        = 24 * time.Hour
	notOfferedRenewalRetry = time.Hour
)

// offer is what is known of a CA, learned from authorizations, kept in storage.
type offer struct {
	CA string `json:"ca"`
	// Offered is nil while nothing is known.
	Offered *bool `json:"offered,omitempty"`
	// IssuerDomainNames and Dialect are those of the last challenge.
	IssuerDomainNames []string       `json:"issuer_domain_names,omitempty"`
	Dialect           record.Dialect `json:"dialect,omitempty"`
	// Directory is what the directory said when it was last compared.
	Directory *directoryTerms `json:"directory,omitempty"`
	// OtherTypes are the challenges that the CA offered when ours was missing.
	OtherTypes []string  `json:"other_types,omitempty"`
	SeenAt     time.Time `json:"seen_at,omitzero"`
	// Promised is true if the directory spoke of the challenge when it was missing.
	Promised bool `json:"promised,omitempty"`
}

// Check reports what a file has to hold.
func (o *offer) Check() error {
	if o.CA == "" {
		return errors.New("ca is missing")
	}
	return nil
}

func (o offer) yes() bool { return o.Offered != nil && *o.Offered }

// refusal returns the error for a CA that does not offer the challenge, nil if it
// may be asked.
func (o offer) refusal(renewal, promised bool, retry, renewalRetry time.Duration) error {
	if o.Offered == nil || *o.Offered || promised && !o.Promised {
		return nil
	}
	after := retry
	if renewal {
		after = renewalRetry
	}
	at := o.SeenAt.Add(after)
	if walltime.Now().After(at) {
		return nil
	}
	return &NotOfferedError{CA: o.CA, Offered: o.OtherTypes, SeenAt: o.SeenAt, RetryAt: at}
}

// loadOffer returns what is known of the CA.
func (s *session) loadOffer(ctx context.Context) (offer, error) {
	s.iss.mu.Lock()
	cached := s.iss.offer
	s.iss.mu.Unlock()
	if cached != nil && (cached.yes() || walltime.Since(cached.SeenAt) < time.Minute) {
		return *cached, nil
	}
	// a "no" may have become a "yes" on another node
	o := offer{CA: s.iss.CA}
	if _, err := s.store.Load(ctx, s.store.Key("ca.json"), &o); err != nil {
		return o, err
	}
	if o.CA != s.iss.CA {
		o = offer{CA: s.iss.CA} // of a directory that shares the folder
	}
	o.heal(walltime.Now())
	s.iss.mu.Lock()
	s.iss.offer = &o
	s.iss.mu.Unlock()
	return o, nil
}

// learn takes from an authorization what it says of the CA. One that is already
// valid says nothing: it may have been validated by another challenge.
func (s *session) learn(ctx context.Context, authz acme.Authorization) error {
	if authz.Status != acme.StatusPending {
		return nil
	}
	o := offer{CA: s.iss.CA, SeenAt: walltime.Now().UTC()}
	offered := false
	for _, c := range authz.Challenges {
		if c.Type == ChallengeType {
			offered = true
		} else {
			o.OtherTypes = append(o.OtherTypes, c.Type)
		}
	}
	o.Offered = &offered
	if offered {
		o.OtherTypes = nil
		c, _, err := s.challenge(ctx, authz)
		if err != nil {
			return nil // it is said where the challenge is used
		}
		o.IssuerDomainNames, o.Dialect = c.terms.names, c.terms.dialect
	} else {
		o.Promised = s.directory.promises()
	}
	s.iss.mu.Lock()
	old := s.iss.offer
	s.iss.mu.Unlock()
	if old != nil && old.yes() && offered && slices.Equal(old.IssuerDomainNames, o.IssuerDomainNames) && old.Dialect == o.Dialect {
		return nil
	}
	if offered {
		s.logger.Info("the CA offers dns-persist-01",
			zap.String("ca", o.CA), zap.Strings("issuer_domain_names", o.IssuerDomainNames), zap.String("dialect", string(o.Dialect)))
	} else {
		s.logger.Error("the CA does not offer dns-persist-01; no record in DNS can change that",
			zap.String("ca", o.CA), zap.Strings("offered", o.OtherTypes),
			zap.Time("asked_again_after", o.SeenAt.Add(s.iss.notOfferedRetry())))
	}
	return s.updateOffer(ctx, func(stored *offer) bool {
		o.Directory = stored.Directory
		*stored = o
		return true
	})
}

// updateOffer changes what is known of the CA in storage and in memory.
func (s *session) updateOffer(ctx context.Context, fn func(*offer) bool) error {
	s.iss.offerMu.Lock()
	defer s.iss.offerMu.Unlock()
	o := offer{CA: s.iss.CA}
	key := s.store.Key("ca.json")
	if _, err := s.store.Load(ctx, key, &o); err != nil {
		return err
	}
	if o.CA != s.iss.CA {
		o = offer{CA: s.iss.CA} // of a directory that shares the folder
	}
	o.heal(walltime.Now())
	if fn(&o) {
		if err := s.store.Save(ctx, key, o); err != nil {
			return err
		}
	}
	s.iss.mu.Lock()
	s.iss.offer = &o
	s.iss.mu.Unlock()
	return nil
}

// directoryTerms is what a directory said of the challenge, for comparison.
type directoryTerms struct {
	AccountHashPrefix string   `json:"account_hash_prefix,omitempty"`
	IssuerDomainNames []string `json:"issuer_domain_names,omitempty"`
	CAAIdentities     []string `json:"caa_identities,omitempty"`
	// AccountURLs are what the CA last named accounts, by the URL that each is bound with:
	// issuers at one CA may have accounts of their own.
	AccountURLs map[string]string `json:"account_urls,omitempty"`
	At          time.Time         `json:"at"`
	// Unsaid are changes whose announcement has not succeeded yet.
	Unsaid []string `json:"unsaid,omitempty"`
}

// prefixKept is how long a prefix is remembered that the directory shows no more.
const prefixKept = 7 * 24 * time.Hour

// rememberedPrefix is the accountHashPrefix of an earlier directory.
func (o offer) rememberedPrefix() string {
	if o.Directory == nil || walltime.Since(o.Directory.At) > prefixKept {
		return ""
	}
	return o.Directory.AccountHashPrefix
}

// heal forgets a "no" that has not been said yet.
func (o *offer) heal(now time.Time) {
	if state.IsAhead(o.SeenAt, now, 0) {
		o.SeenAt = now
		if !o.yes() {
			o.Offered = nil
		}
	}
	if o.Directory != nil && state.IsAhead(o.Directory.At, now, 0) {
		o.Directory.At = now
	}
}
