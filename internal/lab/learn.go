package lab

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/letsencrypt/pebble/v2/acme"
	"github.com/letsencrypt/pebble/v2/core"
)

// usedMark is appended to the type of identifiers in Pebble's store whose
// authorization is being validated, so that Pebble does not reuse it: at
// PEBBLE_AUTHZREUSE=0 it still does in one of a hundred orders. Pebble needs the
// type no more by then; authorizations are shown without the mark.
const usedMark = "+used"

// patience limits waiting for Pebble.
const patience = 20 * time.Second

// spend keeps an authorization whose validation has begun from being reused.
// CA.turn is held.
func (a *authzState) spend() {
	a.authz.Lock()
	defer a.authz.Unlock()
	if !strings.HasSuffix(a.authz.Identifier.Type, usedMark) {
		a.authz.Identifier.Type += usedMark
	}
}

// awaitValidation waits while a challenge of the authorization is processing:
// Pebble locks up if it is deactivated then.
func (c *CA) awaitValidation(a *authzState) {
	c.poll(func() bool {
		for _, chal := range a.challenges {
			if status, _, _, _ := chalStatus(chal); status == acme.StatusProcessing {
				return false
			}
		}
		return true
	})
}

// poll calls done until it returns true, the CA is closed or patience is at an
// end.
func (c *CA) poll(done func() bool) bool {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	end := time.Now().Add(patience)
	for !done() {
		select {
		case <-tick.C:
		case <-c.ctx.Done():
			return false
		}
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// learn takes down what an answer of Pebble says.
func (c *CA) learn(p *pebble, request *Request, jws signed, recorder *httptest.ResponseRecorder, order *orderState, chal *chalState) {
	now, status, header, answer := time.Now(), recorder.Code, recorder.Header(), recorder.Body.Bytes()
	switch {
	case request.Step == "new-account" && status == http.StatusCreated:
		c.mu.Lock()
		c.accounts = append(c.accounts, header.Get("Location"))
		c.mu.Unlock()
		c.learnKey(p, header.Get("Location"), jws.jwk, true)

	case request.Step == "new-account" && status == http.StatusOK: // it was there
		c.learnKey(p, header.Get("Location"), jws.jwk, false)

	case request.Step == "key-change" && status == http.StatusOK:
		// The payload is a JWS by the new key.
		c.learnKey(p, jws.kid, parseSigned("", jws.payload).jwk, false)

	case request.Step == "new-order" && status == http.StatusCreated:
		c.learnOrder(p, request, jws, header, answer)
		c.emit("order", strings.Join(request.Identifiers, " "), header.Get("Location"))

	case request.Step == "challenge" && status == http.StatusOK && len(jws.payload) > 0 && chal != nil:
		chal.authz.spend()
		c.mu.Lock()
		c.challenges = append(c.challenges, Challenge{
			Time: now, Identifier: chal.authz.identifier, Account: jws.kid, Type: chal.kind, URL: c.url + request.Path,
		})
		chal.authz.posted = c.url + request.Path
		chal.authz.heldUntil = now.Add(c.validationDelay)
		c.mu.Unlock()
		c.emit("challenge", chal.authz.identifier, chal.kind)
		c.wg.Go(func() { c.watch(chal) })

	case request.Step == "finalize" && status == http.StatusOK && order != nil:
		c.mu.Lock()
		order.heldUntil = now.Add(c.finalizeDelay)
		c.mu.Unlock()
		// Pebble goes on in a goroutine that does not lock everything it should;
		// nobody gets at the order before that is over.
		issued := c.poll(func() bool { return certificateOf(order.order) != nil })
		if replaced := c.replaced(order); issued && replaced != nil {
			c.poll(func() bool {
				replaced.RLock()
				defer replaced.RUnlock()
				return replaced.IsReplaced
			})
		}
		if issued {
			// The goroutine's next step; without it ARI does not know the order.
			serial := certificateOf(order.order).ID
			c.poll(func() bool {
				_, err := p.store.GetOrderByIssuedSerial(serial)
				return err == nil
			})
			c.emit("certificate", strings.Join(order.identifiers, " "), serial)
		}
	}
}

// learnOrder remembers an order, its authorizations and their challenges.
func (c *CA) learnOrder(p *pebble, request *Request, jws signed, header http.Header, answer []byte) {
	location := header.Get("Location")
	stored := p.store.GetOrderByID(path.Base(location))
	if stored == nil {
		return
	}
	if jws.order.Profile == "" {
		// Pebble picks one at random.
		stored.Lock()
		stored.Profile = defaultProfile
		stored.Unlock()
	}
	o := &orderState{store: p, order: stored, identifiers: slices.Clone(request.Identifiers), replaces: request.Replaces, account: request.Account}
	var shown struct{ Authorizations []string }
	json.Unmarshal(answer, &shown)
	var chals []*chalState
	for _, address := range shown.Authorizations {
		authz := p.store.GetAuthorizationByID(path.Base(address))
		if authz == nil {
			continue
		}
		a := &authzState{order: o, authz: authz}
		authz.RLock()
		a.identifier = authz.Identifier.Value
		a.challenges = slices.Clone(authz.Challenges)
		authz.RUnlock()
		for _, chal := range a.challenges {
			_, _, kind, _ := chalStatus(chal)
			chals = append(chals, &chalState{authz: a, challenge: chal, kind: kind})
		}
		o.authzs = append(o.authzs, a)
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	c.orders = append(c.orders, Order{
		Time: time.Now(), URL: location, Account: request.Account,
		Identifiers: slices.Clone(request.Identifiers), Replaces: request.Replaces,
	})
	c.known = append(c.known, o)
	c.byOrder[path.Base(location)] = o
	for _, a := range o.authzs {
		c.byAuthz[a.authz.ID] = a
	}
	for _, ch := range chals {
		c.byChal[ch.challenge.ID] = ch
	}
}

// replaced is the order whose certificate an order replaces.
func (c *CA) replaced(order *orderState) *core.Order {
	_, encoded, ok := strings.Cut(order.replaces, ".")
	serial, err := base64.RawURLEncoding.DecodeString(encoded)
	if !ok || err != nil {
		return nil
	}
	found, err := order.store.store.GetOrderByIssuedSerial(hex.EncodeToString(serial))
	if err != nil {
		return nil
	}
	return found
}

// watch waits for the end of a validation and reports it.
func (c *CA) watch(chal *chalState) {
	var kind, detail string
	c.poll(func() bool {
		status, _, _, problem := chalStatus(chal.challenge)
		switch status {
		case acme.StatusValid, acme.StatusInvalid:
			kind = status
		}
		if problem != nil {
			detail = problem.Detail
		}
		return kind != ""
	})
	if kind == acme.StatusInvalid {
		c.noteFailure(chal)
	}
	if kind != "" {
		c.emit(kind, chal.authz.identifier, detail)
	}
}
