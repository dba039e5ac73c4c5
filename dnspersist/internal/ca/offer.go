package ca

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
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

// directoryTerms is what a directory has of the challenge, for comparison.
type directoryTerms struct {
	AccountHashPrefix string   `json:"account_hash_prefix,omitempty"`
	IssuerDomainNames []string `json:"issuer_domain_names,omitempty"`
	CAAIdentities     []string `json:"caa_identities,omitempty"`
	// AccountURLs are what the CA last named accounts, by the URL that each is bound with:
	// issuers at one CA may have accounts of their own.
	AccountURLs map[string]string `json:"account_urls,omitempty"`
	At          time.Time         `json:"at"`
	// ChangedAt is when it was first seen to ask for other records than before.
	ChangedAt time.Time `json:"changed_at,omitzero"`
}

// ChangedAt is when the CA's directory was last seen to ask for other records than before, zero if it
// never did.
func (o Offer) ChangedAt() time.Time {
	if o.Directory == nil {
		return time.Time{}
	}
	return o.Directory.ChangedAt
}

// prefixKept is how long a prefix is remembered that the directory shows no more.
const prefixKept = 7 * 24 * time.Hour

// rememberedPrefix is the accountHashPrefix of an earlier directory.
func (o Offer) rememberedPrefix() string {
	if o.Directory == nil || walltime.Since(o.Directory.At) > prefixKept {
		return ""
	}
	return o.Directory.AccountHashPrefix
}

// now is what the directory has of the challenge.
func (d *Directory) now() directoryTerms {
	t := directoryTerms{AccountHashPrefix: d.Meta.Prefix(), At: time.Now().UTC()}
	if t.AccountHashPrefix != "" {
		t.IssuerDomainNames = d.Meta.names()
	} else {
		t.CAAIdentities = conformingNames(d.Meta.CAAIdentities)
	}
	return t
}

// changes lists what is different, as sentences.
func (t directoryTerms) changes(old directoryTerms) []string {
	var list []string
	if t.AccountHashPrefix != old.AccountHashPrefix {
		list = append(list, fmt.Sprintf("accountHashPrefix was %s, is %s", cmp.Or(old.AccountHashPrefix, "none"), cmp.Or(t.AccountHashPrefix, "none")))
	}
	if a, b := old.issuers(), t.issuers(); len(a) > 0 && len(b) > 0 && !sameSet(a, b) {
		list = append(list, fmt.Sprintf("the issuer domain names were %s, are %s", strings.Join(a, ", "), strings.Join(b, ", ")))
	}
	for _, bound := range slices.Sorted(maps.Keys(t.AccountURLs)) {
		if a, b := old.AccountURLs[bound], t.AccountURLs[bound]; a != "" && a != b {
			list = append(list, fmt.Sprintf("the CA named the account %s, names it %s", a, b))
		}
	}
	return list
}

func (t directoryTerms) issuers() []string {
	if len(t.IssuerDomainNames) > 0 {
		return t.IssuerDomainNames
	}
	return t.CAAIdentities
}

// isNoted reports whether the directory is as it was noted.
func (c *Client) isNoted(o *Offer) bool {
	return o != nil && o.Directory != nil && len(c.Directory.now().merge(*o.Directory).changes(*o.Directory)) == 0
}

// merge keeps what only some frontends of a CA show yet.
func (t directoryTerms) merge(old directoryTerms) directoryTerms {
	if len(old.AccountURLs) > 0 {
		all := maps.Clone(old.AccountURLs)
		maps.Copy(all, t.AccountURLs)
		t.AccountURLs = all
	}
	if t.AccountHashPrefix == "" && old.AccountHashPrefix != "" && t.At.Sub(old.At) < prefixKept {
		t.AccountHashPrefix, t.IssuerDomainNames, t.CAAIdentities, t.At = old.AccountHashPrefix, old.IssuerDomainNames, old.CAAIdentities, old.At
	}
	return t
}

// CompareDirectory notes what the directory has of the challenge, and logs a change, once in a cluster. What was never
// noted is taken for the deployed dialect: nothing else is published then. account is the URL of the
// bound account, named what the CA names it now, empty if it was not asked.
func (c *Client) CompareDirectory(ctx context.Context, account, named string) (changes []string, err error) {
	already := func() (bool, error) { return named == "" && c.isNoted(c.server.cachedOffer()), nil }
	if done, _ := already(); done {
		return nil, nil
	}
	// another node would log the change as well
	err = c.server.Store.Locked(ctx, "dns_persist_directory_"+state.Safe(state.IssuerKey(c.server.URL)), already, func() error {
		err := c.server.updateOffer(ctx, func(o *Offer) bool {
			now := c.Directory.now()
			if named != "" {
				now.AccountURLs = map[string]string{account: named}
			}
			if o.Directory != nil {
				now = now.merge(*o.Directory)
				changes = now.changes(*o.Directory)
				now.ChangedAt = o.Directory.ChangedAt
			} else if now.AccountHashPrefix != "" && o.Dialect == record.DialectAccountURL {
				changes = now.changes(directoryTerms{IssuerDomainNames: o.IssuerDomainNames})
			}
			if len(changes) > 0 {
				now.ChangedAt = walltime.Now().UTC()
			}
			o.Directory = &now
			return true
		})
		if err != nil || len(changes) == 0 {
			return err
		}
		c.logger.Warn("the CA has changed what records have to say; published ones are used until it refuses them, and each record to publish beside them is logged with the next look at it",
			zap.String("ca", c.server.URL), zap.Strings("changes", changes))
		return nil
	})
	return changes, err
}
