package acmepersist

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sort"
	"time"

	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// rowsSaid is how many names of a change are logged; a platform has thousands.
const rowsSaid = 100

// ReadDirectory reads the CA's directory anew and holds it against what it said before. A
// change of what records have to say is logged at once, with the name, the standing value,
// the wanted value and the days until the certificate needs it, for every name whose
// standing value the CA need not take any more. Without an account in storage there is
// nothing to compare, and nothing is asked.
func (iss *Issuer) ReadDirectory(ctx context.Context) error {
	st := iss.store()
	if known, err := st.Load(ctx, st.Key("ca.json"), new(offer)); err != nil || !known {
		return err
	}
	iss.dirs.expire()
	s, err := iss.openKnown(ctx)
	if err != nil || s == nil {
		return err
	}
	url := ""
	err = s.step(ctx, "looking up the account", func() error {
		account, err := s.client.GetAccount(ctx, s.account)
		url = account.Location
		return err
	})
	if err != nil {
		return s.accountProblem(ctx, err)
	}
	return s.compareDirectory(ctx, url)
}

// now is what the directory says of the challenge.
func (d *directory) now() directoryTerms {
	t := directoryTerms{AccountHashPrefix: d.Meta.prefix(), At: time.Now().UTC()}
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

// heedDirectory compares the directory if it differs from what was noted of it.
func (s *session) heedDirectory(ctx context.Context, o offer) error {
	if s.noted(&o) {
		return nil
	}
	return s.compareDirectory(ctx, "")
}

// noted reports whether the directory says what is known of it.
func (s *session) noted(o *offer) bool {
	return o != nil && o.Directory != nil && len(s.directory.now().merge(*o.Directory).changes(*o.Directory)) == 0
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

// compareDirectory notes what the directory says, and announces a change, once in a
// cluster. What was never noted is taken for the deployed dialect: nothing else stands in
// DNS then. An announcement that fails is tried again with the next comparison.
func (s *session) compareDirectory(ctx context.Context, accountURL string) error {
	already := func() (bool, error) {
		s.iss.mu.Lock()
		defer s.iss.mu.Unlock()
		return accountURL == "" && s.noted(s.iss.offer), nil
	}
	// others wait for the announcement, or they would make it as well
	return s.store.Locked(ctx, "dns_persist_directory_"+s.store.Safe(IssuerKey(s.iss.CA)), already, func() error {
		unsaid, err := s.noteDirectory(ctx, accountURL)
		if err != nil || len(unsaid) == 0 {
			return err
		}
		if err := s.announceChange(ctx, unsaid); err != nil {
			return err
		}
		return s.updateOffer(ctx, func(o *offer) bool {
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
func (s *session) noteDirectory(ctx context.Context, accountURL string) (unsaid []string, err error) {
	err = s.updateOffer(ctx, func(o *offer) bool {
		now := s.directory.now()
		if accountURL != "" {
			now.AccountURLs = map[string]string{s.account.Location: accountURL}
		}
		var changes []string
		if o.Directory != nil {
			now = now.merge(*o.Directory)
			changes = now.changes(*o.Directory)
			now.Unsaid = slices.Clone(o.Directory.Unsaid)
		} else if now.AccountHashPrefix != "" && o.Dialect == record.DialectAccountURL {
			changes = now.changes(directoryTerms{IssuerDomainNames: o.IssuerDomainNames})
		}
		for _, c := range changes {
			if !slices.Contains(now.Unsaid, c) {
				now.Unsaid = append(now.Unsaid, c)
			}
		}
		o.Directory, unsaid = &now, now.Unsaid
		return true
	})
	return unsaid, err
}

// row is a name whose standing value the CA need not take any more.
type row struct {
	identifiers []string
	record      Record
	standing    []string
	neededBy    time.Time
	// kept says that Caddy publishes it by itself.
	kept bool
}

// announceChange says which records have to be published, and until when.
func (s *session) announceChange(ctx context.Context, changes []string) error {
	if err := s.bind(ctx); err != nil {
		return err
	}
	// what is shown for publishing names an account that the CA has confirmed
	if err := s.checkAccount(ctx); err != nil {
		return err
	}
	o, err := s.loadOffer(ctx)
	if err != nil {
		return err
	}
	t, err := s.predict(o)
	if err != nil {
		return err
	}
	rows, err := s.outdated(ctx, t, o)
	if err != nil {
		return err
	}
	s.logger.Warn("the CA has changed what records have to say; standing ones are used until it refuses them, but publish the new ones before the certificates need them",
		zap.String("ca", s.iss.CA), zap.Strings("changes", changes), zap.Int("records", len(rows)))
	for i, r := range rows {
		if i == rowsSaid {
			s.logger.Warn("further records have to be published as well", zap.String("ca", s.iss.CA), zap.Int("records", len(rows)-rowsSaid))
			break
		}
		message := "publish this TXT record beside the standing one before the certificate is renewed"
		if r.kept {
			message = "this TXT record will be published beside the standing one, within a day"
		}
		s.logger.Warn(message,
			zap.String("name", r.record.Place()), zap.String("type", "TXT"), zap.String("value", r.record.Value), zap.String("zone_line", r.record.ZoneLine()),
			zap.Strings("standing_values", foreign.Values(r.standing)), zap.Strings("identifiers", r.identifiers),
			zap.Int("days_left", int(time.Until(r.neededBy).Hours()/24)), zap.Time("needed_by", r.neededBy), zap.String("ca", s.iss.CA))
	}
	return nil
}

// outdated lists the names whose standing values are not what the CA asks for now, the
// most urgent first.
func (s *session) outdated(ctx context.Context, t terms, o offer) ([]row, error) {
	states, err := s.store.Names(ctx)
	if err != nil {
		return nil, err
	}
	var rows []row
	serving := s.iss.serving()
	for _, n := range states {
		if ctx.Err() != nil {
			break
		}
		if len(n.Accepted) == 0 {
			continue // nothing stands, as far as is known
		}
		if n.Identifiers = renewed(ctx, n.Identifiers, serving); len(n.Identifiers) == 0 {
			continue // nobody renews it any more
		}
		identifier := strictest(n.Identifiers)
		at, t := *s, t
		at.iss = serving(identifier)
		if at.iss != s.iss { // with options of its own
			if t, err = at.predict(o); err != nil {
				continue
			}
		}
		w, err := at.want(ctx, identifier, t)
		if err != nil {
			continue // it is said when its certificate is due
		}
		r := row{identifiers: n.Identifiers, record: w.record, kept: at.iss.keeps()}
		for _, a := range n.Accepted {
			r.standing = append(r.standing, a.Value)
		}
		if record.Evaluate(r.standing, w.want, time.Now()).Good() {
			continue
		}
		if err := at.refine(&w, r.standing, n, offer{}); err == nil {
			r.record = w.record
		}
		for _, id := range n.Identifiers {
			cert := StoredCertificate(ctx, s.iss.Storage, IssuerKey(s.iss.CA), id)
			if cert == nil {
				continue
			}
			life := cert.NotAfter.Sub(cert.NotBefore)
			due := cert.NotAfter.Add(-time.Duration(float64(life) * s.iss.windowRatio()))
			if r.neededBy.IsZero() || due.Before(r.neededBy) {
				r.neededBy = due
			}
		}
		if !r.neededBy.IsZero() {
			rows = append(rows, r)
		}
	}
	if ctx.Err() != nil { // some may be missing
		return nil, fmt.Errorf("listing the records that a change is about: %w", context.Cause(ctx))
	}
	sort.Slice(rows, func(i, j int) bool { return rows[i].neededBy.Before(rows[j].neededBy) })
	return rows, nil
}
