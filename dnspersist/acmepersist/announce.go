package acmepersist

import (
	"context"
	"fmt"
	"sort"
	"time"

	"go.uber.org/zap"

	"github.com/mholt/acmez/v3/acme"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
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
	st := iss.ca.Store
	if known, err := st.Load(ctx, st.Key("ca.json"), new(ca.Offer)); err != nil || !known {
		return err
	}
	iss.ca.Expire()
	s, err := iss.openKnown(ctx)
	if err != nil || s == nil {
		return err
	}
	url := ""
	err = s.account.Do(ctx, "looking up the account", func(account acme.Account) error {
		account, err := s.ACME.GetAccount(ctx, account)
		url = account.Location
		return err
	})
	if err != nil {
		return s.account.Problem(ctx, err)
	}
	return s.CompareDirectory(ctx, s.account.URL, url, s.announceChange)
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
	if err := s.account.Bind(ctx); err != nil {
		return err
	}
	// what is shown for publishing names an account that the CA has confirmed
	if err := s.account.Check(ctx); err != nil {
		return err
	}
	o, err := s.iss.ca.LoadOffer(ctx)
	if err != nil {
		return err
	}
	t, err := s.Terms(o)
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
func (s *session) outdated(ctx context.Context, t ca.Terms, o ca.Offer) ([]row, error) {
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
		at.Client = at.iss.ca.At(s.Directory)
		if at.iss != s.iss { // with options of its own
			if t, err = at.Terms(o); err != nil {
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
		if err := at.refine(&w, r.standing, n, ca.Offer{}); err == nil {
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
