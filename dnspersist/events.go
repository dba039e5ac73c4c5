package dnspersist

import (
	"context"
	"errors"
	"fmt"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
)

// certificateEvents hands over to the registry what CertMagic reports of certificates, whichever issuer
// they are of: one that is loaded from storage comes to no issuer at all.
type certificateEvents struct{ app *App }

// subscribe subscribes to them.
func (e certificateEvents) subscribe(ctx caddy.Context) error {
	app, err := ctx.App("events")
	if err != nil {
		return fmt.Errorf("getting the events app: %w", err)
	}
	return app.(*caddyevents.App).Subscribe(&caddyevents.Subscription{
		Events: []string{"cached_managed_cert", "cert_obtained", "cert_failed"}, Handlers: []caddyevents.Handler{e},
	})
}

// Handle implements caddyevents.Handler. Names on demand are not kept: whoever asks looks them up.
func (e certificateEvents) Handle(_ context.Context, event caddy.Event) error {
	r, c := e.app.shared.registry, e.app.waits
	domain, _ := event.Data["identifier"].(string)
	switch event.Name() {
	case "cached_managed_cert":
		domains, _ := event.Data["sans"].([]string)
		for _, domain := range domains {
			if e.app.planned().names[domain] {
				r.Served(c, domain, "")
			}
		}
	case "cert_obtained":
		if issuer, _ := event.Data["issuer"].(string); e.app.planned().names[domain] {
			r.Served(c, domain, issuer)
		}
	case "cert_failed":
		err, _ := event.Data["error"].(error)
		if err == nil {
			err = errors.New(fmt.Sprint(event.Data["error"]))
		}
		if e.app.planned().names[domain] {
			r.Failed(c, domain, err)
		}
	}
	return nil
}
