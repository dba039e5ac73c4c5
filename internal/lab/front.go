package lab

import (
	"bytes"
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
)

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
	fault := c.fault(request.Step, request.Identifiers)
	request.Faulted = fault != nil
	c.requests = append(c.requests, request)
	c.mu.Unlock()

	if refusal := c.refuse(request, jws, body); fault == nil && refusal != nil {
		c.answered(request, refusal.Status)
		refusal.write(w)
		return
	}
	if fault != nil {
		if fault.Invalidates && order != nil {
			order.fail(fault.Detail)
		}
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
	if chal != nil && len(jws.payload) > 0 {
		c.judgeChallenge(chal)
	}
	select {
	case c.turn <- struct{}{}:
	case <-r.Context().Done():
		hangUp(w)
		return
	case <-c.ctx.Done():
		hangUp(w)
		return
	}
	recorder := httptest.NewRecorder()
	func() {
		defer func() { <-c.turn }() // also if Pebble panics
		if request.Step == "authz" && authz != nil && len(jws.payload) > 0 {
			c.awaitValidation(authz)
		}
		pebble.handler.ServeHTTP(recorder, r)
		c.learn(pebble, request, jws, recorder, order, chal)
		c.noteAccount(request, jws, recorder.Code)
	}()
	status, header, answer := recorder.Code, recorder.Header(), recorder.Body.Bytes()
	if c.stillValid(request, jws) {
		status, answer = http.StatusOK, []byte(`{"status": "valid"}`)
		header.Set("Content-Type", "application/json; charset=utf-8")
		header.Del("Content-Length")
	}

	var ok bool
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
