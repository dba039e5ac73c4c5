package acmepersist

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/site"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

// Answers of a Probe.
const (
	OfferedYes     = "yes"
	OfferedNo      = "no"
	OfferedUnknown = "unknown" // only an order can tell
)

// Probe is what a CA says of the challenge.
type Probe struct {
	CA string `json:"ca"`
	// Offered is one of the Offered constants, By what says so: "directory", "order", or
	// "earlier order".
	Offered string `json:"offered"`
	By      string `json:"by"`
	// Dialect, IssuerDomainNames and AccountHashPrefix are what records are made of.
	Dialect           record.Dialect `json:"dialect,omitempty"`
	IssuerDomainNames []string       `json:"issuer_domain_names,omitempty"`
	AccountHashPrefix string         `json:"account_hash_prefix,omitempty"`
	// OtherChallenges are what the CA offered in its place.
	OtherChallenges         []string          `json:"other_challenges,omitempty"`
	CAAIdentities           []string          `json:"caa_identities,omitempty"`
	ExternalAccountRequired bool              `json:"external_account_required"`
	TermsOfService          string            `json:"terms_of_service,omitempty"`
	Profiles                map[string]string `json:"profiles,omitempty"`
	RenewalInfo             bool              `json:"renewal_info"`
	// Known is what is publicly known, where the CA itself does not tell; nil if nothing is.
	Known *KnownCA `json:"known,omitempty"`
	// Problem is why the CA does not answer now, where what is known of it is from before; empty if it does.
	Problem string `json:"problem,omitempty"`
	// Note says what to do, if there is something.
	Note string `json:"note,omitempty"`
}

// KnownCA is what is publicly known of a CA whose directory does not say whether it offers the
// challenge.
type KnownCA struct {
	CA   string `json:"-"` // directory URL
	Name string `json:"name"`
	// Offered is OfferedYes or OfferedNo, Seen says when, and by what, that was known.
	Offered string `json:"offered"`
	Seen    string `json:"seen"`
}

// KnownCAs returns what is publicly known. The README has it too, and a test holds the two together.
func KnownCAs() []KnownCA {
	return []KnownCA{
		{"https://acme-staging-v02.api.letsencrypt.org/directory", "Let's Encrypt staging", OfferedYes, "since March 2026"},
		{"https://acme-v02.api.letsencrypt.org/directory", "Let's Encrypt production", OfferedNo, "November 2026"},
		{"https://dv.acme-v02.api.pki.goog/directory", "Google Trust Services", OfferedYes, "its announcement of September 2026"},
	}
}

// Probe tells what the directory says of the challenge, and what an earlier order has
// shown. The CA is asked for its directory only, and always: whoever probes wants to know whether it answers.
func (iss *Issuer) Probe(ctx context.Context) (Probe, error) {
	began := time.Now()
	s, err := iss.open(ctx)
	if err != nil {
		return Probe{}, err
	}
	o, err := s.iss.ca.LoadOffer(ctx)
	if err != nil {
		return Probe{}, err
	}
	p, err := s.probe(o)
	if err == nil && s.Directory.Fetched.Before(began) {
		if silent := iss.ca.Ask(ctx); silent != nil {
			p.Problem = "the CA does not answer now, and the rest is what it has said before: " + foreign.Error(silent).Error()
		}
	}
	return p, err
}

func (s *session) probe(o ca.Offer) (Probe, error) {
	meta := s.Directory.Meta
	p := Probe{
		CA: s.iss.CA, Offered: OfferedUnknown, By: "directory", AccountHashPrefix: meta.Prefix(),
		CAAIdentities: meta.CAAIdentities, ExternalAccountRequired: meta.ExternalAccountRequired,
		TermsOfService: meta.TermsOfService, Profiles: meta.Profiles, RenewalInfo: s.Directory.RenewalInfo != "",
	}
	t, err := s.Terms(o)
	if err != nil {
		return p, err
	}
	p.IssuerDomainNames = t.Names
	switch {
	case s.Directory.HasTerms():
		p.Offered, p.Dialect = OfferedYes, t.Dialect
	case o.IsYes():
		p.Offered, p.By, p.Dialect = OfferedYes, "earlier order", t.Dialect
	case o.Offered != nil:
		p.Offered, p.By, p.OtherChallenges = OfferedNo, "earlier order", o.OtherTypes
		p.Note = fmt.Sprintf("an order of %s showed that the CA does not offer it; probe again with --order NAME", o.SeenAt.Format("2006-01-02"))
	default:
		p.Note = "the directory does not say whether the CA offers dns-persist-01, as CAs of drafts -00 and -01 need not: only an order can tell, probe with --order NAME"
		for _, known := range KnownCAs() {
			if known.CA == p.CA {
				p.Known = &known
			}
		}
	}
	p.Note = joinNotes(p.Note, s.UnlistedIssuer())
	if meta.ExternalAccountRequired && s.iss.ExternalAccount == nil {
		p.Note = joinNotes(p.Note, "the CA wants an external account binding: set eab")
	}
	return p, nil
}

// ProbeByOrder makes an order for a name to see which challenges the CA offers, with the
// bound account. Nothing is validated. An order that is kept for the name is read instead;
// a new one is thrown away.
func (iss *Issuer) ProbeByOrder(ctx context.Context, name string) (Probe, error) {
	id, err := record.Normalize(name)
	if err != nil {
		return Probe{}, &site.UnsupportedNameError{Name: name, Err: err}
	}
	s, err := openKnown(ctx, iss)
	if err != nil {
		return Probe{}, err
	}
	if s == nil {
		_, err := iss.accounts.MustKnow(ctx)
		return Probe{}, fmt.Errorf("an order needs an account: %w", err)
	}
	order, kept, err := s.usableOrder(ctx, id)
	if err == nil && kept.URL == "" {
		order, err = s.newOrder(ctx, id)
	}
	if err != nil {
		return Probe{}, err
	}
	authzs, err := s.authorizations(ctx, order)
	if err != nil {
		return Probe{}, err
	}
	if len(authzs) == 0 {
		return Probe{}, errors.New("probing by an order: the CA's order has no authorization")
	}
	o, err := s.iss.ca.LoadOffer(ctx)
	if err != nil {
		return Probe{}, err
	}
	p, err := s.probe(o)
	if err != nil {
		return p, err
	}
	switch authzs[0].Status {
	case acme.StatusPending:
		p.By = "order"
		if p.Offered == OfferedNo {
			p.Note = "no record in DNS can change that: use another CA, or another challenge"
		}
	default:
		p.Note = joinNotes(p.Note, fmt.Sprintf("the CA has validated %s before and shows no other challenges while that lasts: probe with another name", id))
	}
	if kept.URL == "" && authzs[0].Status == acme.StatusPending {
		// it would count against the CA's limit of pending ones
		if _, _, err := s.account.Once("deactivating the authorization", func(account acme.Account) error {
			_, err := s.ACME.DeactivateAuthorization(ctx, account, authzs[0].Location)
			return err
		}); err != nil {
			p.Note = joinNotes(p.Note, "the order could not be thrown away and ends by itself")
		}
	}
	return p, nil
}

func joinNotes(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}

// Asked is the CA's own word on a name.
type Asked struct {
	Identifier string `json:"identifier"`
	CA         string `json:"ca"`
	// Valid is true if the CA has accepted the name. Earlier says that it had done so
	// before, and looked at no record now.
	Valid   bool `json:"valid"`
	Earlier bool `json:"earlier,omitempty"`
	// Until is when its authorization ends.
	Until time.Time `json:"until,omitzero"`
	// Error is what it said if it has not.
	Error string `json:"error,omitempty"`
}

// Ask lets the CA validate one name: one order, that is not finalized. It is kept, so that
// the certificate, if one is due, costs no further one. Whatever DNS shows the CA is asked,
// and its no counts as every other. An error means that it could not be asked.
func (iss *Issuer) Ask(ctx context.Context, name string) (Asked, error) {
	id, err := record.Normalize(name)
	if err != nil {
		return Asked{}, &site.UnsupportedNameError{Name: name, Err: err}
	}
	said := Asked{Identifier: id, CA: iss.CA}
	s, o, _, err := openToTell(ctx, iss)
	if err != nil {
		return said, err
	}
	a := &attempt{session: s, domain: id, offer: o, request: Request{Progress: func(Phase) {}}}
	a.facts = facts{order: new(orderFacts), looks: iss.Checker != nil, bound: true, confirmed: true}
	if a.facts.name, err = s.store.Name(ctx, record.Label+"."+record.Base(id)); err != nil {
		return said, err
	}
	if a.order, err = a.keptOrNewOrder(ctx); err != nil {
		return said, err
	}
	authzs, err := a.authorizations(ctx, a.order)
	if err != nil {
		return said, err
	}
	for _, a.authz = range authzs {
		switch a.authz.Status {
		case acme.StatusValid:
			said.Valid, said.Earlier, said.Until = true, true, a.authz.Expires
		case acme.StatusPending:
			err = askNow(ctx, a)
		default:
			err = fmt.Errorf("asking the CA about %s: the authorization is %s; try again, another order will be made", id, a.authz.Status)
		}
		switch {
		case err != nil:
			return said, err
		case a.refusal != nil:
			said.Error = a.refusal.Error()
		case !said.Earlier:
			said.Valid, said.Until = true, a.authz.Expires
		}
	}
	return said, nil
}

// askNow has a pending authorization validated, whatever DNS shows. A no of the CA is the attempt's refusal.
func askNow(ctx context.Context, a *attempt) error {
	c, ok, err := a.Challenge(ctx, a.authz, a.account.Identity)
	if err != nil {
		return err
	}
	if !ok {
		return a.notOffered(ctx)
	}
	a.challenge = c
	if a.site, err = a.session.site(ctx, a.domain, c.Terms); err != nil {
		return err
	}
	if a.iss.Checker != nil {
		gate := propagation.NewGate(a.iss.Grace, a.iss.Settle)
		report := gate.Observe(a.iss.Checker.Look(ctx, a.site.Target()))
		a.facts.report = &report
	}
	if c.Status == acme.StatusPending {
		change := change{attempt: walltime.Now().UTC()}
		if err := a.note(ctx, change); err != nil {
			return err
		}
		if err := a.askToValidate(ctx, change.attempt); err != nil {
			return err
		}
	} else {
		a.taken, a.facts.order.postedAt = true, walltime.Now().UTC()
	}
	if err := a.awaitValidation(ctx); err != nil {
		return err
	}
	if a.facts.order.stage == orderProcessing {
		s, _ := decide(a.facts, walltime.Now())
		return a.holdAt(ctx, s)
	}
	if a.refusal == nil {
		return a.notePost(ctx) // the order is finished by another attempt
	}
	return nil
}
