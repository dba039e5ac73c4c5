package acmepersist

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/libdns/libdns"
	"github.com/miekg/dns"
)

// What the fakes are called, and the record that a fakeCA wants to see for www.example.test.
const (
	fakeDirectory = "https://ca.test/dir"
	fakeAccount   = "https://ca.test/account/1"
	wwwName       = "_validation-persist.www.example.test"
	wwwValue      = "ca.test; accounturi=" + fakeAccount
)

// fakeCA is the transport to a CA that verifies no signature, and does as it is scripted.
type fakeCA struct {
	// meta is that of the directory, members are those of our challenge; empty where it is not offered.
	meta, members string
	// verdict is what becomes of a challenge that was posted: "valid", "pending" for as long as that is
	// set, or the type of the CA's error. authz is the status of a new authorization.
	verdict, authz string
	// lifetime is that of certificates.
	lifetime time.Duration
	// asking is called with the step of each request, before it is answered. May be nil.
	asking func(step string)

	mu      sync.Mutex
	log     []string
	answers map[string][]answer
	orders  []*fakeOrder
	key     *ecdsa.PrivateKey
}

// answer is what the CA answers in place of what it would. The connection breaks if status is 0.
type answer struct {
	status          int
	retryAfter      string
	problem, detail string
	// acted is true if it has done all the same what it was asked.
	acted bool
}

// fakeOrder is an order with its one authorization and challenge.
type fakeOrder struct {
	domain, status, authz, challenge, problem string
	chain                                     []byte
}

func newFakeCA() *fakeCA {
	return &fakeCA{
		meta: `"caaIdentities":["ca.test"]`, members: `"issuer-domain-names":["ca.test"]`, verdict: "valid", authz: "pending",
		lifetime: 90 * 24 * time.Hour, answers: make(map[string][]answer), key: newTestKey(),
	}
}

// answer scripts the next answers to a step.
func (f *fakeCA) answer(step string, next ...answer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[step] = append(f.answers[step], next...)
}

// asked are the steps that the CA was asked for since the last call, in their order; nonces are left out.
func (f *fakeCA) asked() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	steps := strings.Join(f.log, " ")
	f.log = nil
	return steps
}

// RoundTrip implements http.RoundTripper.
func (f *fakeCA) RoundTrip(req *http.Request) (*http.Response, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var jws struct{ Payload string }
	if req.Body != nil {
		if err := json.NewDecoder(req.Body).Decode(&jws); err != nil {
			return nil, err
		}
	}
	payload, err := base64.RawURLEncoding.DecodeString(jws.Payload)
	if err != nil {
		return nil, err
	}
	step, id, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/"), "/")
	if step != "nonce" {
		f.log = append(f.log, step)
	}
	if f.asking != nil {
		f.asking(step)
	}
	scripted := f.answers[step]
	if len(scripted) == 0 || scripted[0].acted {
		resp := f.act(step, id, payload)
		if len(scripted) == 0 {
			return resp, nil
		}
	}
	f.answers[step] = scripted[1:]
	a := scripted[0]
	if a.status == 0 {
		return nil, errors.New("connection reset by peer")
	}
	body := fmt.Sprintf(`{"type":"urn:ietf:params:acme:error:%s","detail":%q}`, a.problem, a.detail)
	resp := respond(a.status, "application/problem+json", body)
	if a.retryAfter != "" {
		resp.Header.Set("Retry-After", a.retryAfter)
	}
	return resp, nil
}

func respond(status int, media, body string) *http.Response {
	return &http.Response{
		StatusCode: status, Status: strconv.Itoa(status), Body: io.NopCloser(strings.NewReader(body)),
		Header: http.Header{"Content-Type": {media}, "Replay-Nonce": {"AAAA"}},
	}
}

// act does what is asked, and answers.
func (f *fakeCA) act(step, id string, payload []byte) *http.Response {
	const list = "application/json"
	n, _ := strconv.Atoi(id)
	var o *fakeOrder
	if n > 0 && n <= len(f.orders) {
		o = f.orders[n-1]
	}
	switch step {
	case "dir":
		return respond(200, list, `{"newNonce":"https://ca.test/nonce","newAccount":"https://ca.test/new-account","newOrder":"https://ca.test/new-order",
			"keyChange":"https://ca.test/key-change","meta":{`+f.meta+`}}`)
	case "nonce", "key-change":
		return respond(200, list, "{}")
	case "new-account", "account":
		resp := respond(200, list, `{"status":"valid"}`)
		resp.Header.Set("Location", fakeAccount)
		return resp
	case "new-order":
		var want struct{ Identifiers []struct{ Value string } }
		_ = json.Unmarshal(payload, &want)
		o = &fakeOrder{domain: want.Identifiers[0].Value, status: "pending", authz: f.authz, challenge: "pending"}
		if o.authz == "valid" {
			o.status = "ready"
		}
		f.orders = append(f.orders, o)
		n = len(f.orders)
		resp := respond(201, list, o.json(n))
		resp.Header.Set("Location", fmt.Sprint("https://ca.test/order/", n))
		return resp
	case "order":
		return respond(200, list, o.json(n))
	case "authz":
		f.decide(o)
		return respond(200, list, f.authorization(n, o))
	case "challenge":
		if o.challenge == "pending" {
			o.challenge = "processing"
		}
		return respond(200, list, `{"type":"dns-persist-01","status":"`+o.challenge+`"}`)
	case "finalize":
		var sent struct{ CSR string }
		_ = json.Unmarshal(payload, &sent)
		der, _ := base64.RawURLEncoding.DecodeString(sent.CSR)
		now := time.Now()
		o.status, o.chain = "valid", f.certificate(der, now, now.Add(f.lifetime))
		return respond(200, list, o.json(n))
	case "certificate":
		return respond(200, "application/pem-certificate-chain", string(o.chain))
	}
	return respond(404, "text/plain", "there is nothing at "+step)
}

// decide decides about a challenge that was posted, when its authorization is read.
func (f *fakeCA) decide(o *fakeOrder) {
	switch {
	case o.authz == "valid" && o.status == "pending":
		o.status = "ready"
	case o.challenge != "processing" || f.verdict == "pending":
	case f.verdict == "valid":
		o.challenge, o.authz, o.status = "valid", "valid", "ready"
	default:
		o.challenge, o.authz, o.status, o.problem = "invalid", "invalid", "invalid", f.verdict
	}
}

func (o *fakeOrder) json(n int) string {
	return fmt.Sprintf(`{"status":%q,"identifiers":[{"type":"dns","value":%q}],"authorizations":["https://ca.test/authz/%d"],`+
		`"finalize":"https://ca.test/finalize/%[3]d","certificate":"https://ca.test/certificate/%[3]d"}`, o.status, o.domain, n)
}

func (f *fakeCA) authorization(n int, o *fakeOrder) string {
	base, isWildcard := strings.CutPrefix(o.domain, "*.")
	challenges := `{"type":"dns-01","url":"https://ca.test/other/1","status":"pending"}`
	if f.members != "" {
		problem := ""
		if o.problem != "" {
			problem = fmt.Sprintf(`,"error":{"type":"urn:ietf:params:acme:error:%s","detail":"no record that fits"}`, o.problem)
		}
		challenges += fmt.Sprintf(`,{"type":"dns-persist-01","url":"https://ca.test/challenge/%d","status":%q,%s%s}`, n, o.challenge, f.members, problem)
	}
	return fmt.Sprintf(`{"status":%q,"identifier":{"type":"dns","value":%q},"wildcard":%v,"challenges":[%s]}`, o.authz, base, isWildcard, challenges)
}

// certificate is one for a CSR, or for a key of its own.
func (f *fakeCA) certificate(csr []byte, notBefore, notAfter time.Time) []byte {
	template := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "fake"}, NotBefore: notBefore, NotAfter: notAfter}
	public := any(f.key.Public())
	if req, err := x509.ParseCertificateRequest(csr); err == nil {
		template.DNSNames, public = req.DNSNames, req.PublicKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, f.key)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func newTestKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

// fakeDNS is a resolver and the name servers of example.test, two if nothing else is set, without a network.
type fakeDNS struct {
	mu sync.Mutex
	// shown is what each server shows at a name, more what all of them and the resolver do.
	shown []map[string][]string
	more  []dns.RR
	// questions counts the questions by type and name.
	questions map[string]int
	// isDown is true if nothing is answered.
	isDown bool
	// looks counts the questions for TXT records.
	looks int
	// slow is how long it takes to write a record.
	slow time.Duration
}

func newFakeDNS() *fakeDNS {
	return &fakeDNS{shown: []map[string][]string{{}, {}}, questions: make(map[string]int)}
}

// taken are the questions since the last call, by type and name.
func (f *fakeDNS) taken() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	taken := f.questions
	f.questions = make(map[string]int)
	return taken
}

// set has all servers show values at a name.
func (f *fakeDNS) set(name string, values ...string) {
	for server := range f.shown {
		f.setAt(server, name, values...)
	}
}

// at is what the first server shows at a name.
func (f *fakeDNS) at(name string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.shown[0][name])
}

// setAt has one of them show values.
func (f *fakeDNS) setAt(server int, name string, values ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shown[server][name] = values
}

// add has a record answered by all, written as in a zone file.
func (f *fakeDNS) add(text string) {
	rr, err := dns.NewRR(text)
	if err != nil {
		panic(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.more = append(f.more, rr)
}

var fakeSOA = &dns.SOA{
	Hdr: dns.RR_Header{Name: "example.test.", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 300},
	Ns:  "ns1.example.test.", Mbox: "h.example.test.", Serial: 1, Minttl: 60,
}

// Exchange implements propagation.Exchanger.
func (f *fakeDNS) Exchange(_ context.Context, _, addr string, query *dns.Msg) (*dns.Msg, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.isDown {
		return nil, errors.New("i/o timeout")
	}
	q, m := query.Question[0], new(dns.Msg).SetReply(query)
	f.questions[dns.TypeToString[q.Qtype]+" "+strings.TrimSuffix(q.Name, ".")]++
	m.Authoritative, m.RecursionAvailable = !query.RecursionDesired, query.RecursionDesired
	header := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: 300}
	for _, rr := range f.more {
		if rr.Header().Name == q.Name && (rr.Header().Rrtype == q.Qtype || rr.Header().Rrtype == dns.TypeCNAME) {
			m.Answer = append(m.Answer, rr)
		}
	}
	server := -1
	if at, err := netip.ParseAddrPort(addr); err == nil && int(at.Addr().As4()[3]) <= len(f.shown) {
		server = int(at.Addr().As4()[3]) - 1
	}
	switch {
	case len(m.Answer) > 0:
	case q.Qtype == dns.TypeSOA && q.Name == "example.test.":
		m.Answer = []dns.RR{fakeSOA}
	case q.Qtype == dns.TypeNS && q.Name == "example.test.":
		for i := range f.shown {
			m.Answer = append(m.Answer, &dns.NS{Hdr: header, Ns: fmt.Sprintf("ns%d.example.test.", i+1)})
		}
	case q.Qtype == dns.TypeA && strings.HasPrefix(q.Name, "ns"):
		m.Answer = []dns.RR{&dns.A{Hdr: header, A: []byte{192, 0, 2, q.Name[2] - '0'}}}
	case q.Qtype == dns.TypeTXT && server >= 0:
		f.looks++
		for _, v := range f.shown[server][strings.TrimSuffix(q.Name, ".")] {
			m.Answer = append(m.Answer, &dns.TXT{Hdr: header, Txt: []string{v}})
		}
	}
	if len(m.Answer) == 0 {
		m.Ns = []dns.RR{fakeSOA}
	}
	return m, nil
}

// AppendRecords implements libdns.RecordAppender: a fakeDNS is its own provider.
func (f *fakeDNS) AppendRecords(_ context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	time.Sleep(f.slow)
	for _, r := range records {
		txt := r.(libdns.TXT)
		name := libdns.AbsoluteName(txt.Name, strings.TrimSuffix(zone, "."))
		f.set(name, append(f.at(name), txt.Text)...)
	}
	return records, nil
}

// brokenProvider is a DNS provider that wants to be left alone.
type brokenProvider struct{ wait time.Duration }

func (p brokenProvider) AppendRecords(context.Context, string, []libdns.Record) ([]libdns.Record, error) {
	return nil, p
}

func (p brokenProvider) Error() string { return "HTTP 429: too many requests" }

// RetryAfter is how long it wants to be left alone.
func (p brokenProvider) RetryAfter() time.Duration { return p.wait }
