package acmepersist

import (
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// NoticeKind is what a Notice is about.
type NoticeKind int

// Kinds of a Notice.
const (
	// NoticeGone: a record that a certificate is renewed by is gone or was changed.
	NoticeGone NoticeKind = iota
	// NoticeFound: what is published serves the Domains, as it should. It need not be the Record, which may have
	// to serve a wildcard as well that has no certificate yet.
	NoticeFound
	// NoticeNeeded: the CA asks for another record than the one that is published.
	NoticeNeeded
	// NoticeEnding: such a record ends soon.
	NoticeEnding
	// NoticePublished: a record was written by the DNS provider.
	NoticePublished
	// NoticeCAChanged: the CA asks for other records than before.
	NoticeCAChanged
	// NoticeAccountLost: the account cannot be used, NoticeAccountUsable: the CA has accepted it.
	NoticeAccountLost
	NoticeAccountUsable
)

// Notice is something that an Issuer finds, and that somebody may have to know. Nothing is missing from the
// log without it.
type Notice struct {
	Kind NoticeKind
	// CA is the directory URL, Account the account's.
	CA, Account string
	// Domains need the Record, of which DNS showed Report. OnDemand is true if strangers choose the domains.
	Domains  []string
	OnDemand bool
	Record   Record
	Report   propagation.Report
	// Finding is what is published in the place of a record that is gone.
	Finding Finding
	// WasMissing is true for a record that is found and was not at the last look, of whichever node.
	WasMissing bool
	// NeededBy is when a certificate is renewed by the record; zero if that is not known.
	NeededBy time.Time
	// Value is the published one that ends, and Ends is when.
	Value string
	Ends  time.Time
	// Zone is where a record was written.
	Zone string
	// Changes are those of the CA.
	Changes []string
	// Err is why the account cannot be used, and Names are the validation names whose records name it.
	Err   error
	Names []string
}

// newNotice is a Notice about the record of a site.
func (w *siteSession) newNotice(kind NoticeKind) Notice {
	domains := w.Known.Identifiers
	if len(domains) == 0 {
		domains = []string{w.Identifier}
	}
	return Notice{Kind: kind, CA: w.iss.CA, Account: w.account.URL, Domains: domains, OnDemand: w.iss.OnDemand, Record: w.Record}
}
