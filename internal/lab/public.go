package lab

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/letsencrypt/pebble/v2/acme"
)

// Public is what a CA of public trust does and Pebble does not, as Boulder, the software of
// Let's Encrypt, does it. The zero value does none of it.
type Public struct {
	// AccountCache is how long a frontend goes on with what it knew of an account: it refuses
	// a key that was changed to, and shows an account as valid that was deactivated.
	// Boulder: 5 seconds.
	AccountCache time.Duration
	// FailedValidations of one name are allowed to an account in FailedWindow (default: an
	// hour); then orders for it are refused with a Retry-After. Boulder: 5.
	FailedValidations int
	FailedWindow      time.Duration
	// ReplacedOnce refuses a second order that replaces the same certificate.
	ReplacedOnce bool
	// CAA has validations fail where the CAA records do not allow the CA to issue.
	CAA bool
}

// Problem is the error of a validation.
type Problem struct {
	// Type is without the namespace.
	Type, Detail string
}

// Errors of validations that Boulder makes and Pebble does not.
var (
	ErrSecondary = Problem{"unauthorized", "During secondary validation: No TXT records found for DNS-PERSIST-01 challenge"}
	ErrInternal  = Problem{"serverInternal", "Could not communicate with VA"}
)

// publicState is what a CA that is Public keeps in mind. It is guarded by CA.mu.
type publicState struct {
	Public
	// problem is what all validations fail with, nil for none.
	problem *Problem
	// failed are the times of failed validations, by account and name.
	failed map[string][]time.Time
	// changed are the keys that accounts were changed to, and ended the accounts that were
	// deactivated, with the time.
	changed map[string]changedKey
	ended   map[string]time.Time
}

type changedKey struct {
	key jose.JSONWebKey
	at  time.Time
}

// SetPublic changes what the CA does from now on.
func (c *CA) SetPublic(p Public) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.FailedWindow == 0 {
		p.FailedWindow = time.Hour
	}
	c.public.Public = p
}

// FailValidations has validations that start from now on fail with a problem; nil ends it.
func (c *CA) FailValidations(p *Problem) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.public.problem = p
}

// Paused is the fault of an account that must not order for a name before somebody has
// visited a page.
func Paused(name string) Fault {
	return Fault{
		Step: "new-order", Below: name, Status: http.StatusTooManyRequests, Times: -1,
		Detail: "Your account is temporarily prevented from requesting certificates for " + name +
			" and possibly others. Please visit: https://portal.ca.test/sfe/v1/unpause?jwt=a.b.c",
	}
}

// TooMany is the fault of a registered domain that has had its certificates for now.
func TooMany(domain string, wait time.Duration) Fault {
	return Fault{
		Step: "new-order", Below: domain, Status: http.StatusTooManyRequests, Times: -1,
		RetryAfter: strconv.Itoa(int(wait.Seconds())),
		Detail: fmt.Sprintf("too many certificates (50) already issued for %q in the last 168h0m0s, retry after %s: see https://ca.test/rate-limits",
			domain, time.Now().Add(wait).UTC().Format("2006-01-02 15:04:05 MST")),
	}
}

// refuse answers requests that Pebble would accept and a public CA does not; nil for others.
func (c *CA) refuse(request *Request, jws signed, body []byte) *Fault {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := &c.public
	now := time.Now()
	if changed, ok := p.changed[request.Account]; ok && now.Sub(changed.at) < p.AccountCache && signedBy(body, &changed.key) {
		return &Fault{Status: http.StatusBadRequest, Type: problemPrefix + "malformed", Detail: "JWS verification error"}
	}
	if request.Step != "new-order" {
		return nil
	}
	if p.FailedValidations > 0 {
		for _, id := range request.Identifiers {
			name := strings.TrimPrefix(id, "*.")
			recent := slices.DeleteFunc(slices.Clone(p.failed[request.Account+" "+name]), func(at time.Time) bool { return now.Sub(at) >= p.FailedWindow })
			if len(recent) < p.FailedValidations {
				continue
			}
			wait := p.FailedWindow - now.Sub(recent[0])
			return &Fault{
				Status: http.StatusTooManyRequests, RetryAfter: strconv.Itoa(int(wait.Seconds()) + 1),
				Detail: fmt.Sprintf("too many failed authorizations (%d) for %q in the last %s, retry after %s: see https://ca.test/rate-limits",
					p.FailedValidations, name, p.FailedWindow, now.Add(wait).UTC().Format("2006-01-02 15:04:05 MST")),
			}
		}
	}
	replaced := func(o Order) bool { return o.Replaces == jws.order.Replaces }
	if p.ReplacedOnce && jws.order.Replaces != "" && slices.ContainsFunc(c.orders, replaced) {
		return &Fault{
			Status: http.StatusConflict, Type: problemPrefix + "alreadyReplaced",
			Detail: fmt.Sprintf("cannot indicate an order replaces certificate with serial %q, which already has a replacement order", jws.order.Replaces),
		}
	}
	return nil
}

const problemPrefix = "urn:ietf:params:acme:error:"

// signedBy reports whether a JWS is by a key.
func signedBy(body []byte, key *jose.JSONWebKey) bool {
	jws, err := jose.ParseSignedJSON(string(body), []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.RS256, jose.EdDSA})
	if err != nil {
		return false
	}
	_, err = jws.Verify(key)
	return err == nil
}

// noteAccount takes down what an account's frontends will not know for a while.
func (c *CA) noteAccount(request *Request, jws signed, status int) {
	if status != http.StatusOK {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p := &c.public
	switch request.Step {
	case "key-change":
		var key jose.JSONWebKey
		if key.UnmarshalJSON(parseSigned("", jws.payload).jwk) == nil {
			p.changed[jws.kid] = changedKey{key, time.Now()}
		}
	case "account":
		var update struct{ Status string }
		if json.Unmarshal(jws.payload, &update) == nil && update.Status == acme.StatusDeactivated {
			p.ended[jws.kid] = time.Now()
		}
	}
}

// stillValid reports whether a frontend that is asked for an account has not heard yet that it
// was deactivated.
func (c *CA) stillValid(request *Request, jws signed) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.public.ended[request.Account]
	return ok && request.Step == "account" && len(jws.payload) == 0 && time.Since(at) < c.public.AccountCache
}

// judgeChallenge decides before a validation what Pebble cannot find out.
func (c *CA) judgeChallenge(chal *chalState) {
	c.mu.Lock()
	problem, caa, account := c.public.problem, c.public.CAA, chal.authz.order.account
	c.mu.Unlock()
	if problem == nil && caa {
		problem = c.forbiddenByCAA(chal.authz.identifier, chal.kind, account)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	chal.authz.problem = problem
}

// mustFail reports whether a validation for a domain is to fail that is under way.
func (c *CA) mustFail(domain string) bool {
	var chals []*chalState
	c.mu.Lock()
	for _, chal := range c.byChal {
		if chal.kind == acme.ChallengeDNSPersist01 && chal.authz.problem != nil &&
			strings.ToLower(strings.TrimPrefix(chal.authz.identifier, "*.")) == domain {
			chals = append(chals, chal)
		}
	}
	c.mu.Unlock()
	return slices.ContainsFunc(chals, func(chal *chalState) bool {
		status, _, _, _ := chalStatus(chal.challenge)
		return status == acme.StatusProcessing || status == acme.StatusPending
	})
}

// noteFailure counts a validation that has failed.
func (c *CA) noteFailure(chal *chalState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := chal.authz.order.account + " " + strings.TrimPrefix(chal.authz.identifier, "*.")
	c.public.failed[key] = append(c.public.failed[key], time.Now())
}

// showProblem puts the problem that a validation was to fail with in place of Pebble's.
func (a *authzState) showProblem(object map[string]any) {
	if a.problem == nil {
		return
	}
	challenges, _ := object["challenges"].([]any)
	for _, entry := range append(challenges, object) {
		chal, ok := entry.(map[string]any)
		if !ok || chal["error"] == nil {
			continue
		}
		chal["error"] = map[string]any{"type": problemPrefix + a.problem.Type, "detail": a.problem.Detail, "status": http.StatusForbidden}
	}
}

// fail makes an order invalid.
func (o *orderState) fail(detail string) {
	o.order.Lock()
	defer o.order.Unlock()
	o.order.Error = &acme.ProblemDetails{Type: problemPrefix + "serverInternal", Detail: detail, HTTPStatus: http.StatusInternalServerError}
}
