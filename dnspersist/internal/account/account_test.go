package account

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
)

const (
	testDirectory = "https://ca.test/dir"
	testAccount   = "https://ca.test/account/1"
)

// fakeCA is a CA that has accounts and nothing else. It believes every signature.
type fakeCA struct {
	// keys are the thumbprints of the keys that it knows, by account URL.
	keys map[string]string
	// status is that of the accounts, unless problem is the type of what it answers in its place.
	status, problem string
	// asked are the paths of the signed requests.
	asked []string
}

func (f *fakeCA) RoundTrip(r *http.Request) (*http.Response, error) {
	switch r.URL.Path {
	case "/dir":
		return respond(200, `{"newNonce":"https://ca.test/nonce","newAccount":"https://ca.test/new","newOrder":"https://ca.test/order","keyChange":"https://ca.test/change"}`), nil
	case "/nonce":
		return respond(200, ""), nil
	}
	f.asked = append(f.asked, r.URL.Path)
	switch {
	case r.URL.Path == "/new":
		return f.newAccount(r)
	case r.URL.Path == "/change":
		return f.changeKey(r)
	case f.problem != "":
		return refusal(f.problem), nil
	}
	return respond(200, `{"status":"`+f.status+`"}`), nil
}

// signed is what is in a request: the thumbprint of the key that it shows, if any, and its payload.
func signed(r io.Reader) (thumbprint string, payload []byte) {
	var jws struct{ Protected, Payload string }
	_ = json.NewDecoder(r).Decode(&jws)
	protected, _ := base64.RawURLEncoding.DecodeString(jws.Protected)
	payload, _ = base64.RawURLEncoding.DecodeString(jws.Payload)
	var header struct {
		JWK json.RawMessage `json:"jwk"`
	}
	_ = json.Unmarshal(protected, &header)
	sum := sha256.Sum256(header.JWK)
	return base64.RawURLEncoding.EncodeToString(sum[:]), payload
}

// newAccount answers with the account of the key that has signed, or with a new one.
func (f *fakeCA) newAccount(r *http.Request) (*http.Response, error) {
	thumbprint, payload := signed(r.Body)
	url := testAccount
	for known, key := range f.keys {
		if key == thumbprint {
			url = known
		}
	}
	if f.keys[url] != thumbprint {
		if strings.Contains(string(payload), "onlyReturnExisting") {
			return refusal("accountDoesNotExist"), nil
		}
		f.keys[url] = thumbprint
	}
	resp := respond(200, `{"status":"valid"}`)
	resp.Header.Set("Location", url)
	return resp, nil
}

// changeKey takes the key of the request that is in the request. With a problem it has done so all the
// same, and its answer is lost.
func (f *fakeCA) changeKey(r *http.Request) (*http.Response, error) {
	_, inner := signed(r.Body)
	f.keys[testAccount], _ = signed(bytes.NewReader(inner))
	if f.problem != "" {
		return refusal(f.problem), nil
	}
	return respond(200, `{}`), nil
}

func respond(status int, body string) *http.Response {
	return &http.Response{
		StatusCode: status, Status: http.StatusText(status), Body: io.NopCloser(strings.NewReader(body)),
		Header: http.Header{"Content-Type": {"application/json"}, "Replay-Nonce": {"n"}},
	}
}

func refusal(problem string) *http.Response {
	resp := respond(403, `{"type":"`+acme.ProblemTypeNamespace+problem+`","detail":"a reason"}`)
	resp.Header.Set("Content-Type", "application/problem+json")
	return resp
}

// newWorld returns a CA without accounts, and the holder of one that is not bound yet.
func newWorld(t *testing.T, cfg Config) (*fakeCA, *Holder, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	fake := &fakeCA{keys: make(map[string]string), status: acme.StatusValid}
	cfg.CA = ca.New(ca.Config{
		URL: testDirectory, Store: state.New(&certmagic.FileStorage{Path: t.TempDir()}, testDirectory), Logger: zap.New(core), Transport: fake,
	})
	return fake, New(cfg), logs
}

// bound is a conversation with the account that is bound.
func bound(t *testing.T, h *Holder) *Book {
	t.Helper()
	b, err := h.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Bind(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

// rollElsewhere gives the account another key, as another process does.
func rollElsewhere(t *testing.T, fake *fakeCA, h *Holder) (thumbprint string) {
	t.Helper()
	stored, err := h.mustKnow(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stored, next, err := h.prepareNext(t.Context(), stored)
	if err != nil {
		t.Fatal(err)
	}
	rolled, err := stored.promoted(next)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.save(t.Context(), rolled); err != nil {
		t.Fatal(err)
	}
	fake.keys[rolled.URL] = rolled.Thumbprint
	return rolled.Thumbprint
}

// Nothing is asked, and nothing bound, to find out that no account is.
func TestNoAccount(t *testing.T) {
	fake, h, _ := newWorld(t, Config{})
	if _, found, err := h.Known(t.Context()); found || err != nil {
		t.Errorf("one is known: %v, %v", found, err)
	}
	if _, err := h.MustKnow(t.Context()); !errors.Is(err, ErrNoAccount) || !strings.Contains(err.Error(), "account --register") {
		t.Errorf("the error is %v", err)
	}
	b, err := h.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if found, err := b.Load(t.Context()); found || err != nil || b.URL != "" {
		t.Errorf("%q was loaded: %v, %v", b.URL, found, err)
	}
	if len(fake.asked) != 0 {
		t.Errorf("the CA was asked for %q", fake.asked)
	}
}

// The first conversation registers an account, the others use it, also those of another process.
func TestBindRegistersOnce(t *testing.T) {
	fake, h, logs := newWorld(t, Config{Email: "Me@example.com"})
	b := bound(t, h)
	if b.URL != testAccount || b.URI != testAccount || b.Thumbprint != fake.keys[testAccount] || !b.IsNew() {
		t.Errorf("bound is %+v", b.Identity)
	}
	other := New(h.Config)
	if again := bound(t, other); again.URL != b.URL || again.Thumbprint != b.Thumbprint || again.IsNew() {
		t.Errorf("another process has bound %+v", again.Identity)
	}
	if !slices.Equal(fake.asked, []string{"/new"}) {
		t.Errorf("the CA was asked for %q", fake.asked)
	}
	if logs.FilterMessageSnippet("back this file up").Len() != 1 {
		t.Errorf("the log is %v", logs.All())
	}
	known, found, err := h.Known(t.Context())
	if err != nil || !found || !slices.Equal(known.Contact, nil) && !slices.Equal(known.Contact, []string{"mailto:me@example.com"}) {
		t.Errorf("known is %+v, %v, %v", known, found, err)
	}
}

// A registration that was cut short goes on with the key that was stored.
func TestRegistrationThatWasCutShort(t *testing.T) {
	fake, h, _ := newWorld(t, Config{})
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	begun, err := newBinding(testDirectory, originRegistered, key, nil)
	if err != nil {
		t.Fatal(err)
	}
	at, err := h.key()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.store.Save(t.Context(), at, begun); err != nil {
		t.Fatal(err)
	}
	if b := bound(t, h); b.Thumbprint != begun.Thumbprint || fake.keys[testAccount] != begun.Thumbprint {
		t.Errorf("bound is %+v, want the key %s", b.Identity, begun.Thumbprint)
	}
}

// The account is confirmed once for all conversations, and what the CA answers else is an Error.
func TestCheck(t *testing.T) {
	for name, tc := range map[string]struct {
		status, problem, want string
	}{
		"valid":         {status: acme.StatusValid},
		"deactivated":   {status: acme.StatusDeactivated, want: `its status at the CA is "deactivated", not valid`},
		"not known":     {problem: "accountDoesNotExist", want: "the CA does not know it"},
		"not allowed":   {problem: "unauthorized", want: "it may be deactivated"},
		"another fault": {problem: "malformed", want: "the CA does not accept the key with the thumbprint "},
	} {
		t.Run(name, func(t *testing.T) {
			fake, h, _ := newWorld(t, Config{})
			b := bound(t, h)
			fake.status, fake.problem, fake.asked = tc.status, tc.problem, nil
			for range 3 {
				err := h.Book(b.client).Bind(t.Context())
				if err == nil {
					err = b.Check(t.Context())
				}
				if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
					t.Fatalf("the check: %v, want %q", err, tc.want)
				}
				var lost *Error
				if isLost := errors.As(err, &lost); isLost != (tc.want != "" && tc.problem != "malformed") || isLost && lost.URL != testAccount {
					t.Errorf("the error is %#v", err)
				}
			}
			if tc.want == "" && !slices.Equal(fake.asked, []string{"/account/1"}) {
				t.Errorf("the CA was asked for %q, want once for the account", fake.asked)
			}
			if tc.problem == "malformed" && !strings.Contains(b.Check(t.Context()).Error(), b.Thumbprint) {
				t.Error("the error does not name the key")
			}
		})
	}
}

// Whatever a CA answers to a signature by a former key, a key that another process has changed is noticed,
// and the next conversation has the new one.
func TestKeyThatWasChangedMeanwhile(t *testing.T) {
	for _, problem := range []string{"unauthorized", "malformed", "accountDoesNotExist"} {
		fake, h, _ := newWorld(t, Config{})
		b := bound(t, h)
		fake.problem = problem
		ask := func() error {
			return b.Do(t.Context(), "reading a thing", func(account acme.Account) error {
				_, err := b.client.ACME.GetAuthorization(t.Context(), account, "https://ca.test/thing")
				return err
			})
		}
		var changed *KeyChangedError
		if err := ask(); !ca.IsProblem(err, problem) || errors.As(err, &changed) {
			t.Errorf("%s, and the key is the same: %v", problem, err)
		}
		old, now := b.Thumbprint, rollElsewhere(t, fake, h)
		err := ask()
		if !errors.As(err, &changed) || changed.OldThumbprint != old || changed.Thumbprint != now || changed.URL != testAccount {
			t.Fatalf("%s, and the key was changed: %v", problem, err)
		}
		if ca.IsProblem(err, problem) {
			t.Errorf("the error is about the account as it is now: %v", err)
		}
		if again := bound(t, h); again.Thumbprint != now || !slices.Equal(again.EarlierThumbprints, []string{old}) {
			t.Errorf("the next conversation has %+v, want the key %s", again.Identity, now)
		}
	}
}

// A refusal that is not about the account is passed on, and storage is not looked at.
func TestRefusalOfSomethingElse(t *testing.T) {
	fake, h, _ := newWorld(t, Config{})
	b := bound(t, h)
	rollElsewhere(t, fake, h)
	fake.problem = "rejectedIdentifier"
	err := b.Do(t.Context(), "reading a thing", func(account acme.Account) error {
		_, err := b.client.ACME.GetAuthorization(t.Context(), account, "https://ca.test/thing")
		return err
	})
	var changed *KeyChangedError
	if !ca.IsProblem(err, "rejectedIdentifier") || errors.As(err, &changed) {
		t.Errorf("the error is %v", err)
	}
}

// An account that the CA has lost is replaced by a new one, and kept beside it; one whose key was changed
// meanwhile is not lost.
func TestReplace(t *testing.T) {
	fake, h, _ := newWorld(t, Config{})
	b := bound(t, h)
	lost := b.lost(t.Context(), errors.New("a reason"))
	var reason *Error
	if !errors.As(lost, &reason) {
		t.Fatal(lost)
	}
	now := rollElsewhere(t, fake, h)
	if err := b.Replace(t.Context(), reason); err != nil || b.Thumbprint != now {
		t.Fatalf("after a change of the key: %v, %+v", err, b.Identity)
	}
	lost = b.lost(t.Context(), errors.New("a reason"))
	if !errors.As(lost, &reason) {
		t.Fatal(lost)
	}
	fake.keys = make(map[string]string)
	if err := b.Replace(t.Context(), reason); err != nil || b.Thumbprint == now || fake.keys[testAccount] != b.Thumbprint {
		t.Fatalf("after a loss: %v, %+v", err, b.Identity)
	}
	var kept binding
	if found, err := h.store.Load(t.Context(), h.store.Key("lost", now+".json"), &kept); err != nil || !found || kept.Thumbprint != now {
		t.Errorf("the lost account is kept: %v, %v", found, err)
	}
}

// An export is bound in another storage, once the CA has confirmed it; not at another CA's.
func TestExportAndImport(t *testing.T) {
	fake, h, _ := newWorld(t, Config{})
	b := bound(t, h)
	data, err := h.Export(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cfg := h.Config
	cfg.CA = ca.New(ca.Config{URL: testDirectory, Store: state.New(&certmagic.FileStorage{Path: t.TempDir()}, testDirectory), Transport: fake})
	there := New(cfg)
	fake.status = acme.StatusDeactivated
	if _, err := there.Import(t.Context(), data); err == nil {
		t.Error("an account that the CA does not confirm was imported")
	}
	fake.status = acme.StatusValid
	for _, want := range []string{ImportNew, ImportAlready} {
		if done, err := there.Import(t.Context(), data); err != nil || done.Outcome != want {
			t.Errorf("the import: %q, %v, want %q", done.Outcome, err, want)
		}
	}
	if again := bound(t, there); again.Thumbprint != b.Thumbprint {
		t.Errorf("bound there is %+v", again.Identity)
	}
}

// A key is changed where the CA has confirmed it, whatever came of the answer, and the former one is in no file.
func TestRoll(t *testing.T) {
	for _, problem := range []string{"", "malformed"} {
		fake, h, _ := newWorld(t, Config{})
		b := bound(t, h)
		former, err := h.mustKnow(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		fake.problem = problem
		done, err := h.Roll(t.Context())
		if err != nil || done.OldThumbprint != b.Thumbprint || done.NewThumbprint != fake.keys[testAccount] || done.Resumed {
			t.Fatalf("%q: %+v, %v", problem, done, err)
		}
		data, err := h.store.Storage.Load(t.Context(), former.at)
		if err != nil || strings.Contains(string(data), former.KeyPEM[40:90]) {
			t.Errorf("the former key is in storage, %v", err)
		}
		if again := bound(t, h); again.Thumbprint != done.NewThumbprint {
			t.Errorf("bound is %+v", again.Identity)
		}
	}
}

// A rollover that the CA had carried out before the process ended is finished by whoever binds the account.
func TestRolloverThatWasCutShort(t *testing.T) {
	fake, h, _ := newWorld(t, Config{})
	former := bound(t, h).Thumbprint
	stored, err := h.mustKnow(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, next, err := h.prepareNext(t.Context(), stored)
	if err != nil {
		t.Fatal(err)
	}
	if b := bound(t, New(h.Config)); b.Thumbprint != former {
		t.Errorf("before the CA has the key, bound is %+v", b.Identity)
	}
	if fake.keys[testAccount], err = thumbprintOf(next); err != nil {
		t.Fatal(err)
	}
	if b := bound(t, New(h.Config)); b.Thumbprint != fake.keys[testAccount] {
		t.Errorf("afterwards bound is %+v", b.Identity)
	}
}

// An account that was deactivated is used no more, and none is registered in its place.
func TestDeactivate(t *testing.T) {
	fake, h, _ := newWorld(t, Config{})
	b := bound(t, h)
	if err := h.Deactivate(t.Context(), testAccount+"0"); err == nil || !strings.Contains(err.Error(), "nothing was done") {
		t.Errorf("another account: %v", err)
	}
	fake.status = acme.StatusDeactivated
	for range 2 {
		if err := h.Deactivate(t.Context(), testAccount); err != nil {
			t.Fatal(err)
		}
	}
	var ended *Error
	if err := h.Book(b.client).Bind(t.Context()); !errors.As(err, &ended) || ended.DeactivatedAt.IsZero() {
		t.Errorf("it is bound: %v", err)
	}
	if err := b.Replace(t.Context(), &Error{URL: testAccount}); !errors.As(err, &ended) {
		t.Errorf("it is replaced: %v", err)
	}
}
