package dnspersist

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/net/http/httpguts"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
)

func init() {
	caddy.RegisterModule(Webhook{})
}

// Webhook sends events to a URL, whichever module of Caddy emits them: those of `dns_persist` as well as
// `cert_obtained` or `cert_failed`.
//
// Each event is a POST of a JSON object with `event` (its name), `id`, `timestamp` and `data`. The receiver
// answers with a status 2xx; else the event is sent again, up to five times within one and a half
// minutes, and then dropped, which is logged. Events arrive in their order, and one may arrive twice: it has
// the same `id` then. Redirects are not followed.
//
// Nobody waits for the receiver. Up to 256 events are kept for it, in memory: over reloads that leave
// the handler as it is, and not over a restart.
type Webhook struct {
	// Where to send events: an URL with https, or http within your own network. Placeholders are
	// replaced when the configuration is loaded. The log shows its host only, for such URLs are often secrets.
	URL string `json:"url"`

	// Headers of each request, such as one that proves to the receiver who sends. Placeholders in their
	// values are replaced when the configuration is loaded: `{file./path/to/secret}` or `{env.NAME}` keep a
	// secret out of it.
	Headers map[string]string `json:"headers,omitempty"`

	// How long the receiver may take to answer. Default: 10s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// PEM files with the roots to trust, in the place of the system's.
	TrustedRootsPEMFiles []string `json:"trusted_roots_pem_files,omitempty"`

	to      *delivery
	release func() error
}

// CaddyModule returns the Caddy module information.
func (Webhook) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "events.handlers.dns_persist_webhook",
		New: func() caddy.Module { return new(Webhook) },
	}
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	on <event> dns_persist_webhook <url> {
//	    header        <name> <value>
//	    timeout       <duration>
//	    trusted_roots <files...>
//	}
func (h *Webhook) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the handler's name
	if !d.AllArgs(&h.URL) {
		return d.ArgErr()
	}
	for d.NextBlock(0) {
		switch option := d.Val(); option {
		case "header":
			var name, value string
			if !d.AllArgs(&name, &value) {
				return d.ArgErr()
			}
			name = http.CanonicalHeaderKey(name)
			if _, ok := h.Headers[name]; ok {
				return d.Errf("header %s is given twice", name)
			}
			if h.Headers == nil {
				h.Headers = make(map[string]string)
			}
			h.Headers[name] = value
		case "timeout":
			var text string
			if !d.AllArgs(&text) {
				return d.ArgErr()
			}
			timeout, err := caddy.ParseDuration(text)
			if err != nil {
				return d.Errf("timeout: %v", err)
			}
			h.Timeout = caddy.Duration(timeout)
		case "trusted_roots":
			files := d.RemainingArgs()
			if len(files) == 0 {
				return d.ArgErr()
			}
			h.TrustedRootsPEMFiles = append(h.TrustedRootsPEMFiles, files...)
		default:
			return d.Errf("unrecognized option '%s': those of dns_persist_webhook are header, timeout and trusted_roots", option)
		}
	}
	return nil
}

const (
	webhookTimeout = 10 * time.Second
	// webhookLongest bounds the option timeout: the events behind one wait for it.
	webhookLongest = time.Minute
)

// secretHeader is what headers are named that prove who sends.
var secretHeader = regexp.MustCompile(`(?i)auth|token|key|secret|password`)

// webhooks are the deliveries of all configurations, by what they are made of: events that wait for a
// receiver survive a reload.
var webhooks = caddy.NewUsagePool()

// Provision sets up the handler. It asks nothing of the network.
func (h *Webhook) Provision(ctx caddy.Context) error {
	to, err := h.newDelivery()
	if err != nil {
		return fmt.Errorf("dns_persist_webhook: %w", err)
	}
	key, err := h.key(to)
	if err != nil {
		return fmt.Errorf("dns_persist_webhook: %w", err)
	}
	shared, _, err := webhooks.LoadOrNew(key, func() (caddy.Destructor, error) { return to, nil })
	if err != nil {
		return err
	}
	h.to = shared.(*delivery)
	h.release = sync.OnceValue(func() error {
		_, err := webhooks.Delete(key)
		return err
	})
	logger := ctx.Logger(new(App))
	h.to.setLogger(logger)
	for name, value := range h.Headers {
		if secretHeader.MatchString(name) && !strings.Contains(value, "{") {
			warnSecrets(logger, map[string]string{"header " + name: "a secret"})
		}
	}
	return nil
}

// newDelivery checks the configuration and makes what is to be done by it.
func (h *Webhook) newDelivery() (*delivery, error) {
	repl := caddy.NewReplacer()
	text, err := repl.ReplaceOrErr(h.URL, true, true)
	if err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return nil, errors.New("url: it has to be a whole URL that begins with https:// or http:// (it is not shown, for it may be a secret)")
	}
	if h.Timeout < 0 || time.Duration(h.Timeout) > webhookLongest {
		return nil, fmt.Errorf("timeout: it has to be more than nothing and at most %s", webhookLongest)
	}
	headers := make(http.Header)
	for name, value := range h.Headers {
		// the error of the replacer would quote the value
		expanded, err := repl.ReplaceOrErr(value, true, true)
		expanded = strings.TrimSpace(expanded)
		switch {
		case err != nil:
			return nil, fmt.Errorf("header %s: a placeholder in it has no value (the header is not shown)", name)
		case !httpguts.ValidHeaderFieldName(name):
			return nil, fmt.Errorf("header %s: that is not a name of a header", name)
		case expanded == "" || !httpguts.ValidHeaderFieldValue(expanded):
			return nil, fmt.Errorf("header %s: its value is empty, or has characters that no header may have (it is not shown)", name)
		}
		headers.Set(name, expanded)
	}
	headers.Set("Content-Type", "application/json")
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if err := trust(transport, h.TrustedRootsPEMFiles); err != nil {
		return nil, err
	}
	return newDelivery(u, headers, transport, cmp.Or(time.Duration(h.Timeout), webhookTimeout)), nil
}

// key is the same for handlers that do the same.
func (h *Webhook) key(to *delivery) (string, error) {
	hash := sha256.New()
	if err := json.NewEncoder(hash).Encode([]any{to.url.String(), to.headers, to.client.Timeout}); err != nil {
		return "", err
	}
	for _, file := range h.TrustedRootsPEMFiles {
		pem, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(hash, "%d %s", len(pem), pem)
	}
	return string(hash.Sum(nil)), nil
}

// Cleanup gives up the delivery. Where no other configuration has it, what waits is tried for three seconds more.
func (h *Webhook) Cleanup() error {
	if h.release == nil {
		return nil // Provision has failed
	}
	return h.release()
}

// Handle implements caddyevents.Handler. It waits for nothing.
func (h *Webhook) Handle(_ context.Context, event caddy.Event) error {
	h.to.add(message{event: event.Name(), id: event.ID().String(), body: bodyOf(event)})
	return nil
}

// MarshalLogObject implements zapcore.ObjectMarshaler: at level DEBUG Caddy logs each handler that it calls.
func (h *Webhook) MarshalLogObject(e zapcore.ObjectEncoder) error {
	e.AddString("host", h.to.url.Host)
	return nil
}

// maxData bounds the data of one event, in octets. Events of Caddy are below it.
const maxData = 64 << 10

// bodyOf is what is sent of an event. It is made at once: the data may change after Handle.
func bodyOf(event caddy.Event) []byte {
	data := make(map[string]json.RawMessage, len(event.Data))
	room := maxData
	for _, key := range slices.Sorted(maps.Keys(event.Data)) {
		value := event.Data[key]
		encoded, err := json.Marshal(sendable(value))
		if err != nil || len(encoded) > room {
			encoded = fmt.Appendf(nil, `"not sent: a %T of %d octets"`, value, len(encoded))
		}
		data[key] = encoded
		room -= len(encoded)
	}
	body, _ := json.Marshal(struct { // all of it was encoded before
		Event     string                     `json:"event"`
		ID        string                     `json:"id"`
		Timestamp time.Time                  `json:"timestamp"`
		Data      map[string]json.RawMessage `json:"data"`
	}{event.Name(), event.ID().String(), event.Timestamp().UTC(), data})
	return foreign.JSON(body)
}

// sendable is a value whose JSON means something: that of an error would be an empty object.
func sendable(value any) any {
	switch v := value.(type) {
	case error:
		return foreign.Text(v.Error())
	case []byte:
		return string(v)
	case time.Duration:
		return v.String()
	}
	return value
}

// message is an event that waits for the receiver.
type message struct {
	event, id string
	body      []byte
}

const (
	// mostMessages is how many may wait: a receiver that is down for long gets the first of them.
	mostMessages = 256
	// lastChance is for what waits when no configuration has the handler any more.
	lastChance = 3 * time.Second
)

// delivery sends messages to one receiver, one after another. While there are none nothing runs.
type delivery struct {
	url     *url.URL
	headers http.Header
	client  *http.Client
	// waits are those before the second attempt and each further one.
	waits  []time.Duration
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu        sync.Mutex
	logger    *zap.Logger
	queue     []message
	dropped   int  // of those that found no room, not logged yet
	isWorking bool // run is under way
	closed    bool
}

func newDelivery(u *url.URL, headers http.Header, transport http.RoundTripper, timeout time.Duration) *delivery {
	d := &delivery{
		url: u, headers: headers, logger: zap.NewNop(), waits: []time.Duration{time.Second, 4 * time.Second, 16 * time.Second, time.Minute},
		client: &http.Client{
			Transport: transport, Timeout: timeout,
			// it would be an event for somebody else, or none any more (a GET)
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	return d
}

// Destruct implements caddy.Destructor: no configuration has the handler any more.
func (d *delivery) Destruct() error {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	last := time.AfterFunc(lastChance, d.cancel)
	d.work.Wait()
	last.Stop()
	d.cancel()
	d.client.CloseIdleConnections()
	return nil
}

func (d *delivery) setLogger(l *zap.Logger) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.logger = l.With(zap.String("webhook", d.url.Host))
}

// warn logs through the newest configuration.
func (d *delivery) warn(text string, fields ...zap.Field) {
	d.mu.Lock()
	logger := d.logger
	d.mu.Unlock()
	logger.Warn(text, fields...)
}

// add has a message sent.
func (d *delivery) add(m message) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return // Caddy has cleaned up the configuration that the event comes from
	}
	if len(d.queue) >= mostMessages {
		d.dropped++
		return
	}
	d.queue = append(d.queue, m)
	if !d.isWorking {
		d.isWorking = true
		d.work.Go(d.run)
	}
}

// run sends what waits until nothing does.
func (d *delivery) run() {
	for {
		next, dropped, ok := d.next()
		if dropped > 0 {
			d.warn("events were dropped, for the webhook did not take those before them", zap.Int("count", dropped))
		}
		if !ok {
			return
		}
		if tries, err := d.deliver(next); err != nil {
			d.warn("an event was not taken by the webhook and is dropped", zap.String("event", next.event), zap.String("id", next.id),
				zap.Int("attempts", tries), zap.String("error", err.Error()))
		}
	}
}

// next takes the message that has waited the longest, if there is one, and the number of those that were dropped.
func (d *delivery) next() (next message, dropped int, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx.Err() != nil {
		d.dropped += len(d.queue)
		d.queue = nil
	}
	dropped, d.dropped = d.dropped, 0
	if d.isWorking = len(d.queue) > 0; !d.isWorking {
		return message{}, dropped, false
	}
	next, d.queue = d.queue[0], d.queue[1:]
	return next, dropped, true
}

// deliver sends a message, again and again if that may help.
func (d *delivery) deliver(m message) (tries int, err error) {
	for {
		mayPass := false
		if mayPass, err = d.post(m); err == nil || !mayPass || tries >= len(d.waits) {
			return tries + 1, err
		}
		if ca.Sleep(d.ctx, d.waits[tries]) != nil {
			return tries + 1, err
		}
		tries++
	}
}

// post sends a message once. mayPass says that a failure may pass by itself.
func (d *delivery) post(m message) (mayPass bool, err error) {
	req, err := http.NewRequestWithContext(d.ctx, http.MethodPost, d.url.String(), strings.NewReader(string(m.body)))
	if err != nil {
		return false, errors.New("the URL cannot be used (it is not shown)")
	}
	req.Header = d.headers.Clone()
	resp, err := d.client.Do(req)
	if err != nil {
		var shown *url.Error
		if errors.As(err, &shown) {
			err = shown.Err // without the URL
		}
		return true, foreign.Error(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10)) // so that the connection can be used again
	switch code := resp.StatusCode; {
	case code >= 200 && code <= 299:
		return false, nil
	case code >= 300 && code <= 399:
		return false, fmt.Errorf("HTTP status %d: it leads to another URL, which is not followed; configure the one that takes events", code)
	default:
		mayPass := code >= 500 || code == http.StatusTooManyRequests || code == http.StatusRequestTimeout
		return mayPass, fmt.Errorf("HTTP status %d: %s", code, foreign.Cut(string(text), 200))
	}
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Webhook)(nil)
	_ caddy.CleanerUpper    = (*Webhook)(nil)
	_ caddyfile.Unmarshaler = (*Webhook)(nil)
	_ caddyevents.Handler   = (*Webhook)(nil)
)
