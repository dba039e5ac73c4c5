package lab_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"strings"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

func TestThumbprint(t *testing.T) {
	w := bareWorld(t, lab.CAConfig{})
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []crypto.Signer{newKey(t), rsaKey} {
		for range 2 { // the second time it is there
			w.account, err = w.client.NewAccount(t.Context(), acme.Account{TermsOfServiceAgreed: true, PrivateKey: key})
			if err != nil {
				t.Fatal(err)
			}
			if got, want := w.ca.Thumbprint(w.account.Location), w.thumbprint(); got != want {
				t.Errorf("thumbprint %q, want %q", got, want)
			}
		}
	}
	if got := w.ca.Thumbprint(w.account.Location + "0"); got != "" {
		t.Errorf("thumbprint of nobody: %s", got)
	}
	forgotten := w.account.Location
	before := w.ca.Thumbprint(forgotten)
	w.ca.Forget()
	w.register()
	if w.ca.Thumbprint(forgotten) != before || w.ca.Thumbprint(w.account.Location) != w.thumbprint() {
		t.Error("forgotten")
	}
}

// thumbprint is that of the account's key as acmez computes it for the key
// authorization of another challenge.
func (w *world) thumbprint() string {
	w.t.Helper()
	order, err := w.order(zone)
	if err != nil {
		w.t.Fatal(err)
	}
	authz, err := w.client.GetAuthorization(w.t.Context(), w.account, order.Authorizations[0])
	if err != nil {
		w.t.Fatal(err)
	}
	for _, chal := range authz.Challenges {
		if _, thumbprint, ok := strings.Cut(chal.KeyAuthorization, "."); ok && chal.Type == "dns-01" {
			return thumbprint
		}
	}
	w.t.Fatalf("no key authorization in %+v", authz)
	return ""
}

func (w *world) rollover() {
	w.t.Helper()
	before := w.ca.Thumbprint(w.account.Location)
	account, err := w.client.AccountKeyRollover(w.t.Context(), w.account, newKey(w.t))
	if err != nil {
		w.t.Fatal(err)
	}
	w.account = account
	if after := w.ca.Thumbprint(w.account.Location); after == before || after != w.thumbprint() {
		w.t.Errorf("thumbprint %s after, %s before", after, before)
	}
}

func TestKeyRollover(t *testing.T) {
	strict := lab.Dialect{Draft: "02"}
	w := newWorld(t, lab.CAConfig{Dialect: strict})
	name := func(label string) string { return label + "." + zone }
	for _, label := range []string{"seen", "unseen", "changed", "fresh"} {
		w.publish(name(label), w.hashed(name(label)))
	}
	w.publish(name("many"), w.hashed("*"))
	w.publish(name("unseen-many"), w.hashed("*"))
	w.publish(name("failed"), w.hashed(name("failed")))
	w.publish(name("wild"), w.hashed(name("wild"))+"; policy=wildcard")
	for _, label := range []string{"seen", "changed", "many", "*.wild"} {
		w.want(name(label), "")
	}
	w.want("*."+name("failed"), "unauthorized") // no policy: its value was seen, but in vain

	w.rollover()
	w.publish(name("fresh"), w.hashed(name("fresh")))
	w.dns.AddTXT(0, "_validation-persist."+name("changed"), "other.test; accounturi=https://other.test/1")
	for range 2 {
		for label, verdict := range map[string]string{
			"seen": "", "changed": "", "many": "", "*.wild": "", "wild": "", "fresh": "",
			"unseen": "unauthorized", "unseen-many": "unauthorized", "failed": "unauthorized",
		} {
			w.want(name(label), verdict)
		}
		w.rollover() // and it still holds for the key before the last
		w.publish(name("fresh"), w.hashed(name("fresh")))
	}

	w.ca.SetDialect(lab.Dialect{Draft: "02", AcceptEarlierKeys: true})
	w.want(name("unseen"), "")
	w.want(name("unseen-many"), "")
	w.ca.SetDialect(strict)
	w.want(name("unseen"), "") // it has been validated now
	w.want(name("failed"), "unauthorized")
}

// TestRolloverToAnotherAccountsKey is answered 200 by Pebble, and in vain.
func TestRolloverToAnotherAccountsKey(t *testing.T) {
	w := newWorld(t, lab.CAConfig{Dialect: lab.Dialect{Draft: "02"}})
	other := w.account
	w.register()
	before := w.ca.Thumbprint(w.account.Location)
	w.client.AccountKeyRollover(t.Context(), w.account, other.PrivateKey)
	if w.ca.Count("key-change") == 0 {
		t.Error("no key-change")
	}
	if got := w.ca.Thumbprint(w.account.Location); got != before {
		t.Errorf("thumbprint %s", got)
	}
	w.publish(zone, w.hashed(zone))
	w.want(zone, "")
}

func TestHashPrefix(t *testing.T) {
	w := newWorld(t, lab.CAConfig{Dialect: lab.Dialect{Draft: "02"}})
	byDefault := w.ca.HashPrefix()
	if byDefault != strings.TrimSuffix(w.ca.Directory(), "dir")+"account-hash/" {
		t.Errorf("prefix %s", byDefault)
	}
	w.publish(zone, w.hashed(zone))
	w.want(zone, "")
	w.ca.SetHashPrefix("https://elsewhere.test/h?")
	if p := w.meta()["accountHashPrefix"]; p != "https://elsewhere.test/h?" {
		t.Errorf("prefix %v", p)
	}
	w.want(zone, "malformed")
	w.publish(zone, w.hashed(zone))
	w.want(zone, "")
	w.ca.SetHashPrefix("")
	w.want(zone, "malformed")
	if w.ca.HashPrefix() != byDefault {
		t.Errorf("prefix %s", w.ca.HashPrefix())
	}
}

// TestSetDialect changes it while an authorization is shown, held back by a
// delay and thus partly from memory.
func TestSetDialect(t *testing.T) {
	w := newWorld(t, lab.CAConfig{})
	tapped := w.tap()
	over := make(chan string, 10)
	w.ca.OnEvent(func(e lab.Event) {
		if e.Kind == "valid" || e.Kind == "invalid" {
			over <- e.Kind
		}
	})
	w.ca.SetValidationDelay(time.Hour)
	w.record(zone, "")
	order, err := w.order(zone)
	if err != nil {
		t.Fatal(err)
	}
	show := func(draft, want string) {
		t.Helper()
		w.ca.SetDialect(lab.Dialect{Draft: draft})
		if _, err := w.client.GetAuthorization(t.Context(), w.account, order.Authorizations[0]); err != nil {
			t.Fatal(err)
		}
		shown := tapped.of("authZ")
		if got := special(persistent(t, shown[len(shown)-1])); got != want {
			t.Errorf("-%s shows %q", draft, got)
		}
	}
	all := func() {
		t.Helper()
		show("02", "issuerDomainNames")
		show("00", "issuer-domain-names")
		show("01", "accounturi issuer-domain-names")
	}
	all()
	w.start(order)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	select {
	case kind := <-over:
		if kind != "valid" {
			t.Errorf("it became %s", kind)
		}
	case <-ctx.Done():
		t.Fatal("the validation does not end")
	}
	all()

	w.ca.SetValidationDelay(0)
	w.want(zone, "")
	w.ca.SetDialect(lab.Dialect{Draft: "02"})
	w.want(zone, "malformed")
	defer func() {
		if recover() == nil {
			t.Error("an unknown draft was taken")
		}
	}()
	w.ca.SetDialect(lab.Dialect{Draft: "03"})
}
