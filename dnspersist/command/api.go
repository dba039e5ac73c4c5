package command

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/dnspersist/caddy-dnspersist/dnspersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// api is the admin endpoint of a Caddy that runs.
type api struct {
	address string
	// base is the URL's beginning; port is whether it is that of a port, and not of a socket, which
	// allows no origin.
	base   string
	port   bool
	client *http.Client
}

// urlNames is how many names are put into the URL of one request.
const urlNames = 100

func newAPI(address string) (*api, error) {
	parsed, err := caddy.ParseNetworkAddress(address)
	if err != nil || parsed.PortRangeSize() > 1 {
		return nil, fmt.Errorf("%q is no address of an admin endpoint, such as localhost:2019 or unix//run/caddy.sock", address)
	}
	// as Caddy's own commands do, see caddycmd.AdminAPIRequest: a test holds the two together
	a := &api{address: address, base: "http://" + parsed.JoinHostPort(0), port: true}
	if parsed.IsUnixNetwork() || parsed.IsFdNetwork() {
		a.base, a.port = "http://127.0.0.1", false
		// the address of a socket may hold its permissions
		parsed.Host, _, _ = strings.Cut(parsed.Host, "|")
	}
	dialer := net.Dialer{Timeout: 5 * time.Second}
	a.client = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, parsed.Network, parsed.JoinHostPort(0))
		},
	}}
	return a, nil
}

// Close implements source.
func (a *api) Close() error {
	a.client.CloseIdleConnections()
	return nil
}

// reachable makes sure that there is a Caddy with this plugin and a configuration for it.
func (a *api) reachable(ctx context.Context) error {
	return a.call(ctx, http.MethodGet, "", nil, new(dnspersist.OverviewReply))
}

// call makes one request.
func (a *api) call(ctx context.Context, method, path string, body, into any) error {
	var reader io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("asking the running Caddy: %w", err)
		}
		reader = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, a.base+"/dns_persist/"+path, reader)
	if err != nil {
		return fmt.Errorf("asking the running Caddy: %w", err)
	}
	if a.port {
		req.Header.Set("Origin", a.base)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := a.client.Do(req)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			if strings.HasPrefix(a.address, "fd") {
				return fmt.Errorf("%s is a socket that the service manager has handed to Caddy, and nobody else can reach it by this number: "+
					"name the address that it is bound to with --address, such as unix//run/caddy.sock", a.address)
			}
			return fmt.Errorf("no Caddy answers at %s: %w", a.address, op.Err)
		}
		return fmt.Errorf("asking the running Caddy at %s: %w", a.address, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("reading the answer of the running Caddy at %s: %w", a.address, err)
	}
	if resp.StatusCode != http.StatusOK {
		var said struct {
			Error string `json:"error"`
		}
		if json.Unmarshal(data, &said) != nil || said.Error == "" {
			return fmt.Errorf("the Caddy at %s answers %s: is the plugin dns_persist built in?", a.address, resp.Status)
		}
		return fmt.Errorf("the running Caddy at %s: %s", a.address, said.Error)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("reading the answer of the running Caddy at %s: %w", a.address, err)
	}
	return nil
}

// Records implements source.
func (a *api) Records(ctx context.Context, names []string) ([]dnspersist.RecordSet, error) {
	if len(names) == 0 {
		var reply dnspersist.RecordsReply
		if err := a.call(ctx, http.MethodGet, "records", nil, &reply); err != nil {
			return nil, err
		}
		return reply.Records, partial(reply.Failed)
	}
	// a name and its wildcard have one record: the names of it must not be torn apart
	slices.SortFunc(names, func(a, b string) int { return strings.Compare(record.Base(a), record.Base(b)) })
	var all []dnspersist.RecordSet
	var failed []dnspersist.Failure
	for len(names) > 0 {
		n := min(len(names), urlNames)
		for n < len(names) && record.Base(names[n]) == record.Base(names[n-1]) {
			n++
		}
		var reply dnspersist.RecordsReply
		if err := a.call(ctx, http.MethodGet, "records?"+url.Values{"name": names[:n]}.Encode(), nil, &reply); err != nil {
			return nil, err
		}
		all, names = append(all, reply.Records...), names[n:]
		failed = append(failed, reply.Failed...)
	}
	return dnspersist.MergeRecordSets(all), partial(failed)
}

// partial is the error of what the running Caddy could not tell.
func partial(failed []dnspersist.Failure) error {
	if len(failed) == 0 {
		return nil
	}
	return &dnspersist.PartialError{Failed: failed}
}

// Accounts implements source.
func (a *api) Accounts(ctx context.Context, ca string) ([]acmepersist.AccountState, error) {
	var reply dnspersist.AccountReply
	if err := a.call(ctx, http.MethodGet, "account", nil, &reply); err != nil {
		return nil, err
	}
	if err := a.knows(ctx, ca); err != nil {
		return nil, err
	}
	failed := only(reply.Failed, ca, func(f dnspersist.Failure) string { return f.CA })
	return only(reply.Accounts, ca, func(s acmepersist.AccountState) string { return s.CA }), partial(failed)
}

// Probe implements source.
func (a *api) Probe(ctx context.Context, ca string) ([]acmepersist.Probe, error) {
	var reply dnspersist.ProbeReply
	if err := a.call(ctx, http.MethodGet, "probe", nil, &reply); err != nil {
		return nil, err
	}
	if err := a.knows(ctx, ca); err != nil {
		return nil, err
	}
	failed := only(reply.Failed, ca, func(f dnspersist.Failure) string { return f.CA })
	return only(reply.CAs, ca, func(p acmepersist.Probe) string { return p.CA }), partial(failed)
}

// knows is an error if the running Caddy does not use a CA.
func (a *api) knows(ctx context.Context, ca string) error {
	if ca == "" {
		return nil
	}
	var reply dnspersist.OverviewReply
	if err := a.call(ctx, http.MethodGet, "", nil, &reply); err != nil {
		return err
	}
	if !slices.Contains(reply.CAs, ca) {
		return fmt.Errorf("the Caddy at %s does not use the CA %q with dns_persist, but %s", a.address, ca, strings.Join(reply.CAs, ", "))
	}
	return nil
}

// only leaves out what belongs to another CA.
func only[T any](all []T, ca string, of func(T) string) []T {
	some := []T{}
	for _, v := range all {
		if ca == "" || of(v) == ca {
			some = append(some, v)
		}
	}
	return some
}

// Checker implements source.
func (a *api) Checker(ctx context.Context, names []string) (checker, error) {
	sets, err := a.Records(ctx, names)
	if some := new(dnspersist.PartialError); err != nil && !errors.As(err, &some) {
		return nil, err
	}
	c := &apiChecker{api: a}
	for _, set := range sets {
		for _, w := range set.Wanted {
			if w.Name == set.Name { // and not what stands at the target of a delegation
				c.checks = append(c.checks, w)
			}
		}
	}
	return c, err
}

// apiChecker has the running Caddy look.
type apiChecker struct {
	api    *api
	checks []acmepersist.Wanted
}

// Len implements checker.
func (c *apiChecker) Len() int { return len(c.checks) }

// Look implements checker.
func (c *apiChecker) Look(ctx context.Context, which []int, thorough bool) ([]acmepersist.Checked, error) {
	var names []string
	for _, i := range which {
		names = append(names, c.checks[i].Identifiers...)
	}
	req := dnspersist.CheckRequest{Names: names, Thorough: thorough}
	var reply dnspersist.CheckReply
	if err := c.api.call(ctx, http.MethodPost, "check", req, &reply); err != nil {
		return nil, err
	}
	var all []acmepersist.Checked
	for _, i := range which {
		for _, done := range reply.Checks {
			if done.Name == c.checks[i].Name && done.CA == c.checks[i].CA && done.Account == c.checks[i].Account {
				all = append(all, done)
				break
			}
		}
	}
	if len(all) != len(which) && len(reply.Failed) > 0 {
		return nil, partial(reply.Failed)
	}
	if len(all) != len(which) {
		return nil, fmt.Errorf("the running Caddy at %s has told of %d names where %d were asked for: was its configuration changed meanwhile? try again", c.api.address, len(all), len(which))
	}
	return all, nil
}
