package lab

import (
	"encoding/json"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/letsencrypt/pebble/v2/acme"
)

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
			authz.showProblem(object)
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
	c.speak(step, object)
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
