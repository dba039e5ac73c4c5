package acmepersist

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/account"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

// fetchCertificate finalizes the order and fetches its certificate.
func (a *attempt) fetchCertificate(ctx context.Context, csr *x509.CertificateRequest) (cert *certmagic.IssuedCertificate, err error) {
	switch a.order.Status {
	case acme.StatusPending:
		a.order.Status = acme.StatusReady // for its authorizations are valid, and a CA that is not as far reports that
	case acme.StatusInvalid:
		if a.order, err = a.readReady(ctx, a.order); err != nil {
			return nil, a.orNoted(ctx, err)
		}
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("finalizing the order: %w", context.Cause(ctx))
	}
	ctx, done := finish(ctx, finishFor)
	defer done()
	if err := a.noteFinalize(ctx); err != nil {
		return nil, err
	}
	if a.order, err = a.finalize(ctx, a.order, csr); err != nil {
		if a.order.Status == acme.StatusInvalid {
			err = errors.Join(err, a.store.Remove(ctx, a.store.OrderKey(a.domain)))
		}
		if ca.IsProblem(err, "caa") { // then the next attempt asks for the CAA records anew
			refusal := err
			err = errors.Join(err, a.store.UpdateName(ctx, a.facts.name.Name, func(n *state.Name) bool {
				n.Answered(refusal, walltime.Now())
				return true
			}))
		}
		return nil, fmt.Errorf("finalizing the order: %w", err)
	}
	if cert, err = a.download(ctx, a.order); err != nil {
		return nil, err
	}
	leaf, err := ca.Leaf(cert.Certificate)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate from the CA: %w", err)
	}
	if !bytes.Equal(leaf.RawSubjectPublicKeyInfo, csr.RawSubjectPublicKeyInfo) {
		return nil, errors.Join(errOvertaken, a.store.Remove(ctx, a.store.OrderKey(a.domain)))
	}
	if since := a.facts.completeSince(); !since.IsZero() {
		a.iss.Observer.Issued(time.Since(since))
	}
	if a.resumed {
		// the CA's answer came while nobody looked
		if err := a.remember(ctx); err != nil {
			a.logger.Warn("the attempts of a finished order stay counted", zap.String("domain", a.domain), zap.Error(err))
		}
	}
	if a.site != nil {
		a.site.warnOfExpiry(ctx, leaf.NotAfter.Sub(leaf.NotBefore))
	}
	if err := a.store.Remove(ctx, a.store.OrderKey(a.domain)); err != nil {
		a.logger.Warn("the finished order stays in storage", zap.String("domain", a.domain), zap.Error(err))
	}
	return cert, nil
}

// readReady waits until the order has seen that its authorizations are valid.
func (s *session) readReady(ctx context.Context, order acme.Order) (acme.Order, error) {
	began := time.Now()
	for looks := 0; time.Since(began) < readyPatience; looks++ {
		var err error
		if order, err = s.readOrder(ctx, order); err != nil {
			return order, err
		}
		if order.Status != acme.StatusPending {
			return order, nil
		}
		if err := ca.Sleep(ctx, s.Interval(looks)); err != nil {
			return order, err
		}
	}
	return order, errors.New("all authorizations are valid, but the order stays pending: this is the CA's fault")
}

// finalize sends the CSR and returns the order as soon as it is valid. Unless that is what
// the CA answers, the order itself is read at once: the answer may have been cut
// off after the CA has issued, or a failure may have ended the order.
func (s *session) finalize(ctx context.Context, order acme.Order, csr *x509.CertificateRequest) (acme.Order, error) {
	var sent finalizing
	patience := min(s.iss.Timeout, finalizePatience)
	deadline := time.Now().Add(patience)
	s.LockName = csrName(csr)
	began := time.Now()
	for looks := 0; ; looks++ {
		if order.Status == acme.StatusReady && (sent.times == 0 || time.Now().Before(deadline)) {
			if err := s.sendCSR(ctx, order, csr, &sent); err != nil {
				return order, err
			}
		}
		// from here on there may be a certificate, for a key that nobody else has
		s.PersistUntil = deadline
		read := s.readOrder
		if sent.early {
			read = s.readReady
		}
		var err error
		if sent.isDone() {
			order = sent.order
		} else if order, err = read(ctx, order); err != nil {
			return order, err
		}
		switch {
		case order.Status == acme.StatusValid:
			return order, nil
		case order.Status == acme.StatusReady && sent.early:
			sent.early = false
			continue
		case order.Status == acme.StatusInvalid:
			return order, invalidOrder(order, sent.answer)
		case order.Status == acme.StatusReady && (ca.IsRateLimited(sent.answer) || sent.refusals > 1):
			return order, sent.answer // twice, for once it may be one frontend's word
		case time.Now().After(deadline) && sent.answer != nil:
			return order, fmt.Errorf("it is still %s after %s: the CA last answered: %w", order.Status, patience, sent.answer)
		case time.Now().After(deadline):
			return order, fmt.Errorf("it is still %s after %s", order.Status, patience)
		}
		if s.lane != nil && time.Since(began) > ca.LaneHold {
			s.lane.Leave() // for good: the certificate is one more request, and may be lost if it has to wait
		}
		s.KeepLock(ctx, s.LockName)
		if err := ca.Sleep(ctx, max(s.Interval(looks), time.Until(sent.next))); err != nil {
			return order, err
		}
	}
}

// finalizing is what has come of sending the CSR.
type finalizing struct {
	times, refusals int
	early           bool       // it was sent for the first time, and the order was not ready yet
	order           acme.Order // by the last answer
	answer          error      // what is wrong with it
	next            time.Time  // when it may be sent again
}

// isDone reports whether the CA has answered with the certificate.
func (f *finalizing) isDone() bool {
	return f.times > 0 && f.answer == nil && f.order.Status == acme.StatusValid && f.order.Certificate != ""
}

// sendCSR asks the CA to finalize. An error means that it never will.
func (s *session) sendCSR(ctx context.Context, order acme.Order, csr *x509.CertificateRequest, sent *finalizing) error {
	status, wait, err := s.account.Once("finalizing the order", func(account acme.Account) (err error) {
		sent.order, err = s.ACME.FinalizeOrder(ctx, account, order, csr.Raw)
		return err
	})
	sent.answer, sent.times = err, sent.times+1
	// acmez does not pass on that the order is not ready
	sent.early = sent.times == 1 && status == http.StatusForbidden && !errors.As(err, new(acme.Problem))
	switch {
	case err == nil, sent.early:
	case s.IsBusy() && s.IsLimited(err, wait, sent.times-1):
		sent.answer = s.RateLimit(err, wait)
	case s.IsBusy() || status == 0:
		sent.next = time.Now().Add(max(wait, ca.MinInterval))
	case ca.IsProblem(err, "badCSR"):
		return err
	case status >= 400 && !ca.IsProblem(err, "orderNotReady"):
		sent.refusals++
	}
	if status == 0 || status >= 400 && !sent.early { // without, acmez means that the CA has not finished yet
		s.logger.Warn("the CA did not take the request to finalize; reading what has become of the order",
			zap.String("domain", s.LockName), zap.Int("status", status), zap.Error(err))
	}
	return nil
}

// invalidOrder says why an order came to nothing, where said is what the CA answered last.
func invalidOrder(order acme.Order, said error) error {
	var reason error = errors.New("without a reason")
	switch {
	case order.Error != nil:
		reason = *order.Error
	case said != nil:
		reason = said
	}
	if ca.IsProblem(reason, "serverInternal") {
		return fmt.Errorf("a fault inside the CA has ended the order, which says nothing of the records; another one will be made: %w", reason)
	}
	return fmt.Errorf("the CA refused it: %w", reason)
}

// csrName is the name under which CertMagic holds its lock for a request.
func csrName(csr *x509.CertificateRequest) string {
	if len(csr.DNSNames) > 0 {
		return csr.DNSNames[0]
	}
	return csr.Subject.CommonName
}

const (
	// readyPatience is how long an order may lag behind its authorizations.
	readyPatience = 10 * time.Second
	// finalizePatience is how long an attempt waits after finalize: the key is known to
	// this attempt alone, so nothing can wait in its place.
	finalizePatience = 10 * time.Minute
	// downloadPatience is how long a certificate that was issued is fetched: to give up costs
	// another one, of the few that CAs issue for the same names in a week.
	downloadPatience = 24 * time.Hour
	// refusedPatience is how long it is fetched while the CA says that it has none.
	refusedPatience = 10 * time.Minute
	// finishFor is how long an attempt that has asked the CA to finalize goes on after it was
	// cancelled, by a reload for instance.
	finishFor = 5 * time.Second
)

// download fetches the certificate and chooses the chain, with more patience than anything else.
func (s *session) download(ctx context.Context, order acme.Order) (*certmagic.IssuedCertificate, error) {
	began := time.Now()
	s.PersistUntil = began.Add(downloadPatience)
	var chains []acme.Certificate
	for interval := ca.MinInterval; ; interval = min(2*interval, time.Minute) {
		err := s.account.Do(ctx, "downloading the certificate", func(account acme.Account) (err error) {
			chains, err = s.ACME.GetCertificateChain(ctx, account, order.Certificate)
			return err
		})
		if err == nil && len(chains) > 0 {
			break
		}
		if err == nil {
			err = errors.New("downloading the certificate: the CA returned no chain")
		}
		var changed *account.KeyChangedError
		if errors.As(err, &changed) && s.account.Bind(ctx) == nil {
			continue
		}
		// frontends of a CA may not have it yet
		if ctx.Err() != nil || time.Since(began) > refusedPatience {
			return nil, err
		}
		s.logger.Warn("the CA does not hand out the certificate that it has issued; asking again",
			zap.String("domain", s.LockName), zap.String("certificate", order.Certificate), zap.Error(err))
		if restErr := s.Rest(ctx, interval); restErr != nil {
			return nil, errors.Join(err, restErr)
		}
	}
	chosen := ca.PreferredChain(chains, s.iss.PreferredChains)
	chosen.CA = s.iss.CA // without the fragment of our directory copy
	return &certmagic.IssuedCertificate{Certificate: chosen.ChainPEM, Metadata: chosen}, nil
}

// keyOf identifies the public key of a CSR.
func keyOf(csr *x509.CertificateRequest) string {
	sum := sha256.Sum256(csr.RawSubjectPublicKeyInfo)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// noteFinalize keeps with the order for which key it is finalized: where the next attempt has
// the same one, it fetches the certificate that this one could not. With the first key the validation that
// was asked for is counted: the note has it counted once, however many attempts come to this. An order that
// is no longer kept is another process's who has finished it; one that could not be kept is kept now. While storage does
// not answer nothing is finalized, for CertMagic could not store what comes of it.
func (a *attempt) noteFinalize(ctx context.Context) error {
	kept, found, err := a.keptOrder(ctx, a.domain)
	if err != nil {
		return fmt.Errorf("the order is not finalized while it cannot be noted: %w", err)
	}
	switch {
	case found && kept.URL == a.order.Location:
	case a.kept.URL != "":
		return errOvertaken
	default: // it could not be kept when it was made
		if err := a.checkOvertaken(ctx); err != nil {
			return err
		}
		kept = state.Order{URL: a.order.Location, Account: a.account.URL, Profile: a.iss.Profile, At: walltime.Now().UTC()}
	}
	a.kept = kept
	if wasAsked := !a.facts.order.postedAt.IsZero() || !kept.PostedAt.IsZero(); wasAsked && kept.FinalizedAt.IsZero() {
		a.iss.Observer.Happened(EventValid)
	}
	if kept.FinalizedFor == a.requestKey {
		return nil
	}
	if err := a.keep(ctx, func(kept *state.Order) {
		kept.FinalizedFor, kept.FinalizedAt = a.requestKey, walltime.Now().UTC()
	}); err != nil {
		return fmt.Errorf("the order is not finalized while it cannot be noted: %w", err)
	}
	return nil
}

// errOvertaken is that another process has obtained the certificate, or finished the order with a key of its own.
// CertMagic's lock keeps others away only while it is refreshed, every few seconds: not by a process that stands
// still, nor by one that does not reach its storage, and nobody tells them that they have lost it.
var errOvertaken = errors.New("another process has obtained the certificate meanwhile, for the lock was lost; it is taken from the storage")

// lockLasts is how long a lock of CertMagic's lasts at least that nobody refreshes, in the storages that are known.
const lockLasts = 3 * time.Second

// checkOvertaken looks, before an order is made, whether storage has another certificate than when the attempt
// began. One that is younger than any lock need not look.
func (a *attempt) checkOvertaken(ctx context.Context) error {
	if time.Since(a.began) < lockLasts {
		return nil
	}
	stored := StoredCertificate(ctx, a.iss.Storage, IssuerKey(a.iss.CA), a.domain)
	if stored != nil && !stored.Equal(a.facts.certificate) {
		return errOvertaken
	}
	return nil
}

// finishing is the context key of what is called before an order is finalized.
type finishing struct{}

// OnFinish has fn called when an attempt is about to have a certificate to lose. An attempt with
// a deadline of its own may put it off then.
func OnFinish(ctx context.Context, fn func()) context.Context {
	return context.WithValue(ctx, finishing{}, fn)
}

// finish is a context that goes on for a while after ctx has ended, for what would be thrown
// away otherwise.
func finish(ctx context.Context, while time.Duration) (context.Context, context.CancelFunc) {
	if fn, ok := ctx.Value(finishing{}).(func()); ok {
		fn()
	}
	long, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	var timer *time.Timer
	started := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		timer = time.AfterFunc(while, func() { cancel(context.Cause(ctx)) })
		close(started)
	})
	return long, func() {
		if !stop() {
			<-started
			timer.Stop()
		}
		cancel(context.Canceled)
	}
}
