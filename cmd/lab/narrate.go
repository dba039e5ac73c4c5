package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"io"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/standard" // the standard Caddy

	_ "github.com/dnspersist/caddy-dnspersist" // the plugin
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

// logEntry is what the story takes from Caddy's log.
type logEntry struct {
	Level   string `json:"level"`
	Msg     string `json:"msg"`
	Name    string `json:"name"`
	AliasOf string `json:"alias_of"`
	Value   string `json:"value"`
	Domain  string `json:"domain"`
	// Identifier is CertMagic's word.
	Identifier string `json:"identifier"`
	Status     string `json:"status"`
	DNS        string `json:"dns"`
	Error      string `json:"error"`
	CA         string `json:"ca"`
	// Diagnostics are the details of what DNS shows.
	Diagnostics []string `json:"diagnostics"`
	Diagnostic  string   `json:"diagnostic"`
	// Found is what is published in place of the record, and Do what to do about it.
	Found []string `json:"found"`
	Do    string   `json:"do"`
	Names []string `json:"issuer_domain_names"`
}

// logLine tells what Caddy says.
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
	case "record changed in DNS", "what DNS shows of a record has changed":
		if e.DNS != "" {
			d.say("Caddy sees %s: %s", e.Domain, e.DNS)
		}
		for _, text := range e.Diagnostics {
			d.say("%s", text)
		}
	case "a TXT record is published at the validation name, and it is not the one that the CA wants":
		d.say("Caddy sees another record at %s: %s", e.Name, strings.Join(e.Found, "; "))
		d.say("To do: %s", e.Do)
	case "a name server does not answer as it should; this is logged once for all its names":
		d.say("Caddy sees: %s", e.Diagnostic)
	case "the certificate cannot wait for DNS any longer; asking the CA although not every server has the record":
		d.say("Caddy cannot wait any longer, the certificate of %s runs out: it asks the CA although not every server has the record", e.Domain)
	case "a record that a certificate is renewed by is gone or was changed; publish it again":
		d.say("Caddy says on the day: the record at %s is gone; publish it again", e.Name)
	case "certificate renewed successfully":
		d.say("Caddy has a new certificate for %s", e.Identifier)
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

// lineWriter cuts the log into lines.
type lineWriter struct{ rest []byte }

func (w *lineWriter) Write(p []byte) (int, error) {
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
