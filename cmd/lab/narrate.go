package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/standard" // the standard Caddy

	_ "github.com/dnspersist/caddy-dnspersist" // the plugin
	"github.com/dnspersist/caddy-dnspersist/dnspersist"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

func init() {
	caddy.RegisterModule(logWriter{})
}

// narrator is the run that Caddy's log is told to.
var narrator *demo

// caEvent tells what the CA sees.
func (d *demo) caEvent(e lab.Event) {
	switch e.Kind {
	case "challenge":
		d.say("The CA is asked to validate %s", e.Identifier)
	case "invalid":
		d.say("The CA REFUSES %s: %s", e.Identifier, e.Detail)
	case "certificate":
		d.mu.Lock()
		if d.firstIssued.IsZero() {
			d.firstIssued = e.Time
		}
		d.mu.Unlock()
		d.say("The CA issues a certificate for %s", e.Identifier)
	}
}

// watch tells where each domain is, when that changes, in the words of the admin endpoint and of the commands.
// That a record is missing at first is told by the log.
func (d *demo) watch(ctx context.Context) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	told := make(map[string]string)
	for {
		for _, n := range statuses(ctx) {
			is := strings.Join([]string{string(n.Phase), n.Code, n.Do, n.CertificateUntil.String()}, " ")
			if told[n.Domain] == is {
				continue
			}
			switch n.Phase {
			case "wanted", "looking", "publishing", "ordering": // these pass in a moment
				continue
			}
			if isAnnounced := told[n.Domain] == "" && n.Reason == "record_absent"; !isAnnounced {
				d.say("%s", story(n))
			}
			told[n.Domain] = is
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// statuses is the answer of GET /dns_persist/names, without the entries in Caddy's log that a request makes.
func statuses(ctx context.Context) []dnspersist.NameStatus {
	var reply dnspersist.NamesReply
	for _, route := range new(dnspersist.AdminAPI).Routes() {
		if route.Pattern != "/dns_persist/names" {
			continue
		}
		answer := httptest.NewRecorder()
		req := httptest.NewRequestWithContext(ctx, http.MethodGet, route.Pattern, nil)
		if route.Handler.ServeHTTP(answer, req) != nil || json.Unmarshal(answer.Body.Bytes(), &reply) != nil {
			return nil // there is no configuration yet
		}
	}
	return reply.Names
}

// story puts where a domain is into words.
func story(n dnspersist.NameStatus) string {
	if n.Phase == "served" {
		return n.Domain + ": served, with a certificate until " + n.CertificateUntil.Local().Format(time.TimeOnly)
	}
	text := n.Domain + ": " + n.Code + ": " + strings.TrimPrefix(n.Why, n.Code+": ")
	if n.Do != "" {
		text += "\nDo: " + n.Do
	}
	if n.Record != nil { // a value is alone on its line
		text = strings.ReplaceAll(text, " "+n.Record.Value, "\n    "+n.Record.Value)
	}
	return text
}

// logEntry is what the story takes from Caddy's log.
type logEntry struct {
	Msg     string   `json:"msg"`
	Name    string   `json:"name"`
	AliasOf string   `json:"alias_of"`
	Value   string   `json:"value"`
	Domain  string   `json:"domain"`
	Names   []string `json:"issuer_domain_names"`
	// Diagnostic is what is wrong with a name server.
	Diagnostic string `json:"diagnostic"`
}

// logLine tells what is only in Caddy's log.
func (d *demo) logLine(line []byte) {
	if d.verbose {
		d.print(string(line))
	}
	var e logEntry
	if json.Unmarshal(line, &e) != nil {
		return
	}
	switch e.Msg {
	case "the CA offers dns-persist-01":
		d.say("Caddy has learned that the CA offers the challenge, under the name %v", e.Names)
	case "publish this TXT record once; the certificate follows by itself; if it does not, run caddy dns-persist check":
		d.mu.Lock()
		d.wanted[cmp.Or(e.AliasOf, e.Name)] = e.Value
		d.mu.Unlock()
		d.say("Caddy asks for this TXT record, once and for all:\n    %s\n    %s", e.Name, e.Value)
	case "a name server does not answer as it should; this is logged once for all its names":
		d.say("Caddy sees: %s", e.Diagnostic)
	case "the certificate cannot wait for DNS any longer; asking the CA although not every server has the record":
		d.say("Caddy cannot wait any longer, the certificate of %s runs out: it asks the CA although not every server has the record", e.Domain)
	case "a record that a certificate is renewed by is gone or was changed; publish it again":
		d.say("Caddy has found, as it looks once a day: the record at %s is gone or was changed; publish it again", e.Name)
	}
}

// logWriter is the log output that feeds the story.
type logWriter struct{}

// CaddyModule returns the Caddy module information.
func (logWriter) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.logging.writers.dns_persist_lab", New: func() caddy.Module { return new(logWriter) }}
}

func (logWriter) String() string    { return "the lab's narrator" }
func (logWriter) WriterKey() string { return "dns_persist_lab" }

// OpenWriter implements caddy.WriterOpener.
func (logWriter) OpenWriter() (io.WriteCloser, error) { return new(lineWriter), nil }

// lineWriter cuts the log into lines. Caddy writes from wherever something happens.
type lineWriter struct {
	mu   sync.Mutex
	rest []byte
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rest = append(w.rest, p...)
	for {
		line, rest, ok := bytes.Cut(w.rest, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		if narrator != nil {
			narrator.logLine(line)
		}
		w.rest = rest
	}
}

func (w *lineWriter) Close() error { return nil }

// UnmarshalCaddyfile accepts the bare word.
func (logWriter) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() {
		return d.ArgErr()
	}
	return nil
}
