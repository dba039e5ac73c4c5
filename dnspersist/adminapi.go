package dnspersist

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/managed"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/operator"
)

func init() {
	caddy.RegisterModule(AdminAPI{})
}

// adminTimeout bounds one request: servers that do not answer take seconds each.
const adminTimeout = 2 * time.Minute

// AdminAPI answers, at `/dns_persist/` of Caddy's admin endpoint, which records the running
// configuration needs and what DNS shows of them.
//
//   - `GET /dns_persist/`: the CAs, and how many names are managed and waiting
//   - `GET /dns_persist/names`: where each name is on its way to a certificate, the most urgent first;
//     `?domain=<name>`, `?phase=<phase>`, `?reason=<reason>`, repeated, and `?ca=<directory URL>` choose
//     some, and `?limit=<number>&after=<after of the answer before>` go through them
//   - `GET /dns_persist/health`: 200 if this node is of use, 503 if it is not; with `?strict` also if somebody
//     should look
//   - `GET /dns_persist/records`: all records that are wanted; `/dns_persist/records/<name>`:
//     that of one name, also of one that no configuration lists; `?domain=<name>`, repeated,
//     those of several; `?ca=<directory URL>` those for one CA
//   - `GET /dns_persist/account`: the bound accounts, never a key; `?ca=<directory URL>` that at one CA
//   - `GET /dns_persist/probe`: whether and how the CAs offer the challenge
//   - `POST /dns_persist/check`: looks at DNS now; waiting names are looked at again
//
// Only `check` takes POST, and nothing here changes an account or a record.
//
// Until the first configuration has started all answer 503; during a reload the one that still runs does.
type AdminAPI struct{}

// CaddyModule returns the Caddy module information.
func (AdminAPI) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "admin.api.dns_persist",
		New: func() caddy.Module { return new(AdminAPI) },
	}
}

// Routes implements caddy.AdminRouter.
func (*AdminAPI) Routes() []caddy.AdminRoute {
	var all []caddy.AdminRoute
	for _, h := range operator.Handlers() {
		all = append(all, caddy.AdminRoute{Pattern: operator.Prefix + h.Path, Handler: served(h)})
		if h.Path == "" {
			all = append(all, caddy.AdminRoute{Pattern: strings.TrimSuffix(operator.Prefix, "/"), Handler: served(h)})
		}
	}
	return all
}

// The answers of the admin API, which are the JSON of the commands as well.
type (
	// NamesReply has where names are on their way to a certificate.
	NamesReply = operator.NamesReply
	// NameStatus is where a name is.
	NameStatus = operator.NameStatus
	// HealthReply has how the node is.
	HealthReply = operator.HealthReply
	// RecordsReply has the records that are wanted.
	RecordsReply = operator.RecordsReply
	// RecordSet is what has to be published at one validation name.
	RecordSet = operator.RecordSet
	// AccountReply has the bound accounts.
	AccountReply = operator.AccountReply
	// ProbeReply has what the CAs offer.
	ProbeReply = operator.ProbeReply
	// CheckReply has what DNS shows, and what the CAs make of it.
	CheckReply = operator.CheckReply
)

// served has a handler answer for the running configuration.
func served(h operator.Handler) caddy.AdminHandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		if r.Method != h.Method && (r.Method != http.MethodHead || h.Method != http.MethodGet) {
			w.Header().Set("Allow", h.Method)
			return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Err: fmt.Errorf("method not allowed: use %s", h.Method)}
		}
		app, err := startedApp()
		if errors.Is(err, errStarting) {
			w.Header().Set("Retry-After", "1")
			return caddy.APIError{HTTPStatus: http.StatusServiceUnavailable, Err: err}
		}
		if err != nil {
			return caddy.APIError{HTTPStatus: http.StatusNotFound, Err: err}
		}
		ctx, cancel := context.WithTimeout(r.Context(), adminTimeout)
		defer cancel()
		return h.Answer(app.operator(), w, r.WithContext(ctx))
	}
}

// errStarting is the answer while there is no configuration that has started.
var errStarting = errors.New("no configuration of Caddy has started yet: try again in a second")

// startedApp is the app of the configuration that runs. The one of this module may not have started:
// Caddy serves the endpoint before it provisions the apps, which may not be touched meanwhile.
func startedApp() (*App, error) {
	ctx := caddy.ActiveContext()
	if ctx.Context == nil {
		return nil, errStarting
	}
	app, err := ctx.AppIfConfigured("dns_persist")
	if err != nil {
		return nil, operator.ErrNotConfigured
	}
	return app.(*App), nil
}

// operator answers for the running configuration.
func (a *App) operator() *operator.Operator {
	return &operator.Operator{Registry: a.shared.registry, Vitals: a.vitals, Plan: func() managed.Plan[operator.Issuer] {
		return managed.Loaded(a.ctx, func(i certmagic.Issuer) (operator.Issuer, bool) {
			iss, ok := i.(*Issuer)
			return owner{iss}, ok
		})
	}}
}

// vitals are what is known of the CAs and the storages.
func (a *App) vitals(ctx context.Context) operator.Vitals {
	v := operator.Vitals{Storage: a.storageTried.of(ctx, a)}
	for _, iss := range a.planned().inUse() {
		seen := a.shared.metrics.CA(iss.CA, owner{iss}.account())
		v.CAs = append(v.CAs, operator.VitalsOfCA{CA: iss.CA, IsAccountLost: seen.IsAccountLost(), DownSince: seen.DownSince()})
	}
	return v
}

// storageTried is what came of the last try of a configuration's storages, for those who ask for the health.
type storageTried struct {
	mu sync.Mutex
	at time.Time
	// err is why a storage cannot be used.
	err error
	// ended is closed when the try that has begun at began has ended; nil if none is under way.
	ended chan struct{}
	began time.Time
}

const (
	// storageFresh is how long a try counts: load balancers ask every few seconds.
	storageFresh = time.Minute
	// storageAnswers is how long somebody who asks waits for a try.
	storageAnswers = 3 * time.Second
)

// of has the storages tried, unless that was done lately, and waits for that, though not for one that hangs: all
// who ask meanwhile would.
func (t *storageTried) of(ctx context.Context, a *App) error {
	t.mu.Lock()
	if t.ended == nil && (t.at.IsZero() || time.Since(t.at) >= storageFresh) {
		ended := make(chan struct{})
		if !a.spawn(func(alive context.Context) { t.try(alive, a, ended) }) {
			t.mu.Unlock()
			return errors.New("the configuration has ended")
		}
		t.ended, t.began = ended, time.Now()
	}
	ended, left := t.ended, storageAnswers-time.Since(t.began)
	t.mu.Unlock()
	if ended != nil {
		ctx, cancel := context.WithTimeout(ctx, left)
		defer cancel()
		select {
		case <-ended:
		case <-ctx.Done():
			return fmt.Errorf("the storage has not answered within %s: see that it can be reached, and is not overloaded", storageAnswers)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// try tries the storages, each once.
func (t *storageTried) try(ctx context.Context, a *App, ended chan struct{}) {
	tried := make(map[string]bool)
	var errs []error
	for _, iss := range a.planned().inUse() {
		storage := iss.rt.config().Storage
		if key := operator.StorageKey(storage); !tried[key] {
			tried[key] = true
			if err := tryStorage(ctx, storage); err != nil {
				errs = append(errs, fmt.Errorf("the storage %s cannot be used: %w", operator.StorageName(storage), err))
			}
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.at, t.err, t.ended = time.Now(), errors.Join(errs...), nil
	close(ended)
}

// Interface guard
var _ caddy.AdminRouter = (*AdminAPI)(nil)
