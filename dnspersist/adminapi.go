package dnspersist

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
)

func init() {
	caddy.RegisterModule(AdminAPI{})
}

const (
	adminPrefix = "/dns_persist/"
	// maxCheckNames is how many names one request may have looked at.
	maxCheckNames = 200
	// checkWorkers is how many of them are looked at at once.
	checkWorkers = 32
	// adminTimeout bounds one request: servers that do not answer take seconds each.
	adminTimeout = 2 * time.Minute
)

// AdminAPI tells, at `/dns_persist/` of Caddy's admin endpoint, which records the running
// configuration needs and what DNS shows of them.
//
//   - `GET /dns_persist/`: the CAs, and how many names are managed and waiting
//   - `GET /dns_persist/records`: all records that are wanted; `/dns_persist/records/<name>`:
//     that of one name, also of one that no configuration lists; `?name=<name>`, repeated,
//     those of several
//   - `GET /dns_persist/account`: the bound accounts, never a key
//   - `GET /dns_persist/probe`: what the CAs say of the challenge
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
func (a *AdminAPI) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{
		{Pattern: strings.TrimSuffix(adminPrefix, "/"), Handler: a.handler(http.MethodGet, a.overview)},
		{Pattern: adminPrefix, Handler: a.handler(http.MethodGet, a.overview)},
		{Pattern: adminPrefix + "records", Handler: a.handler(http.MethodGet, a.records)},
		{Pattern: adminPrefix + "records/", Handler: a.handler(http.MethodGet, a.records)},
		{Pattern: adminPrefix + "account", Handler: a.handler(http.MethodGet, a.account)},
		{Pattern: adminPrefix + "probe", Handler: a.handler(http.MethodGet, a.probe)},
		{Pattern: adminPrefix + "check", Handler: a.handler(http.MethodPost, a.check)},
	}
}

// OverviewReply is the answer to GET /dns_persist/.
type OverviewReply struct {
	// CAs are the directory URLs.
	CAs []string `json:"cas"`
	// Managed is how many names are managed, Waiting for how many a record is waited for.
	Managed int `json:"managed"`
	Waiting int `json:"waiting"`
}

// RecordsReply is the answer to GET /dns_persist/records, and the JSON of the command.
type RecordsReply struct {
	Records []RecordSet `json:"records"`
	// Failed are CAs of which nothing could be told; records for them are not among Records.
	Failed []Failure `json:"failed,omitempty"`
}

// AccountReply is the answer to GET /dns_persist/account, and the JSON of the command.
type AccountReply struct {
	Accounts []acmepersist.AccountState `json:"accounts"`
	// Failed are CAs whose accounts could not be told of.
	Failed []Failure `json:"failed,omitempty"`
}

// ProbeReply is the answer to GET /dns_persist/probe, and the JSON of the command.
type ProbeReply struct {
	CAs []acmepersist.Probe `json:"cas"`
	// Failed are CAs that have told nothing.
	Failed []Failure `json:"failed,omitempty"`
}

// CheckRequest is the body of POST /dns_persist/check.
type CheckRequest struct {
	// Names are looked at now. Without any, all waiting names are, and the answer does not
	// wait for it.
	Names []string `json:"names"`
	// Thorough asks some twenty questions more for each name, to find what is wrong.
	Thorough bool `json:"thorough,omitempty"`
}

// CheckReply is the answer to POST /dns_persist/check, and the JSON of the command.
type CheckReply struct {
	Checks []acmepersist.Checked `json:"checks"`
	// Failed are CAs of which nothing could be told; names for them are not among Checks.
	Failed []Failure `json:"failed,omitempty"`
	// Poked is how many waiting names are looked at again.
	Poked int `json:"poked"`
}

// handler checks the method, finds the running configuration and writes the answer.
func (a *AdminAPI) handler(method string, fn func(context.Context, *Operator, *http.Request) (any, error)) caddy.AdminHandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		if r.Method != method && (r.Method != http.MethodHead || method != http.MethodGet) {
			w.Header().Set("Allow", method)
			return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Err: fmt.Errorf("method not allowed: use %s", method)}
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
		reply, err := fn(ctx, app.operator(), r)
		if err != nil {
			return apiError(err)
		}
		w.Header().Set("Content-Type", "application/json")
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(reply); err != nil {
			return err
		}
		_, err = w.Write(foreign.JSON(b.Bytes()))
		return err
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
		return nil, ErrNotConfigured
	}
	return app.(*App), nil
}

// apiError gives an error its status; Caddy looks at no wrapped one.
func apiError(err error) error {
	var (
		api         caddy.APIError
		unknown     *UnknownNameError
		account     *acmepersist.AccountError
		unsupported *acmepersist.UnsupportedNameError
	)
	status := http.StatusBadGateway
	switch {
	case errors.As(err, &api):
		return api
	case errors.As(err, &unknown), errors.Is(err, ErrNotConfigured):
		status = http.StatusNotFound
	case errors.As(err, &account), errors.Is(err, acmepersist.ErrNoAccount):
		status = http.StatusConflict
	case errors.As(err, &unsupported):
		status = http.StatusBadRequest
	}
	return caddy.APIError{HTTPStatus: status, Err: err}
}

// operator tells of the running configuration.
func (a *App) operator() *Operator { return &Operator{plan: a.livePlan, app: a} }

func (a *AdminAPI) overview(_ context.Context, op *Operator, r *http.Request) (any, error) {
	if strings.Trim(r.URL.Path, "/") != strings.Trim(adminPrefix, "/") {
		return nil, caddy.APIError{HTTPStatus: http.StatusNotFound, Err: fmt.Errorf("there is no %s: there are records, account, probe and check", r.URL.Path)}
	}
	return OverviewReply{CAs: op.CAs(), Managed: len(op.Managed()), Waiting: len(op.waiting())}, nil
}

func (a *AdminAPI) records(ctx context.Context, op *Operator, r *http.Request) (any, error) {
	names := r.URL.Query()["name"]
	if name := strings.Trim(strings.TrimPrefix(r.URL.Path, adminPrefix+"records"), "/"); name != "" {
		names = append(names, name)
	}
	sets, err := op.Records(ctx, names)
	failed, err := partly(err)
	return RecordsReply{sets, failed}, err
}

func (a *AdminAPI) account(ctx context.Context, op *Operator, _ *http.Request) (any, error) {
	all, err := op.Accounts(ctx, "")
	failed, err := partly(err)
	return AccountReply{all, failed}, err
}

func (a *AdminAPI) probe(ctx context.Context, op *Operator, _ *http.Request) (any, error) {
	all, err := op.Probe(ctx, "")
	failed, err := partly(err)
	return ProbeReply{all, failed}, err
}

func (a *AdminAPI) check(ctx context.Context, op *Operator, r *http.Request) (any, error) {
	var req CheckRequest
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err == nil && len(body) > 0 {
		err = readStrictly(body, &req)
	}
	if err != nil {
		return nil, caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: fmt.Errorf("reading the request: %w; it has names, a list, and thorough, true or false", err)}
	}
	if len(req.Names) > maxCheckNames {
		return nil, caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: fmt.Errorf("%d names at once: at most %d are looked at in one request", len(req.Names), maxCheckNames)}
	}
	reply := CheckReply{Checks: []acmepersist.Checked{}}
	if len(req.Names) > 0 {
		checks, err := op.Checks(ctx, req.Names)
		if reply.Failed, err = partly(err); err != nil {
			return nil, err
		}
		reply.Checks = LookAll(ctx, checks, req.Thorough)
	}
	reply.Poked = op.poke(req.Names)
	return reply, nil
}

// readStrictly reads one JSON value, without unknown fields and with nothing behind it.
func readStrictly(data []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON")
	}
	return nil
}

// LookAll looks at several names at once, and returns what came of it in their order.
func LookAll(ctx context.Context, checks []*acmepersist.Check, thorough bool) []acmepersist.Checked {
	all := make([]acmepersist.Checked, len(checks))
	var wg sync.WaitGroup
	slots := make(chan struct{}, checkWorkers)
	for i, c := range checks {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			all[i] = c.Look(ctx, thorough)
		})
	}
	wg.Wait()
	return all
}

// Interface guard
var _ caddy.AdminRouter = (*AdminAPI)(nil)
