package ca

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

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
func (o Offer) rememberedPrefix() string {
	if o.Directory == nil || walltime.Since(o.Directory.At) > prefixKept {
		return ""
	}
	return o.Directory.AccountHashPrefix
}

// now is what the directory says of the challenge.
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

// noted reports whether the directory says what is known of it.
func (c *Client) noted(o *Offer) bool {
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

// CompareDirectory notes what the directory says, and announces a change, once in a
// cluster. What was never noted is taken for the deployed dialect: nothing else stands in
// DNS then. An announcement that fails is tried again with the next comparison.
func (c *Client) CompareDirectory(ctx context.Context, account, accountURL string, announce func(ctx context.Context, changes []string) error) error {
	already := func() (bool, error) { return accountURL == "" && c.noted(c.server.cachedOffer()), nil }
	if done, _ := already(); done {
		return nil
	}
	// others wait for the announcement, or they would make it as well
	return c.server.Store.Locked(ctx, "dns_persist_directory_"+c.server.Store.Safe(state.IssuerKey(c.server.URL)), already, func() error {
		unsaid, err := c.noteDirectory(ctx, account, accountURL)
		if err != nil || len(unsaid) == 0 {
			return err
		}
		if err := announce(ctx, unsaid); err != nil {
			return err
		}
		return c.server.updateOffer(ctx, func(o *Offer) bool {
			if o.Directory == nil {
				return false
			}
			o.Directory.Unsaid = nil
			return true
		})
	})
}

// noteDirectory notes what the directory says and returns the changes that have to be
// announced.
func (c *Client) noteDirectory(ctx context.Context, account, accountURL string) (unsaid []string, err error) {
	err = c.server.updateOffer(ctx, func(o *Offer) bool {
		now := c.Directory.now()
		if accountURL != "" {
			now.AccountURLs = map[string]string{account: accountURL}
		}
		var changes []string
		if o.Directory != nil {
			now = now.merge(*o.Directory)
			changes = now.changes(*o.Directory)
			now.Unsaid = slices.Clone(o.Directory.Unsaid)
		} else if now.AccountHashPrefix != "" && o.Dialect == record.DialectAccountURL {
			changes = now.changes(directoryTerms{IssuerDomainNames: o.IssuerDomainNames})
		}
		for _, change := range changes {
			if !slices.Contains(now.Unsaid, change) {
				now.Unsaid = append(now.Unsaid, change)
			}
		}
		o.Directory, unsaid = &now, now.Unsaid
		return true
	})
	return unsaid, err
}
