package propagation

import (
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/ask"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/zones"
)

// Exchanger sends one query to one address and returns the answer that belongs to it.
// [NetExchanger] uses real sockets; tests put their own here.
type Exchanger = ask.Exchanger

// NetExchanger is the [Exchanger] that uses real sockets.
type NetExchanger = ask.NetExchanger

// Outcome is how a question has ended, retransmissions included.
type Outcome = ask.Outcome

// Outcomes of a question, see [Config.Asked].
const (
	OutcomeAnswered  = ask.OutcomeAnswered  // there was an answer, be it that there is no such name
	OutcomeFailed    = ask.OutcomeFailed    // the server answered with an error of its own, such as SERVFAIL
	OutcomeUnusable  = ask.OutcomeUnusable  // what came is not an answer to the question, or was cut
	OutcomeSilent    = ask.OutcomeSilent    // no answer came
	OutcomeNotAsked  = ask.OutcomeNotAsked  // it was not sent, as so much is asked at present or of one look
	OutcomeAbandoned = ask.OutcomeAbandoned // whoever asked has not waited for the answer
)

// Mode is who is asked for the record.
type Mode string

const (
	// ModeAuthoritative asks every authoritative server of the zone. It is
	// the default and the only mode that proves something: no cache is
	// involved, neither ours nor the CA's.
	ModeAuthoritative Mode = "authoritative"

	// ModeRecursive asks the resolvers alone, all of which must show the
	// record. For networks where port 53 of other hosts cannot be reached.
	ModeRecursive Mode = "recursive"
)

const defaultGrace = time.Minute

// DefaultSettle is the default of Config.Settle.
const DefaultSettle = 10 * time.Second

// Config configures a [Checker]. The zero value asks authoritative servers
// that are found through the system's resolvers.
type Config struct {
	// Mode is ModeAuthoritative if empty.
	Mode Mode

	// Resolvers are the recursive resolvers, tried in this order: "ip",
	// "ip:port" or "host:port", port 53 if none is given. In authoritative
	// mode they serve to find zones and the addresses of name servers and
	// are never asked for the validation name itself. If empty, those of
	// the system's resolv.conf are used; where there is none (Windows), every
	// look reports an error that asks to set resolvers.
	Resolvers []string

	// AllowPrivate permits to ask name servers at private, loopback and
	// link-local addresses, and those of a zone that the zone above denies. A public
	// CA does not ask there, and who controls a zone's NS records should not choose
	// whom we talk to; so it is for CAs inside the same network. Resolvers are asked
	// wherever they are.
	AllowPrivate bool

	// PrivateNetworks count as private beside those that IsPrivate knows: networks that
	// only this machine reaches, such as the prefix of a NAT64 of one's own.
	PrivateNetworks []netip.Prefix

	// Grace is how long a server must have been broken or silent before it
	// is excused. Default: a minute.
	Grace time.Duration

	// Settle is how long a record that was seen to appear must be visible
	// everywhere before it counts. Default: DefaultSettle.
	Settle time.Duration

	// Exchanger is NetExchanger{} if nil.
	Exchanger Exchanger

	// Asked is called with how each question to a server or resolver has ended. It must not
	// block. May be nil.
	Asked func(Outcome)

	// Logger gets debug messages about discovery. May be nil.
	Logger *zap.Logger
}

// IsPrivate reports whether a public CA cannot or will not ask a server at addr.
func IsPrivate(addr netip.Addr) bool { return zones.IsPrivate(addr) }

// Target is what to look for.
type Target struct {
	// Name is the validation name, "_validation-persist.www.example.com".
	Name string

	// Host is the name from which the zone is found, "www.example.com": the
	// validation name without its first label, so that no resolver gets to
	// cache that the validation name does not exist. If empty, it is made
	// from Name.
	Host string

	// Accept reports whether values, one joined string for each TXT record, are
	// acceptable, and why not. If nil, any TXT record is.
	Accept func(values []string) (good bool, reason string)

	// Known reports whether a CA has accepted one of the values before: then a record that
	// the first look finds on every server needs no second one. May be nil.
	Known func(values []string) bool

	// Weigh returns how much a value has to do with the record, one of the Weight
	// constants: a Gate keeps those that weigh most, as servers may show very many. May
	// be nil.
	Weigh func(value string) int

	// Mistaken lists the names at which people put the record by mistake, for a zone without
	// final dot. Only Diagnose asks there. May be nil.
	Mistaken func(zone string) []Place
}

// Place is a name at which the record may have been put by mistake.
type Place struct {
	Name string // without final dot
	Why  string // what was mistaken

	// Conclusive is set if any TXT record at Name was meant for the validation name.
	Conclusive bool
}

// host is Host in canonical form.
func (t Target) host() string {
	if t.Host == "" {
		return zones.Parent(dns.CanonicalName(t.Name))
	}
	return dns.CanonicalName(t.Host)
}

// Verdict is how one server answered in one round.
type Verdict string

const (
	// VerdictYes: the server has an acceptable record, or the CNAME that
	// leads to where it must be (see ServerReport.Alias).
	VerdictYes Verdict = "yes"
	// VerdictNo: the server answered for the zone and has no acceptable record.
	VerdictNo Verdict = "no"
	// VerdictBroken: an answer came that shows nothing about the record.
	VerdictBroken Verdict = "broken"
	// VerdictSilent: no answer came.
	VerdictSilent Verdict = "silent"
)

// isAnswer reports whether the server has answered for the zone.
func (v Verdict) isAnswer() bool { return v == VerdictYes || v == VerdictNo }

// ServerReport is what is known of one address of one name server.
type ServerReport struct {
	Zone    string   `json:"zone,omitempty"`    // zone the server was asked for, without final dot; empty in recursive mode
	Name    string   `json:"name"`              // name it was asked for: the validation name or the target of a CNAME
	Host    string   `json:"host"`              // name of the server, without final dot; a resolver's address in recursive mode
	Addr    string   `json:"addr,omitempty"`    // "ip:port"; empty if the host has no address
	Network string   `json:"network,omitempty"` // "udp" or "tcp", whatever the answer came by
	Verdict Verdict  `json:"verdict"`           // how it answered
	Rcode   string   `json:"rcode,omitempty"`   // "NOERROR", "NXDOMAIN", …; empty if no answer came
	Values  []string `json:"values,omitempty"`
	Alias   string   `json:"alias,omitempty"` // target of the CNAME it has at Name, if it has one
	Via     string   `json:"via,omitempty"`   // where the CNAMEs at Name end, that a resolver has followed
	// FromWildcard is set if a wildcard record has made the CNAME at Name, see Report.Alias, or the
	// Values, none of which is the record.
	FromWildcard bool   `json:"from_wildcard,omitempty"`
	Reason       string `json:"reason,omitempty"` // why the verdict is not yes, or a defect beside a yes
	Defect       Code   `json:"defect,omitempty"` // what is wrong with the server itself
	Listed       string `json:"listed,omitempty"` // "parent" or "zone" if only that one lists the host
	Serial       uint32 `json:"serial,omitempty"` // of the SOA record that came with a negative answer, else 0

	TTL         uint32        `json:"ttl,omitempty"`          // of the TXT records, seconds
	NegativeTTL uint32        `json:"negative_ttl,omitempty"` // how long the answer "no" may be cached, seconds
	RTT         time.Duration `json:"rtt,omitempty"`          // of the exchange that was answered
	Since       time.Time     `json:"since,omitzero"`         // since when the verdict has been the same; set by Gate

	// BadSince and BadLooks are since when, and for how many looks, the address has not
	// answered usefully, whoever asked it; zero if it does.
	BadSince time.Time `json:"bad_since,omitzero"`
	BadLooks int       `json:"bad_looks,omitempty"`
}

// hasRecord reports whether a server has the record itself, not only a CNAME.
func hasRecord(servers []ServerReport) bool {
	return slices.ContainsFunc(servers, func(s ServerReport) bool { return s.Verdict == VerdictYes && s.Alias == "" })
}

// Round is the outcome of asking once.
type Round struct {
	Name    string // validation name, without final dot
	Zone    string // zone of the validation name, without final dot
	Mode    Mode
	Partial bool // one server only was asked: not evidence of completeness
	When    time.Time
	Servers []ServerReport

	// Err is why nobody, or not everybody, could be asked: no zone, no
	// servers, a CNAME loop. It is never a reason to stop watching.
	Err error

	// Bogus is the answer of a validating resolver for a zone whose DNSSEC signatures do not
	// validate, although the servers have the record; else empty.
	Bogus string
	// Dropped is how many addresses, or hosts that were not looked up, of a zone were left out
	// because there are so many: at least so many.
	Dropped int
	// Wildcard is what a wildcard record above the name answers in place of the record, a
	// type and its value; empty if none does.
	Wildcard string
	// Shadows is what a record at the name would take from the host, which a wildcard record
	// answers for, and what to add first; empty if nothing.
	Shadows string
	weigh   func(value string) int // Target.Weigh
	known   bool                   // what all servers show has been accepted before, see Target.Known

	// Questions is how many questions were asked, those to resolvers included and
	// retransmissions apart.
	Questions int
	// Port53Open is set if some name server, of whichever zone, has answered lately: where
	// none of this zone's does, they are down, and the network is not to blame.
	Port53Open bool

	cost float64 // in questions a server, see costOf; without time if isPrompt
}

// areKnown reports whether servers show the record, and each of these one that a CA has accepted before.
func (t Target) areKnown(servers []ServerReport) bool {
	return t.Known != nil && hasRecord(servers) && !slices.ContainsFunc(servers, func(s ServerReport) bool {
		return s.Verdict == VerdictYes && s.Alias == "" && !t.Known(s.Values)
	})
}

// askedAtName is how many servers were asked for the name itself.
func (r Round) askedAtName() (n int) {
	for _, s := range r.Servers {
		if s.Name == r.Name {
			n++
		}
	}
	return n
}

// isPrompt reports whether all servers gave their answer, and soon. If the look took long
// nevertheless, for zones had to be found or this machine was busy, a poll will not.
func (r Round) isPrompt() bool {
	return r.Err == nil && len(r.Servers) > 0 && !slices.ContainsFunc(r.Servers, func(s ServerReport) bool {
		return !s.Verdict.isAnswer() || s.RTT >= patience
	})
}

// Status is how far the record of a name is visible.
type Status string

const (
	// StatusAbsent: servers answer, and none has an acceptable record.
	StatusAbsent Status = "absent"
	// StatusPartial: some servers have it, but not all that count.
	StatusPartial Status = "partial"
	// StatusBlocked: nothing is known, as no server answers or none could
	// be found. Report.Reason has what to do.
	StatusBlocked Status = "blocked"
	// StatusConfirming: all servers that count have it; a second look is due.
	StatusConfirming Status = "confirming"
	// StatusReady: the CA can be asked.
	StatusReady Status = "ready"
)

// Report is the state of a name after a round, for a program and, through
// Summary and Reason, for a person. What it points to is shared with others and must not be
// changed.
type Report struct {
	Name     string         `json:"name"`
	Zone     string         `json:"zone,omitempty"`
	Mode     Mode           `json:"mode"`
	Status   Status         `json:"status"`
	Servers  []ServerReport `json:"servers,omitempty"`
	Excused  []string       `json:"excused,omitempty"`  // hosts that do not answer usefully and no longer count
	When     time.Time      `json:"when,omitzero"`      // time of the last round; zero before the first
	Since    time.Time      `json:"since,omitzero"`     // since when Status has been the same
	FirstYes time.Time      `json:"first_yes,omitzero"` // since when at least one server has had the record; zero if none has
	Reason   string         `json:"reason,omitempty"`   // why it is not ready and what to do
	Values   []string       `json:"values,omitempty"`   // union of the values seen, sorted: what a CA may see now

	// MoreValues is how many further values, or parts of values, were left out, as a Gate keeps
	// so many; RestDigest is another one when these change. Zero in what Gate.Observe returns
	// of a round in which all servers were asked.
	MoreValues int    `json:"more_values,omitempty"`
	RestDigest string `json:"rest_digest,omitempty"`
	// MoreServers is how many servers were left out.
	MoreServers int `json:"more_servers,omitempty"`

	// LookAgainAt is when a further look may change the status although
	// nobody changes anything: the end of the settle time or of a grace.
	// Zero if there is no such time.
	LookAgainAt time.Time `json:"look_again_at,omitzero"`

	// NextLookNotBefore is until when asking again is useless, because a
	// resolver holds a cached "no". Only in recursive mode; else zero.
	NextLookNotBefore time.Time `json:"next_look_not_before,omitzero"`

	// Problem is the code of what keeps everybody from being asked, if anything does.
	Problem Code `json:"problem,omitempty"`
	// Bogus and Dropped are those of the last round.
	Bogus   string `json:"bogus,omitempty"`
	Dropped int    `json:"dropped,omitempty"`
	// Wildcard is that of the last round that asked all servers.
	Wildcard string `json:"wildcard,omitempty"`
	// Shadows is that of the last round that asked all servers.
	Shadows string `json:"shadows,omitempty"`
	// Port53Open is that of the last round.
	Port53Open bool `json:"port53_open,omitempty"`

	cost float64 // that of the last round
}
