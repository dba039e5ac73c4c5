package ca

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

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
		list = append(list, fmt.Sprintf("accountHashPrefix was %q, is %q", old.AccountHashPrefix, t.AccountHashPrefix))
	}
	if a, b := old.issuers(), t.issuers(); len(a) > 0 && len(b) > 0 && !sameSet(a, b) {
		list = append(list, fmt.Sprintf("the issuer domain names were %q, are %q", a, b))
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
func (c *Client) CompareDirectory(ctx context.Context, account, named string) error {
	already := func() (bool, error) { return named == "" && c.isNoted(c.server.cachedOffer()), nil }
	if done, _ := already(); done {
		return nil
	}
	// another node would log the change as well
	return c.server.Store.Locked(ctx, "dns_persist_directory_"+state.Safe(state.IssuerKey(c.server.URL)), already, func() error {
		var changes []string
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
}
