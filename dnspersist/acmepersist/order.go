package acmepersist

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/site"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

// keptOrder returns the order that is kept for the name, if it is of this account and profile.
func (s *session) keptOrder(ctx context.Context, name string) (kept state.Order, found bool, err error) {
	kept, found, err = s.store.Order(ctx, name)
	return kept, found && kept.Account == s.account.URL && kept.Profile == s.iss.Profile, err
}

// storageTrusted is how long a storage that has taken an order is trusted to take others.
const storageTrusted = time.Minute

// keptOrNewOrder returns the kept order of the domain, or makes one. Where the storage has taken none lately, that one
// is to be made is noted first: a storage that takes nothing would cost an order at each attempt.
func (a *attempt) keptOrNewOrder(ctx context.Context) (acme.Order, error) {
	order, kept, err := a.usableOrder(ctx, a.domain)
	if a.kept = kept; err != nil || kept.URL != "" {
		return order, err
	}
	key := a.store.OrderKey(a.domain)
	kept = state.Order{Account: a.account.URL, Profile: a.iss.Profile, At: walltime.Now().UTC()}
	isNoted := time.Since(time.Unix(0, a.iss.keptOrderAt.Load())) > storageTrusted
	if isNoted {
		if err := a.store.Save(ctx, key, kept); err != nil {
			return acme.Order{}, fmt.Errorf("no order was made, for it could not be kept: %w", err)
		}
	}
	order, err = a.newOrder(ctx, a.domain)
	if err != nil {
		if !isNoted {
			return acme.Order{}, err
		}
		if removeErr := a.store.Remove(ctx, key); removeErr != nil {
			a.logger.Warn("the note of an order that was not made stays in storage", zap.String("storage_key", key), zap.Error(removeErr))
		}
		return acme.Order{}, err
	}
	kept.URL, a.hasKept = order.Location, true
	if err := a.store.Save(ctx, key, kept); err != nil {
		a.iss.keptOrderAt.Store(0)
		a.logger.Warn("the order could not be kept; if this attempt fails, another one is made",
			zap.String("domain", a.domain), zap.String("order", order.Location), zap.Error(err))
		return order, nil
	}
	a.iss.keptOrderAt.Store(time.Now().UnixNano())
	a.kept = kept
	return order, nil
}

// usableOrder returns the kept order for the name, if there is one that can be gone on with, as the CA and as storage has it: else
// the latter is zero.
func (s *session) usableOrder(ctx context.Context, name string) (acme.Order, state.Order, error) {
	kept, found, err := s.keptOrder(ctx, name)
	if err != nil || !found {
		return acme.Order{}, state.Order{}, err
	}
	order, usable, err := s.resume(ctx, kept)
	if !usable {
		kept = state.Order{}
	}
	return order, kept, err
}

// resume reads a kept order. After it was finalized it belongs to one private key, and is of
// use only if that is the one of this attempt: CertMagic keeps a key only if it is told to.
func (s *session) resume(ctx context.Context, kept state.Order) (acme.Order, bool, error) {
	order, err := s.readOrder(ctx, acme.Order{Location: kept.URL})
	var problem acme.Problem
	if errors.As(err, &problem) && !ca.IsProblem(err, "accountDoesNotExist") && !s.IsBusy() {
		// the CA has forgotten the order, or it is another account's
		return order, false, nil
	}
	if err != nil {
		return order, false, s.account.Problem(ctx, err)
	}
	fresh := order.Expires.IsZero() || walltime.Until(order.Expires) > time.Minute
	switch order.Status {
	case acme.StatusPending, acme.StatusReady:
		return order, fresh, nil
	case acme.StatusProcessing, acme.StatusValid:
		ours := kept.FinalizedFor != "" && kept.FinalizedFor == s.requestKey && walltime.Since(kept.FinalizedAt).Abs() < downloadPatience
		return order, ours, nil
	}
	return order, false, nil
}

func (s *session) readOrder(ctx context.Context, order acme.Order) (acme.Order, error) {
	err := s.account.Do(ctx, "reading the order", func(account acme.Account) (err error) {
		fresh, err := s.ACME.GetOrder(ctx, account, acme.Order{Location: order.Location})
		if err == nil {
			order = fresh
		}
		return err
	})
	return order, err
}

func (s *session) newOrder(ctx context.Context, name string) (acme.Order, error) {
	order := acme.Order{Profile: s.iss.Profile, Identifiers: []acme.Identifier{{Type: "dns", Value: name}}}
	if s.iss.CertificateLifetime > 0 {
		notAfter := walltime.Now().Add(s.iss.CertificateLifetime)
		order.NotAfter = &notAfter
	}
	if s.Directory.RenewalInfo != "" {
		order.Replaces = s.replaces(ctx, name)
	}
	if err := s.CheckLimits(ctx, s.account.URL, name); err != nil {
		return order, err
	}
	lane := s.lane
	if lane == nil { // to learn what the CA offers, or for a command
		var err error
		r := s.laneRequest(name)
		r.IsPatient = true
		if lane, err = s.iss.Lanes.Enter(ctx, r); err != nil {
			return order, err
		}
		defer lane.Leave()
		// another name may have learnt of a limit meanwhile
		if err := s.CheckLimits(ctx, s.account.URL, name); err != nil {
			return order, err
		}
	}
	lane.Order()
	retries := ca.MaxRetries
	if order.Replaces != "" {
		retries = 1 // some CAs fail over what they do not like about it
	}
	made, err := s.postOrder(ctx, order, retries)
	var problem acme.Problem
	if order.Replaces != "" && errors.As(err, &problem) && !ca.IsProblem(err, "rateLimited", "accountDoesNotExist") && !ca.IsRateLimited(err) {
		// what a CA says to `replaces` differs a lot, and none of it is worth a certificate
		s.logger.Info("the CA refused the order with replaces; ordering without it",
			zap.String("domain", name), zap.String("replaces", order.Replaces), zap.Error(err))
		order.Replaces = ""
		made, err = s.postOrder(ctx, order, ca.MaxRetries)
	}
	s.iss.Observer.Happened(orderEvent(err))
	if err != nil {
		return made, s.NoteLimit(ctx, s.account.URL, name, s.account.Problem(ctx, err))
	}
	if made.Location == "" {
		return made, errors.New("making the order: the CA answered without the order's URL")
	}
	s.ForgetLimit(ctx, name)
	return made, nil
}

func (s *session) postOrder(ctx context.Context, order acme.Order, retries int) (made acme.Order, err error) {
	err = s.account.DoUpTo(ctx, ca.StepOrder, retries, func(account acme.Account) (err error) {
		made, err = s.ACME.NewOrder(ctx, account, order)
		return err
	})
	return made, err
}

// replaces returns the ARI identifier (RFC 9773 section 5) of the certificate in
// storage that this order renews. Only one that this CA issued to this account
// may be named.
func (s *session) replaces(ctx context.Context, name string) string {
	key := IssuerKey(s.iss.CA)
	meta, err := s.store.Storage.Load(ctx, certmagic.StorageKeys.SiteMeta(key, name))
	if err != nil {
		return ""
	}
	var resource struct {
		IssuerData acme.Certificate `json:"issuer_data"`
	}
	if json.Unmarshal(meta, &resource) != nil || resource.IssuerData.CA != s.iss.CA || resource.IssuerData.Account != s.account.URL {
		return ""
	}
	leaf := StoredCertificate(ctx, s.store.Storage, key, name)
	if leaf == nil {
		return ""
	}
	id, err := acme.ARIUniqueIdentifier(leaf)
	if err != nil {
		return ""
	}
	return id
}

// StoredCertificate returns the certificate that CertMagic keeps in storage for a name
// under an issuer's key, nil if there is none that can be read.
func StoredCertificate(ctx context.Context, storage certmagic.Storage, issuerKey, name string) *x509.Certificate {
	chain, err := storage.Load(ctx, certmagic.StorageKeys.SiteCert(issuerKey, name))
	if err != nil {
		return nil
	}
	block, _ := pem.Decode(chain)
	if block == nil {
		return nil
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil
	}
	return leaf
}

// resumeOrder goes on with the kept order of the domain if the CA is at work on it, or has decided
// meanwhile: then what DNS shows now is not for us to judge.
func (a *attempt) resumeOrder(ctx context.Context) error {
	a.facts.order = new(orderFacts)
	kept, found, err := a.keptOrder(ctx, a.domain)
	a.hasKept = found && kept.URL != ""
	if err != nil || !found || kept.PostedAt.IsZero() {
		return err
	}
	order, usable, err := a.resume(ctx, kept)
	switch {
	case err != nil:
		return err
	case usable && order.Status != acme.StatusPending:
		// an order that is ready, or more, has all that DNS could give it
		a.takeUp(ctx, kept, order, orderValid)
		return nil
	case !usable && order.Status != acme.StatusInvalid:
		return nil
	}
	authzs, err := a.authorizations(ctx, order)
	if err != nil {
		var problem acme.Problem
		if order.Status == acme.StatusInvalid && errors.As(err, &problem) && !ca.IsProblem(err, "accountDoesNotExist") && !ca.IsRateLimited(err) && !a.IsBusy() {
			return nil // the CA no longer tells why, and another order may do
		}
		return err
	}
	for _, authz := range authzs {
		a.authz = authz
		switch authz.Status {
		case acme.StatusValid:
			if order.Status != acme.StatusInvalid { // else another order is made
				a.takeUp(ctx, kept, order, orderValid)
			}
		case acme.StatusInvalid:
			// its answer is not lost because nobody waited for it
			a.takeUp(ctx, kept, order, orderRefused)
			return a.takeRefusal(ctx)
		case acme.StatusPending:
			c, is := ca.FindChallenge(authz)
			if !is || c.Status == acme.StatusPending && !a.isPosted(kept, c.URL) {
				return nil
			}
			a.takeUp(ctx, kept, order, orderPosted)
			a.taken, a.facts.order.postedAt = true, kept.PostedAt
			a.logger.Debug("going on with the order that the CA is validating",
				zap.String("domain", a.domain), zap.String("order", order.Location))
		}
	}
	return nil
}

// takeUp goes on with an order. What was looked for is worked out anew, as far as that can be done.
func (a *attempt) takeUp(ctx context.Context, kept state.Order, order acme.Order, stage orderStage) {
	a.order, a.kept, a.resumed, a.facts.order.stage = order, kept, true, stage
	if kept.Seen != nil {
		a.facts.report, a.facts.lookedAt = kept.Seen, walltime.Now()
	}
	var (
		t   ca.Terms
		err = errors.New("nothing is known of what the CA wants to see")
	)
	if c, ok, challengeErr := a.Challenge(ctx, a.authz, a.account.Identity); ok && challengeErr == nil {
		a.challenge, t, err = c, c.Terms, nil
	} else if a.HasTerms(a.offer) {
		t, err = a.Terms(a.offer)
	}
	if err == nil {
		a.site, err = a.session.site(ctx, a.domain, t)
	}
	if err != nil {
		a.logger.Debug("what the CA was asked for is not known any more", zap.String("domain", a.domain), zap.Error(err))
	}
}

// isPosted reports whether the CA has taken a post of the challenge that it may still be at
// work on: some CAs leave it pending meanwhile.
func (s *session) isPosted(kept state.Order, challenge string) bool {
	return kept.Challenge == challenge && walltime.Since(kept.PostedAt) < s.iss.Timeout
}

// notePost keeps with the order that the CA has taken the post of the challenge, and what DNS
// showed before it.
func (a *attempt) notePost(ctx context.Context) error {
	if !a.taken || a.resumed {
		return nil
	}
	if a.kept.URL != "" && a.kept.Challenge == a.challenge.URL {
		a.facts.order.postedAt = a.kept.PostedAt
		return nil
	}
	return a.keep(ctx, func(*state.Order) {})
}

// keep changes the order in storage, and notes with it that the CA was asked to validate if that is not noted yet. One
// that could not be kept before is not kept now.
func (a *attempt) keep(ctx context.Context, change func(*state.Order)) error {
	if a.kept.URL == "" {
		return nil
	}
	kept := a.kept
	if a.taken && !a.resumed && kept.Challenge != a.challenge.URL {
		kept.Challenge, kept.PostedAt = a.challenge.URL, a.facts.order.postedAt
		if a.facts.report != nil {
			seen := digested(a.facts.report.Shortened(site.Weigh(a.site.Want)))
			kept.Seen = &seen
		}
	}
	change(&kept)
	if err := a.store.Save(ctx, a.store.OrderKey(a.domain), kept); err != nil {
		return err
	}
	a.kept = kept
	return nil
}

// digested is what the CA's word will be held against, and no more.
func digested(r propagation.Report) propagation.Report {
	short := propagation.Report{Name: r.Name, Zone: r.Zone, Mode: r.Mode, Status: r.Status, When: r.When, Values: r.Values}
	for _, s := range r.Servers {
		short.Servers = append(short.Servers, propagation.ServerReport{
			Zone: s.Zone, Name: s.Name, Host: s.Host, Verdict: s.Verdict, TTL: s.TTL, NegativeTTL: s.NegativeTTL,
		})
	}
	return short
}
