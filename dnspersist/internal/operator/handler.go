package operator

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/managed"
)

const (
	// Prefix is where the answers are at Caddy's admin endpoint.
	Prefix = "/dns_persist/"
	// maxCheckNames is how many names one request may have looked at.
	maxCheckNames = 200
	// checkWorkers is how many of them are looked at at once.
	checkWorkers = 32
)

// OverviewReply is the answer to GET /dns_persist/.
type OverviewReply struct {
	// CAs are the directory URLs.
	CAs []string `json:"cas"`
	// Managed is how many names are managed, Waiting how many wait.
	Managed int `json:"managed"`
	Waiting int `json:"waiting"`
}

// RecordsReply is the answer to GET /dns_persist/records, and the JSON of the command.
type RecordsReply struct {
	Records []RecordSet `json:"records"`
	// Failed are CAs of which nothing is known; records for them are not among Records.
	Failed []Failure `json:"failed,omitempty"`
}

// AccountReply is the answer to GET /dns_persist/account, and the JSON of the command.
type AccountReply struct {
	Accounts []acmepersist.AccountState `json:"accounts"`
	// Failed are CAs of whose accounts nothing is known.
	Failed []Failure `json:"failed,omitempty"`
}

// ProbeReply is the answer to GET /dns_persist/probe, and the JSON of the command.
type ProbeReply struct {
	CAs []acmepersist.Probe `json:"cas"`
	// Failed are CAs that have not answered.
	Failed []Failure `json:"failed,omitempty"`
}

// CheckRequest is the body of POST /dns_persist/check.
type CheckRequest struct {
	// Names are looked at now. Without any, all waiting names are, and the answer does not
	// wait for it.
	Names []string `json:"names"`
	// CA is the directory URL of the only CA that is meant; empty for all that the names have.
	CA string `json:"ca,omitempty"`
	// Thorough asks some twenty questions more for each name, to find what is wrong.
	Thorough bool `json:"thorough,omitempty"`
}

// CheckReply is the answer to POST /dns_persist/check, and the JSON of the command.
type CheckReply struct {
	Checks []acmepersist.Checked `json:"checks"`
	// Failed are CAs of which nothing is known; names for them are not among Checks.
	Failed []Failure `json:"failed,omitempty"`
	// Held are the names whose certificates a running Caddy does not obtain now for another reason than the
	// record. It tries again what somebody may have corrected, once a minute at most.
	Held []NameStatus `json:"held,omitempty"`
	// Poked is how many waiting names are looked at again.
	Poked int `json:"poked"`
}

// Handler answers one kind of request.
type Handler struct {
	Method string
	// Path is below Prefix. A name may follow that of records.
	Path string
	// parameters are those that a request may have.
	parameters []string
	answer     func(context.Context, *Operator, *http.Request) (any, error)
}

// Handlers are those of the admin endpoint: they change no account and no record, and make no order.
func Handlers() []Handler {
	return []Handler{
		{http.MethodGet, "", nil, overview},
		{http.MethodGet, "records", []string{"domain", "name", "ca"}, records},
		{http.MethodGet, "records/", []string{"domain", "name", "ca"}, records},
		{http.MethodGet, "names", []string{"domain", "phase", "reason", "severity", "ca", "limit", "after"}, names},
		{http.MethodGet, "health", []string{"strict"}, health},
		{http.MethodGet, "account", []string{"ca"}, account},
		{http.MethodGet, "probe", []string{"ca"}, probe},
		{http.MethodPost, "check", nil, check},
	}
}

// Answer writes the answer to a request. An error of it has a status, as Caddy wants it.
func (h Handler) Answer(o *Operator, w http.ResponseWriter, r *http.Request) error {
	data, status, err := h.encoded(o, r)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, err = w.Write(data)
	return err
}

// encoded is the answer with its status, which an answer may have itself.
func (h Handler) encoded(o *Operator, r *http.Request) (data []byte, status int, err error) {
	if err := h.checkParameters(r.URL.Query()); err != nil {
		return nil, 0, withStatus(badRequest(err))
	}
	reply, err := h.answer(r.Context(), o, r)
	if err != nil {
		return nil, 0, withStatus(err)
	}
	status = http.StatusOK
	if own, ok := reply.(interface{ HTTPStatus() int }); ok {
		status = own.HTTPStatus()
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err = enc.Encode(reply)
	return foreign.JSON(b.Bytes()), status, err
}

// checkParameters is an error for a parameter that would be ignored.
func (h Handler) checkParameters(given url.Values) error {
	for _, name := range slices.Sorted(maps.Keys(given)) {
		switch {
		case slices.Contains(h.parameters, name):
		case len(h.parameters) == 0:
			return fmt.Errorf("there is no parameter %q: %s takes none in the URL", name, Prefix+h.Path)
		default:
			return fmt.Errorf("there is no parameter %q: %s takes %s", name, Prefix+h.Path, strings.Join(h.parameters, ", "))
		}
	}
	return nil
}

func badRequest(err error) error { return caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: err} }

// listOf is a parameter that is given several times, or with commas.
func listOf(given url.Values, parameter string) (all []string) {
	for _, values := range given[parameter] {
		all = append(all, strings.FieldsFunc(values, func(r rune) bool { return r == ',' || r == ' ' })...)
	}
	return all
}

// RoundTrip implements http.RoundTripper: a command asks the same handlers within its own process.
func (o *Operator) RoundTrip(r *http.Request) (*http.Response, error) {
	reply := &http.Response{StatusCode: http.StatusNotFound, Header: make(http.Header), Request: r, Body: http.NoBody}
	for _, h := range Handlers() {
		if r.Method != h.Method || r.URL.Path != Prefix+h.Path {
			continue
		}
		data, status, err := h.encoded(o, r)
		if r.Context().Err() != nil {
			return nil, context.Cause(r.Context())
		}
		reply.StatusCode = status
		if err != nil {
			reply.StatusCode = http.StatusBadRequest
			if data, err = json.Marshal(caddy.APIError{Message: err.Error()}); err != nil {
				return nil, err
			}
		}
		reply.Body = io.NopCloser(bytes.NewReader(data))
	}
	return reply, nil
}

// withStatus gives an error its status; Caddy looks at no wrapped one.
func withStatus(err error) error {
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

func overview(_ context.Context, o *Operator, r *http.Request) (any, error) {
	if strings.Trim(r.URL.Path, "/") != strings.Trim(Prefix, "/") {
		return nil, caddy.APIError{HTTPStatus: http.StatusNotFound, Err: fmt.Errorf("there is no %s: there are names, health, records, account, probe and check", r.URL.Path)}
	}
	return OverviewReply{CAs: o.CAs(), Managed: len(o.Managed()), Waiting: len(o.waiting())}, nil
}

func records(ctx context.Context, o *Operator, r *http.Request) (any, error) {
	given := r.URL.Query()
	names := append(listOf(given, "domain"), listOf(given, "name")...)
	if name := strings.Trim(strings.TrimPrefix(r.URL.Path, Prefix+"records"), "/"); name != "" {
		names = append(names, name)
	}
	return o.Records(ctx, given.Get("ca"), names)
}

// names takes the parameters domain, phase, reason and severity, each several times or with commas, and ca,
// after and limit.
func names(ctx context.Context, o *Operator, r *http.Request) (any, error) {
	given := r.URL.Query()
	q := NamesQuery{
		Domains: listOf(given, "domain"), Phases: listOf(given, "phase"), Reasons: listOf(given, "reason"), Severities: listOf(given, "severity"),
		CA: given.Get("ca"), After: given.Get("after"),
	}
	var err error
	if limit := given.Get("limit"); limit != "" {
		if q.Limit, err = strconv.Atoi(limit); err != nil {
			err = fmt.Errorf("limit is %q, not a number", limit)
		}
	}
	if err = errors.Join(err, q.check()); err != nil {
		return nil, badRequest(err)
	}
	return o.Names(ctx, q)
}

// health takes the parameter strict, without a value or with true or false.
func health(ctx context.Context, o *Operator, r *http.Request) (any, error) {
	given := r.URL.Query()
	isStrict, err := strconv.ParseBool(cmp.Or(given.Get("strict"), "true"))
	if err != nil {
		return nil, badRequest(fmt.Errorf("strict is %q: give true or false, or leave its value out", given.Get("strict")))
	}
	reply, err := o.Health(ctx)
	reply.isStrict = isStrict && given.Has("strict")
	return reply, err
}

func account(ctx context.Context, o *Operator, r *http.Request) (any, error) {
	return o.Accounts(ctx, r.URL.Query().Get("ca"))
}

func probe(ctx context.Context, o *Operator, r *http.Request) (any, error) {
	return o.Probe(ctx, r.URL.Query().Get("ca"))
}

func check(ctx context.Context, o *Operator, r *http.Request) (any, error) {
	var req CheckRequest
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err == nil && len(body) > 0 {
		err = readStrictly(body, &req)
	}
	if err != nil {
		return nil, badRequest(fmt.Errorf("reading the request: %w; it has names, a list, ca, a directory URL, and thorough, true or false", err))
	}
	if len(req.Names) > maxCheckNames {
		return nil, badRequest(fmt.Errorf("%d names at once: at most %d are looked at in one request", len(req.Names), maxCheckNames))
	}
	reply := CheckReply{Checks: []acmepersist.Checked{}}
	if len(req.Names) > 0 {
		checks, failed, err := o.Checks(ctx, req.CA, req.Names)
		if err != nil {
			return nil, err
		}
		reply.Failed = failed
		reply.Checks = look(ctx, checks, req.Thorough)
	}
	if o.Registry != nil {
		reply.Poked = o.Registry.Poke(req.Names)
		reply.Held = o.held(req.Names) // a retry may have begun
	}
	return reply, nil
}

// readStrictly reads one JSON value, without unknown fields and with nothing behind it.
func readStrictly(data []byte, into any) error {
	if !json.Valid(data) {
		return errors.New("it is not one JSON value")
	}
	return caddy.StrictUnmarshalJSON(data, into)
}

// look looks at several names at once, and returns what came of it in their order.
func look(ctx context.Context, checks []*acmepersist.Check, thorough bool) []acmepersist.Checked {
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

// UnknownNameError means that no dns_persist issuer serves a name.
type UnknownNameError struct {
	Name string
	// CA is the only one that was asked for, and does not serve the name; empty if none of the configuration does.
	CA string
	// IsOthers is true for a name that the configuration has another issuer for.
	IsOthers bool
	// Near is a managed name that hardly differs; empty if there is none.
	Near string
}

// unknownName is the error for a name that no issuer of a plan serves.
func unknownName(p managed.Plan[Issuer], name string, guess bool) error {
	e := &UnknownNameError{Name: name, IsOthers: p.IsOthers(name)}
	if guess && !e.IsOthers {
		e.Near = Near(name, p.Names())
	}
	return e
}

func (e *UnknownNameError) Error() string {
	switch {
	case e.CA != "":
		return fmt.Sprintf("the certificate of %s is not obtained from the CA %s: leave the name or --ca out", e.Name, e.CA)
	case e.IsOthers:
		return fmt.Sprintf("no dns_persist issuer serves %s: the configuration has another issuer for it; give its site or policy dns_persist, or make its record with --account-url and --issuer", e.Name)
	case e.Near != "":
		return fmt.Sprintf("no dns_persist issuer of the configuration serves %s: did you mean %s?", e.Name, e.Near)
	}
	return fmt.Sprintf("no dns_persist issuer of the configuration serves %s: another issuer does, or none; add the name to a site with dns_persist, or make its record with --account-url and --issuer", e.Name)
}

// mostGuessed is for how many names it is guessed what was meant.
const mostGuessed = 10

// Near is the name of several that takes the fewest changes to become the given one, two at
// most; empty if there is none.
func Near(name string, names []string) string {
	best, near := 3, ""
	for _, n := range names {
		if len(name)-len(n) >= best || len(n)-len(name) >= best {
			continue
		}
		if d := distance(name, n); d < best {
			best, near = d, n
		}
	}
	return near
}

// distance is how many letters have to be added, taken out or exchanged to make b of a.
func distance(a, b string) int {
	last := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		before := last[0]
		last[0] = i + 1
		for j := range len(b) {
			change := before
			if a[i] != b[j] {
				change++
			}
			before, last[j+1] = last[j+1], min(change, last[j]+1, last[j+1]+1)
		}
	}
	return last[len(b)]
}
