package lab

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"maps"
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

var exactSteps = map[string]string{
	"/dir": "directory", "/nonce-plz": "nonce", "/sign-me-up": "new-account", "/order-plz": "new-order",
	"/revoke-cert": "revoke", "/rollover-account-key": "key-change",
}

var prefixSteps = map[string]string{
	"/my-account/": "account", "/my-order/": "order", "/finalize-order/": "finalize", "/authZ/": "authz",
	"/chalZ/": "challenge", "/certZ/": "certificate", "/draft-ietf-acme-ari-03/renewalInfo/": "renewal-info",
}

func stepOf(path string) string {
	if step, ok := exactSteps[path]; ok {
		return step
	}
	for prefix, step := range prefixSteps {
		if strings.HasPrefix(path, prefix) {
			return step
		}
	}
	return "other"
}

// signed is what the body of a POST says.
type signed struct {
	kid     string
	payload []byte
	order   struct {
		Identifiers []struct{ Type, Value string }
		Replaces    string
		Profile     string
	}
}

func parseSigned(step string, body []byte) signed {
	var s signed
	var jws struct{ Protected, Payload string }
	if json.Unmarshal(body, &jws) != nil {
		return s
	}
	if protected, err := base64.RawURLEncoding.DecodeString(jws.Protected); err == nil {
		var header struct{ Kid string }
		json.Unmarshal(protected, &header)
		s.kid = header.Kid
	}
	s.payload, _ = base64.RawURLEncoding.DecodeString(jws.Payload)
	if step == "new-order" {
		json.Unmarshal(s.payload, &s.order)
	}
	return s
}

// serve is the handler in front of Pebble.
func (c *CA) serve(w http.ResponseWriter, r *http.Request) {
	if !c.begin() {
		hangUp(w)
		return
	}
	defer c.wg.Done()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		hangUp(w)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))

	request := &Request{Time: time.Now(), Step: stepOf(r.URL.Path), Method: r.Method, Path: r.URL.Path}
	var jws signed
	if r.Method == http.MethodPost {
		jws = parseSigned(request.Step, body)
	}
	request.Account = jws.kid

	c.mu.Lock()
	pebble := c.pebble
	order, authz, chal := c.find(request.Step, r.URL.Path)
	switch {
	case request.Step == "new-order":
		for _, id := range jws.order.Identifiers {
			request.Identifiers = append(request.Identifiers, id.Value)
		}
		request.Replaces = jws.order.Replaces
	case authz != nil:
		request.Identifiers = []string{authz.identifier}
	case order != nil:
		request.Identifiers = slices.Clone(order.identifiers)
		request.Replaces = order.replaces
	}
	fault := c.fault(request.Step)
	request.Faulted = fault != nil
	c.requests = append(c.requests, request)
	c.mu.Unlock()

	if fault != nil {
		switch {
		case fault.Hang > 0:
			timer := time.NewTimer(fault.Hang)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-r.Context().Done():
			case <-c.ctx.Done():
			}
			hangUp(w)
			return
		case fault.CutBefore:
			hangUp(w)
			return
		case fault.Status != 0:
			c.answered(request, fault.Status)
			fault.write(w)
			return
		}
	}

	if request.Step == "challenge" && len(jws.payload) > 0 && !c.config.ValidationSleep {
		select {
		case c.validations <- struct{}{}:
		case <-r.Context().Done():
			hangUp(w)
			return
		case <-c.ctx.Done():
			hangUp(w)
			return
		}
		finished := make(chan struct{})
		defer close(finished)
		c.wg.Go(func() {
			<-finished
			if chal != nil {
				c.poll(func() bool {
					status, _, _, _ := chalStatus(chal.challenge)
					return status != acme.StatusProcessing
				})
			}
			<-c.validations
		})
	}
	release, ok := c.enter(r, request.Step, order)
	if !ok {
		hangUp(w)
		return
	}
	recorder := httptest.NewRecorder()
	func() {
		defer release() // also if Pebble panics
		switch request.Step {
		case "new-order":
			c.reuse.Lock()
			defer c.reuse.Unlock()
		case "challenge":
			c.reuse.RLock()
			defer c.reuse.RUnlock()
		}
		if request.Step == "authz" && authz != nil && len(jws.payload) > 0 {
			c.awaitValidation(authz)
		}
		pebble.handler.ServeHTTP(recorder, r)
		c.learn(pebble, request, jws, recorder, order, chal)
	}()
	status, header, answer := recorder.Code, recorder.Header(), recorder.Body.Bytes()

	if header, answer, ok = c.rewrite(request.Step, status, header, answer, order, authz); ok {
		header.Del("Content-Length")
	}
	c.answered(request, status)
	if fault != nil && fault.CutAfter {
		hangUp(w)
		return
	}
	maps.Copy(w.Header(), header)
	w.WriteHeader(status)
	w.Write(answer)
}

// begin counts a request that starts, unless the CA is closed.
func (c *CA) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() != nil {
		return false
	}
	c.wg.Add(1)
	return true
}

// find returns what a path is about. c.mu is held.
func (c *CA) find(step, p string) (*orderState, *authzState, *chalState) {
	id := path.Base(p)
	switch step {
	case "order", "finalize":
		return c.byOrder[id], nil, nil
	case "authz":
		if a := c.byAuthz[id]; a != nil {
			return a.order, a, nil
		}
	case "challenge":
		if ch := c.byChal[id]; ch != nil {
			return ch.authz.order, ch.authz, ch
		}
	}
	return nil, nil, nil
}

func (c *CA) answered(request *Request, status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	request.Status = status
}

// enter waits until the request may go to Pebble, which locks up if too much
// happens at once.
func (c *CA) enter(r *http.Request, step string, order *orderState) (release func(), ok bool) {
	if r.Method != http.MethodPost {
		return func() {}, true
	}
	gate := c.posts
	if step == "new-order" {
		gate = c.newOrders
	}
	if order != nil {
		order.mu.Lock()
	}
	leave := func() {
		if order != nil {
			order.mu.Unlock()
		}
	}
	select {
	case gate <- struct{}{}:
		return func() { <-gate; leave() }, true
	case <-r.Context().Done():
	case <-c.ctx.Done():
	}
	leave()
	return nil, false
}

// spend keeps an authorization whose validation has begun from being reused.
// CA.reuse is held.
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
	o := &orderState{store: p, order: stored, identifiers: slices.Clone(request.Identifiers), replaces: request.Replaces}
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
	if kind != "" {
		c.emit(kind, chal.authz.identifier, detail)
	}
}

// rewrite changes an answer of Pebble on its way out. It returns false if the
// answer is as it was.
func (c *CA) rewrite(step string, status int, header http.Header, answer []byte, order *orderState, authz *authzState) (http.Header, []byte, bool) {
	if status >= 300 {
		return header, answer, false
	}
	switch step {
	case "directory", "authz", "challenge", "order", "finalize", "new-order":
	default:
		return header, answer, false
	}
	var object map[string]any
	if json.Unmarshal(answer, &object) != nil || object == nil {
		return header, answer, false
	}
	header = header.Clone()
	now := time.Now()

	c.mu.Lock()
	held := false
	var mutate func(map[string]any)
	switch step {
	case "directory":
		mutate = c.mutateDirectory
	case "authz":
		mutate = c.mutateAuthz
		if authz != nil {
			held = authz.rewrite(object, now, c.withhold)
		}
	case "challenge":
		if authz != nil && now.Before(authz.heldUntil) && object["url"] == authz.posted {
			held = true
			hideChallenge(object)
		}
	case "order", "finalize":
		if order != nil {
			held = order.rewrite(object, now)
		}
	}
	if held && c.retryAfter != "" {
		header.Set("Retry-After", c.retryAfter)
	}
	c.mu.Unlock()

	if step == "new-order" && order == nil {
		if _, ok := object["profile"]; ok {
			if known := c.profileOf(header.Get("Location")); known != "" {
				object["profile"] = known
			}
		}
	}
	if mutate != nil {
		mutate(object)
	}
	changed, err := json.MarshalIndent(object, "", "   ")
	if err != nil {
		return header, answer, false
	}
	return header, changed, true
}

func (c *CA) profileOf(location string) string {
	c.mu.Lock()
	o := c.byOrder[path.Base(location)]
	c.mu.Unlock()
	if o == nil {
		return ""
	}
	o.order.RLock()
	defer o.order.RUnlock()
	return o.order.Profile
}

// rewrite changes an order that is held back. CA.mu is held.
func (o *orderState) rewrite(object map[string]any, now time.Time) bool {
	status, _ := object["status"].(string)
	if now.Before(o.heldUntil) && (status == acme.StatusValid || status == acme.StatusProcessing) {
		object["status"] = acme.StatusProcessing
		delete(object, "certificate")
		return true
	}
	for _, a := range o.authzs {
		if now.Before(a.heldUntil) && (status == acme.StatusReady || status == acme.StatusInvalid || status == acme.StatusPending) {
			object["status"] = acme.StatusPending
			delete(object, "error")
			return true
		}
	}
	return false
}

// rewrite changes an authorization. CA.mu is held.
func (a *authzState) rewrite(object map[string]any, now time.Time, withhold bool) bool {
	if id, ok := object["identifier"].(map[string]any); ok {
		if kind, ok := id["type"].(string); ok {
			id["type"] = strings.TrimSuffix(kind, usedMark)
		}
	}
	challenges, _ := object["challenges"].([]any)
	status, _ := object["status"].(string)
	if status == acme.StatusPending && a.offered == nil {
		a.offered = challenges
	}
	held := now.Before(a.heldUntil) && status != acme.StatusDeactivated
	if held {
		// Pebble shows only the challenge that was tried when all is over.
		if status != acme.StatusPending && a.offered != nil {
			challenges = a.offered
		}
		object["status"] = acme.StatusPending
		for i, entry := range challenges {
			if chal, ok := entry.(map[string]any); ok && chal["url"] == a.posted {
				chal = maps.Clone(chal)
				hideChallenge(chal)
				challenges = slices.Clone(challenges)
				challenges[i] = chal
			}
		}
	}
	if withhold {
		challenges = slices.DeleteFunc(slices.Clone(challenges), func(entry any) bool {
			chal, ok := entry.(map[string]any)
			return ok && chal["type"] == acme.ChallengeDNSPersist01
		})
	}
	object["challenges"] = challenges
	return held
}

func hideChallenge(chal map[string]any) {
	chal["status"] = acme.StatusProcessing
	delete(chal, "error")
	delete(chal, "validated")
}

// hangUp closes the connection without an answer.
func hangUp(w http.ResponseWriter) {
	if hijacker, ok := w.(http.Hijacker); ok {
		if conn, _, err := hijacker.Hijack(); err == nil {
			conn.Close()
			return
		}
	}
	panic(http.ErrAbortHandler)
}

func (f *Fault) write(w http.ResponseWriter) {
	problem := map[string]any{"type": f.Type, "detail": f.Detail, "status": f.Status}
	if f.Type == "" {
		problem["type"] = "urn:ietf:params:acme:error:serverInternal"
		if f.Status == http.StatusTooManyRequests {
			problem["type"] = "urn:ietf:params:acme:error:rateLimited"
		}
	}
	if f.Detail == "" {
		problem["detail"] = "a fault of the lab"
	}
	if f.RetryAfter != "" {
		w.Header().Set("Retry-After", f.RetryAfter)
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(f.Status)
	body, _ := json.Marshal(problem)
	w.Write(body)
}
