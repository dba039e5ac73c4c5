package dnspersist

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/certmagic"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// received is what a receiver of events has got.
type received struct {
	Event, ID string
	Timestamp time.Time
	Data      map[string]any
}

func newEvent(t *testing.T, name string, data map[string]any) caddy.Event {
	t.Helper()
	event, err := caddy.NewEvent(caddy.Context{Context: context.Background()}, name, data)
	if err != nil {
		t.Fatal(err)
	}
	return event
}

func parseWebhook(t *testing.T, text string) *Webhook {
	t.Helper()
	h := new(Webhook)
	if err := h.UnmarshalCaddyfile(caddyfile.NewTestDispenser(text)); err != nil {
		t.Fatal(err)
	}
	return h
}

// An event arrives over TLS, with the secret from a file and JSON that means something, and
// nothing is left running.
func TestWebhook(t *testing.T) {
	before := goleak.IgnoreCurrent()
	got, headers := make(chan received, 10), make(chan http.Header, 10)
	server := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var e received
		if err := json.NewDecoder(r.Body).Decode(&e); err != nil {
			t.Error(err)
		}
		headers <- r.Header
		got <- e
	}))
	dir := t.TempDir()
	roots, secret := filepath.Join(dir, "root.pem"), filepath.Join(dir, "secret")
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	for file, content := range map[string]string{roots: string(cert), secret: "Bearer s3cret\n"} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h := parseWebhook(t, fmt.Sprintf("dns_persist_webhook %s/events {\n\theader authorization {file.%s}\n\ttrusted_roots %s\n\ttimeout 5s\n}", server.URL, secret, roots))
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	defer cancel()
	if err := h.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	failure := certmagic.ErrNoRetry{Err: errors.New("the CA said \x1b[31mno")}
	event := newEvent(t, "cert_failed", map[string]any{
		"identifier": "example.com", "error": failure, "remaining": time.Minute, "csr_pem": []byte("-----BEGIN"), "renewal": true,
		"strange": func() {}, "long": strings.Repeat("x", maxData),
	})
	if err := h.Handle(t.Context(), event); err != nil {
		t.Fatal(err)
	}
	e, header := <-got, <-headers
	if e.Event != "cert_failed" || e.ID != event.ID().String() || !e.Timestamp.Equal(event.Timestamp()) {
		t.Errorf("got %+v", e)
	}
	want := map[string]any{
		"identifier": "example.com", "error": `the CA said \x1b[31mno`, "remaining": "1m0s", "csr_pem": "-----BEGIN", "renewal": true,
		"strange": "not sent: a func() of 0 octets", "long": fmt.Sprintf("not sent: a string of %d octets", maxData+2),
	}
	if !reflect.DeepEqual(e.Data, want) {
		t.Errorf("the data are\n%v, wanted are\n%v", e.Data, want)
	}
	if header.Get("Authorization") != "Bearer s3cret" || header.Get("Content-Type") != "application/json" {
		t.Errorf("the headers are %v", header)
	}
	if err := h.Cleanup(); err != nil {
		t.Error(err)
	}
	if err := h.Cleanup(); err != nil { // whatever Caddy does
		t.Error(err)
	}
	server.Close()
	goleak.VerifyNone(t, before)
}

// A configuration that cannot work does not load, and no error shows a secret.
func TestWebhookMistakes(t *testing.T) {
	t.Setenv("EMPTY", "")
	for text, want := range map[string]string{
		"dns_persist_webhook hooks.example/s3cret":                                                "begins with https://",
		"dns_persist_webhook ftp://hooks.example/s3cret":                                          "begins with https://",
		"dns_persist_webhook {env.EMPTY}":                                                         "url: ",
		"dns_persist_webhook https://hooks.example/s3cret {\n\theader token {env.EMPTY}s3\n}":     "a placeholder in it has no value",
		"dns_persist_webhook https://hooks.example/s3cret {\n\theader \"to ken\" s3cret\n}":       "not a name of a header",
		"dns_persist_webhook https://hooks.example/s3cret {\n\theader token \"s3cret\nTo: x\"\n}": "characters that no header may have",
		"dns_persist_webhook https://hooks.example/s3cret {\n\ttimeout 2m\n}":                     "at most 1m0s",
		"dns_persist_webhook https://hooks.example/s3cret {\n\ttrusted_roots /no/such/file\n}":    "/no/such/file",
	} {
		h := parseWebhook(t, text)
		ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
		err := h.Provision(ctx)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3") {
			t.Errorf("%q: got %v", text, err)
		}
		if err := h.Cleanup(); err != nil {
			t.Error(err)
		}
		cancel()
	}
	for _, text := range []string{
		"dns_persist_webhook", "dns_persist_webhook https://a.example b", "dns_persist_webhook https://a.example {\n\tretries 3\n}",
		"dns_persist_webhook https://a.example {\n\theader a\n}", "dns_persist_webhook https://a.example {\n\theader a b\n\theader A c\n}",
		"dns_persist_webhook https://a.example {\n\ttrusted_roots\n}", "dns_persist_webhook https://a.example {\n\ttimeout soon\n}",
	} {
		if err := new(Webhook).UnmarshalCaddyfile(caddyfile.NewTestDispenser(text)); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

// roundTripper answers requests without a network.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answer(status int, text string) *http.Response {
	return &http.Response{StatusCode: status, Header: make(http.Header), Body: io.NopCloser(strings.NewReader(text))}
}

// newReceiver is a delivery whose requests are answered by a function, and what it logs.
func newReceiver(t *testing.T, answer func(event string) (*http.Response, error)) (*delivery, *observer.ObservedLogs) {
	t.Helper()
	u, err := url.Parse("https://hooks.example/s3cret")
	if err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.DebugLevel)
	d := newDelivery(u, make(http.Header), roundTripper(func(r *http.Request) (*http.Response, error) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		return answer(string(body))
	}), webhookTimeout)
	d.setLogger(zap.New(core))
	return d, logs
}

func send(d *delivery, events ...string) {
	for _, e := range events {
		d.add(message{event: e, id: "id of " + e, body: []byte(e)})
	}
}

// What may pass is tried five times, and in order; what may not is dropped at once. Each loss is logged,
// and no log has the URL.
func TestWebhookTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []string
		began := time.Now()
		d, logs := newReceiver(t, func(event string) (*http.Response, error) {
			got = append(got, fmt.Sprint(event, " ", time.Since(began)))
			switch {
			case event == "down":
				return nil, errors.New("connection \x1brefused")
			case event == "busy" && len(got) < 8:
				return answer(http.StatusTooManyRequests, ""), nil
			case event == "moved":
				return answer(http.StatusTemporaryRedirect, ""), nil
			case event == "wrong":
				return answer(http.StatusForbidden, "no \x1b token"+strings.Repeat("!", 5000)), nil
			}
			return answer(http.StatusNoContent, ""), nil
		})
		send(d, "down", "busy", "moved", "wrong", "ok")
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		want := []string{
			"down 0s", "down 1s", "down 5s", "down 21s", "down 1m21s", "busy 1m21s", "busy 1m22s", "busy 1m26s", "moved 1m26s", "wrong 1m26s", "ok 1m26s",
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("sent were\n%q, wanted are\n%q", got, want)
		}
		var logged []string
		for _, e := range logs.All() {
			f := e.ContextMap()
			logged = append(logged, fmt.Sprint(e.Level, f["event"], f["attempts"]))
			if text := fmt.Sprint(f); strings.Contains(text, "s3cret") || strings.Contains(text, "\x1b") || len(text) > 500 {
				t.Errorf("it logs %s", text)
			}
		}
		if want := []string{"warndown5", "warnmoved1", "warnwrong1"}; !reflect.DeepEqual(logged, want) {
			t.Errorf("logged is %q, wanted is %q", logged, want)
		}
		if err := d.Destruct(); err != nil {
			t.Error(err)
		}
	})
}

// A receiver that hangs blocks nobody and fills nothing, and holds up the end for three seconds at most.
func TestWebhookThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		n := 0
		u, _ := url.Parse("https://hooks.example/")
		core, logs := observer.New(zap.DebugLevel)
		d := newDelivery(u, nil, roundTripper(func(r *http.Request) (*http.Response, error) {
			mu.Lock()
			n++
			mu.Unlock()
			<-r.Context().Done()
			return nil, r.Context().Err()
		}), webhookTimeout)
		d.setLogger(zap.New(core))
		began := time.Now()
		for i := range 2 * mostMessages {
			send(d, fmt.Sprint(i))
		}
		if time.Since(began) != 0 {
			t.Error("adding them took time")
		}
		time.Sleep(time.Second)
		began = time.Now()
		if err := d.Destruct(); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took != lastChance {
			t.Errorf("the end took %s", took)
		}
		send(d, "after the end")
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if n != 1 {
			t.Errorf("%d requests were made", n)
		}
		dropped := int64(0)
		for _, e := range logs.FilterMessageSnippet("events were dropped").All() {
			dropped += e.ContextMap()["count"].(int64)
		}
		if total := dropped + int64(logs.FilterMessageSnippet("was not taken").Len()); total != 2*mostMessages || logs.Len() > 3 {
			t.Errorf("%d of %d losses are logged, in %d entries", total, 2*mostMessages, logs.Len())
		}
	})
}

// Events that wait for a slow receiver survive a reload that leaves the handler as it is.
func TestWebhookSurvivesReloads(t *testing.T) {
	var mu sync.Mutex
	var got []string
	slow := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		<-slow
		var e received
		_ = json.NewDecoder(r.Body).Decode(&e)
		mu.Lock()
		defer mu.Unlock()
		got = append(got, e.Event)
	}))
	defer server.Close()
	var before *Webhook
	var want []string
	for i := range 10 {
		h := parseWebhook(t, "dns_persist_webhook "+server.URL)
		ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
		defer cancel()
		if err := h.Provision(ctx); err != nil {
			t.Fatal(err)
		}
		if before != nil {
			_ = before.Cleanup()
		}
		want = append(want, fmt.Sprint("event", i))
		_ = h.Handle(t.Context(), newEvent(t, want[i], nil))
		before = h
	}
	close(slow)
	_ = before.Cleanup() // which waits for them
	mu.Lock()
	defer mu.Unlock()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q", got)
	}
}
