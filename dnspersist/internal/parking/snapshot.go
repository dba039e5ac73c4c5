package parking

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// Phase is where a domain is on its way to a certificate.
type Phase string

// Phases of a domain.
const (
	// PhaseWanted: it is managed, and no attempt has come for it yet.
	PhaseWanted Phase = "wanted"
	// PhaseWaiting: its record is missing, wrong, on some servers only, or cannot be looked for.
	PhaseWaiting Phase = "waiting"
	// PhaseHeld: something else is waited for.
	PhaseHeld Phase = "held"
	// PhaseLooking: an attempt looks for the record.
	PhaseLooking Phase = "looking"
	// PhasePublishing: the DNS provider is writing the record.
	PhasePublishing Phase = "publishing"
	// PhaseOrdering: the CA is asked for the certificate.
	PhaseOrdering Phase = "ordering"
	// PhaseProcessing: the CA was asked, and has not decided yet.
	PhaseProcessing Phase = "processing"
	// PhaseFailed: the last attempt has failed with something that is not waited for.
	PhaseFailed Phase = "failed"
	// PhaseServed: there is a certificate, and nothing is waited for.
	PhaseServed Phase = "served"
)

// PhaseOf is where a domain is for a reason.
func PhaseOf(r acmepersist.Reason) Phase {
	switch {
	case r.IsRecord():
		return PhaseWaiting
	case r == acmepersist.ReasonProcessing:
		return PhaseProcessing
	case r == acmepersist.ReasonEnding: // nothing waits for that
		return PhaseServed
	}
	return PhaseHeld
}

// Status is where a domain is with a CA.
type Status struct {
	Domain string
	// CA is the directory URL; empty if it is not known, as for a certificate of another issuer.
	CA    string
	Phase Phase
	// Account is the URL of the account that the record names, if that is known.
	Account string
	// Reason is why it waits, Err the whole story, Record what has to be published.
	Reason acmepersist.Reason
	Err    error
	Record acmepersist.Record
	// Report is what DNS showed last; nil where the wait is not for DNS.
	Report *propagation.Report
	// Misplaced is where else the record was found.
	Misplaced []string
	// Answer is what the CA has last refused the domain with; nil if it has not.
	Answer *acmepersist.Answer
	// Since is since when it waits, or has its certificate, Next when it is tried again at the latest.
	Since, Next time.Time
	// Certificate is the one that is served; zero if there is none.
	Certificate
	// Fault is what the last look at the record of a domain that is served has found wrong, which Reason, Record,
	// Report, LookedAt, Since and Next are then of; nil if nothing.
	Fault *acmepersist.RecordFault
	// LookedAt is when DNS was looked at last; zero where the wait is not for DNS.
	LookedAt time.Time
	// IsOnDemand is true for a domain that a visitor has asked for, and AskedAt when one did so last.
	IsOnDemand bool
	AskedAt    time.Time
	// ForgottenAt is when it is not watched any more unless a visitor asks for it; zero for never.
	ForgottenAt time.Time
	// IsCertMagics is true if CertMagic decides when it is tried again, which is not known, and HasOthers if other
	// issuers of the policy are tried too.
	IsCertMagics, HasOthers bool
	// Issuer is the storage key of the issuer that serves it.
	Issuer string
	// Owner is the one through which it is retried; nil if none lives.
	Owner Owner

	// hold is why it waits; nil if it does not.
	hold *acmepersist.Hold
}

// ValidationName is where the record is published, or a CNAME to it.
func (s Status) ValidationName() string {
	return cmp.Or(s.Record.Name, record.Label+"."+record.Base(s.Domain))
}

// IsComplete reports whether every server that counts shows the record.
func (s Status) IsComplete() bool {
	return s.Report != nil && s.Report.Status == propagation.StatusReady
}

// Summary is what is waited for, in one line.
func (s Status) Summary() string {
	switch {
	case s.Report != nil:
		return s.Report.Summary()
	case s.Err != nil:
		return s.Err.Error()
	}
	return string(s.Phase)
}

// Certificate is a certificate that is served.
type Certificate struct {
	// NotAfter is its end, and Urgent from when on it counts as running out; zero if it is somebody's visit
	// that renews it.
	NotAfter, Urgent time.Time
}

// IsRunningOut reports whether it ends soon, and nothing has come of its renewal.
func (c Certificate) IsRunningOut(now time.Time) bool {
	return !c.Urgent.IsZero() && !now.Before(c.Urgent)
}

// certificate is what CertMagic has reported of a domain.
type certificate struct {
	Certificate // as it was last seen: a cache that is full drops some
	issuer      string
	at          time.Time
	err         error // of the last attempt; nil if it is served
}

// Served takes from CertMagic that a domain has a certificate, of an issuer if that is known. What is
// announced for it beside other issuers goes on being asked for: it is theirs.
func (r *Registry) Served(c *Configuration, domain, issuer string) {
	cert := certificate{issuer: issuer, at: time.Now()}
	if c.Certificate != nil {
		cert.Certificate = c.Certificate(domain)
	}
	r.mu.Lock()
	defer r.unlock()
	c.note(domain, cert)
	r.changed(domain)
}

// Failed takes from CertMagic that an attempt for a domain has failed with all its issuers.
func (r *Registry) Failed(c *Configuration, domain string, err error) {
	r.mu.Lock()
	defer r.unlock()
	if c.certificates[domain].at.IsZero() || c.certificates[domain].err != nil { // else there is one that lasts
		c.note(domain, certificate{at: time.Now(), err: err})
		r.changed(domain)
	}
}

// note notes what CertMagic has reported of a domain, unless the configuration has ended.
func (c *Configuration) note(domain string, cert certificate) {
	if c.ended {
		return
	}
	if c.certificates == nil {
		c.certificates = make(map[string]certificate)
	}
	c.certificates[domain] = cert
}

// Snapshot returns where all domains are, sorted by domain: those that configurations manage, and those
// beside them that wait.
func (r *Registry) Snapshot() []Status {
	domains := r.domains()
	slices.Sort(domains)
	all := make([]Status, 0, len(domains))
	r.each(domains, func(s Status) { all = append(all, s) })
	slices.SortFunc(all, func(a, b Status) int { return cmp.Or(strings.Compare(a.Domain, b.Domain), strings.Compare(a.CA, b.CA)) })
	return all
}

// Each calls fn with where each domain is, as Snapshot has it, in no order: for whoever counts many.
func (r *Registry) Each(fn func(Status)) { r.each(r.domains(), fn) }

// Of returns where a domain is, with each CA that a certificate of is wanted from: nothing of one that is
// neither managed nor waited for nor served.
func (r *Registry) Of(domain string) (all []Status) {
	r.each([]string{domain}, func(s Status) { all = append(all, s) })
	return all
}

// atOnce is how many domains are looked at under one hold of the lock: attempts wait for it.
const atOnce = 256

// each calls fn with where domains are, without the lock. Their certificates are looked up without it too: the
// cache that has them is locked while CertMagic reads its storage.
func (r *Registry) each(domains []string, fn func(Status)) {
	var all []Status
	for some := range slices.Chunk(domains, atOnce) {
		r.mu.Lock()
		configurations := slices.Clone(r.configurations)
		r.unlock()
		served := lookUp(configurations, some)
		r.mu.Lock()
		all = all[:0]
		for i, domain := range some {
			all = append(all, r.whole(domain, i, served)...)
		}
		r.unlock()
		for _, s := range all {
			fn(s)
		}
	}
}

// served are the certificates for some domains, in their order, that each configuration serves.
type served map[*Configuration][]Certificate

// lookUp looks up the certificates for domains.
func lookUp(configurations []*Configuration, domains []string) served {
	all := make(served, len(configurations))
	for _, c := range configurations {
		if c.Certificate == nil {
			continue
		}
		for _, domain := range domains {
			all[c] = append(all[c], c.Certificate(domain))
		}
	}
	return all
}

// domains are those that configurations manage, and those beside them that wait.
func (r *Registry) domains() []string {
	r.mu.Lock()
	defer r.unlock()
	all := make(map[string]struct{}, len(r.byDomain))
	add := func(domains iter.Seq[string]) {
		for domain := range domains {
			all[domain] = struct{}{}
		}
	}
	add(maps.Keys(r.byDomain))
	add(maps.Keys(r.attempts))
	for _, c := range r.configurations {
		add(maps.Keys(c.certificates))
		if c.Managed != nil {
			add(c.Managed())
		}
	}
	return slices.Collect(maps.Keys(all))
}

// whole is of with what nobody has reported: what is managed and was not come to yet, and what is served, such
// as the many domains on demand, which are not kept here. The domain is the i-th one of those whose
// certificates were looked up.
func (r *Registry) whole(domain string, i int, served served) []Status {
	certs := make([]Certificate, len(r.configurations))
	for at, c := range r.configurations {
		if looked := served[c]; looked != nil {
			certs[at] = looked[i]
		}
		certs[at] = c.latest(domain, certs[at])
	}
	all := r.of(domain)
	for at, c := range slices.Backward(r.configurations) {
		if cert := certs[at]; len(all) == 0 {
			ca, _ := c.CA(domain)
			switch isServed := !cert.NotAfter.IsZero(); {
			case ca == "" && !isServed:
				continue
			case isServed:
				all = []Status{{Domain: domain, CA: ca, Phase: PhaseServed, IsOnDemand: ca == "" && c.IsOnDemand != nil && c.IsOnDemand(domain)}}
			default:
				all = []Status{{Domain: domain, CA: ca, Phase: PhaseWanted, Since: c.started}}
			}
		}
		for i := range all {
			if all[i].NotAfter.IsZero() {
				all[i].Certificate = certs[at]
			}
		}
	}
	for i := range all {
		r.looked.addTo(&all[i])
	}
	return all
}

// latest is the certificate for a domain that was looked up, or was the last time if it is gone from the cache.
func (c *Configuration) latest(domain string, looked Certificate) Certificate {
	known, ok := c.certificates[domain]
	switch {
	case !ok, looked == known.Certificate:
		return looked
	case looked.NotAfter.IsZero():
		return known.Certificate
	}
	known.Certificate = looked
	c.certificates[domain] = known
	return looked
}

// of joins what configurations wait for with one CA: that of the newest owner counts. Of what is served it has
// what was seen last.
func (r *Registry) of(domain string) []Status {
	var all []Status
	for _, e := range r.byDomain[domain] {
		s := e.status()
		i := slices.IndexFunc(all, func(other Status) bool { return other.CA == s.CA })
		switch {
		case i < 0:
			all = append(all, s)
		case s.Owner != nil:
			all[i] = s
		}
	}
	for _, a := range r.attempts[domain] {
		i := slices.IndexFunc(all, func(s Status) bool { return a.entry != nil && s.CA == a.entry.hold.CA })
		if i < 0 {
			i = len(all)
			all = append(all, Status{Domain: domain, CA: a.ca, Since: a.since, Owner: a.owner, IsOnDemand: a.owner.IsOnDemand()})
		}
		all[i].Phase, all[i].Next, all[i].IsCertMagics = Phase(a.phase), time.Time{}, false
	}
	for _, c := range r.configurations {
		cert, ok := c.certificates[domain]
		if !ok {
			continue
		}
		if len(all) == 0 {
			all = []Status{{Domain: domain}}
			if ca, isAlone := c.CA(domain); isAlone || cert.issuer == acmepersist.IssuerKey(ca) {
				all[0].CA = ca
			}
		}
		for i, s := range all {
			if s.Owner == nil && s.Phase != "" && !s.IsCertMagics && cert.NotAfter.After(s.NotAfter) {
				s = Status{Domain: domain, CA: s.CA} // what a configuration that has ended has waited for has come
				all[i] = s
			}
			if s.Phase != "" && (!s.IsCertMagics || s.Owner != nil && s.Owner.Configuration() != c) {
				continue // it waits, or somebody works on it
			}
			if all[i].IsCertMagics = cert.err != nil; cert.err != nil {
				ca, isAlone := c.CA(domain)
				all[i].Phase, all[i].Err, all[i].HasOthers = PhaseFailed, cert.err, ca != "" && !isAlone
			} else {
				all[i].Phase, all[i].Since, all[i].Issuer = PhaseServed, cert.at, cert.issuer
			}
		}
	}
	return all
}

// status is that of an entry.
func (e *entry) status() Status {
	s := Status{
		Domain: e.domain, CA: e.hold.CA, Account: e.hold.Account, Phase: PhaseOf(e.hold.Reason), Reason: e.hold.Reason, Err: e.hold, Record: e.hold.Record,
		Since: e.since, Next: e.retryAt, IsCertMagics: !e.isHeld, HasOthers: !e.isHeld, Owner: e.newest(), hold: e.hold,
		Answer: e.hold.Answer, Certificate: Certificate{e.hold.NotAfter, e.hold.Urgent},
	}
	if e.pokeTimer != nil && e.pokeAt.Before(s.Next) {
		s.Next = e.pokeAt
	}
	if e.guest != nil {
		s.IsOnDemand, s.AskedAt, s.ForgottenAt = true, e.guest.interest, e.forgetAt()
	}
	if e.announced != nil {
		s.Misplaced = e.announced.misplaced
	}
	if len(s.Misplaced) > 0 && s.Reason == acmepersist.ReasonAbsent {
		s.Reason = acmepersist.ReasonWrong // it was published, at another name
	}
	if e.hold.Watch != nil {
		s.Report, s.LookedAt = &e.hold.Watch.Report, e.hold.Watch.Report.When // what is seen next is another Hold's
	}
	if e.failure != nil {
		s.Phase, s.Err = PhaseFailed, e.failure
	}
	return s
}

// subscriber is somebody who wants to know of changes.
type subscriber struct {
	notify func(domain string, now []Status)
}

// Subscribe has notify called whenever a domain comes into another phase, waits for another reason, has
// another fault in what is published, or has its record complete; now is where it is, as far as it was
// reported. Calls come one after another, in the order of the changes, and none comes after cancel. The
// registry waits for each of them: notify only takes note, and does not call the registry. The first ones are
// those of the domains that wait already.
func (r *Registry) Subscribe(notify func(domain string, now []Status)) (cancel func()) {
	s := &subscriber{notify}
	r.mu.Lock()
	defer r.unlock()
	r.subscribers = append(r.subscribers, s)
	for domain := range r.byDomain {
		now := r.of(domain)
		r.reported[domain] = hashOf(now, r.byDomain[domain])
		notify(domain, now)
	}
	return func() {
		r.mu.Lock()
		defer r.unlock()
		if r.subscribers = slices.DeleteFunc(r.subscribers, func(other *subscriber) bool { return other == s }); len(r.subscribers) == 0 {
			clear(r.reported)
		}
	}
}

// hashSeed is for what subscribers know of each domain.
var hashSeed = maphash.MakeSeed()

// changed notifies the subscribers of where a domain is, if that is news.
func (r *Registry) changed(domain string) {
	if len(r.subscribers) == 0 {
		return
	}
	now := r.of(domain)
	known, hash := r.reported[domain], hashOf(now, r.byDomain[domain])
	switch {
	case len(now) == 0 && known == 0, len(now) > 0 && known == hash:
		return
	case len(now) == 0:
		delete(r.reported, domain)
	default:
		r.reported[domain] = hash
	}
	for _, s := range r.subscribers {
		s.notify(domain, now)
	}
}

// hashOf is the same as long as there is no news of where a domain is.
func hashOf(now []Status, entries []*entry) uint64 {
	var text strings.Builder
	for _, s := range now {
		fmt.Fprintln(&text, s.CA, s.Phase, s.Reason, s.IsComplete())
	}
	for _, e := range entries {
		text.WriteString(e.code)
	}
	return maphash.String(hashSeed, text.String())
}
