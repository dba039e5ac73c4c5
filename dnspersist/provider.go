package dnspersist

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/libdns/libdns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/publish"
)

// Provider is a DNS provider for one run of a command: it is never part of a configuration.
type Provider struct {
	libdns.RecordAppender
	// Secrets are all strings of its configuration that could be one.
	Secrets []string
}

// shortestSecret is how long a string of a provider's configuration must be to be redacted:
// shorter ones would garble every error and protect nothing.
const shortestSecret = 4

// Provider loads a provider from its JSON, a `dns.providers.*` module with its `name`.
func (o *Offline) Provider(raw []byte) (Provider, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		// the cause could quote a secret
		return Provider{}, errors.New(`the provider is no JSON object such as {"name": "rfc2136", "server": "…"}`)
	}
	var name string
	if json.Unmarshal(fields["name"], &name) != nil || name == "" {
		return Provider{}, errors.New(`the provider has no "name": it is that of a dns.providers module, such as "cloudflare"`)
	}
	delete(fields, "name")
	rest, err := json.Marshal(fields)
	if err != nil {
		return Provider{}, fmt.Errorf("reading the provider %s: %w", name, err)
	}
	p := Provider{Secrets: secretsOf(rest)}
	module, err := o.ctx.LoadModuleByID("dns.providers."+name, rest)
	if err != nil {
		return Provider{}, fmt.Errorf("loading the provider %s: %s; `caddy list-modules` shows which are built in", name, foreign.Text(publish.Redact(err.Error(), p.Secrets)))
	}
	appender, ok := module.(libdns.RecordAppender)
	if !ok {
		return Provider{}, fmt.Errorf("the provider %s cannot add records", name)
	}
	p.RecordAppender = appender
	return p, nil
}

// secretsOf lists the strings in a provider's JSON, but not the name of its module: errors
// have to say which it is.
func secretsOf(raw json.RawMessage) []string {
	var v any
	if json.Unmarshal(raw, &v) != nil {
		return nil
	}
	if fields, ok := v.(map[string]any); ok {
		delete(fields, "name")
	}
	var all []string
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case string:
			if len(v) >= shortestSecret {
				all = append(all, v)
			}
		case []any:
			for _, one := range v {
				walk(one)
			}
		case map[string]any:
			for _, one := range v {
				walk(one)
			}
		}
	}
	walk(v)
	return all
}
