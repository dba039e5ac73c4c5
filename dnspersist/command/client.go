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
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/operator"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// client asks the admin API: of a Caddy that runs, or its handlers within this process, for a
// configuration that no server runs.
type client struct {
	// address is that of the admin endpoint, empty within the process.
	address string
	// base is the URL's beginning; port is whether it is that of a port, and not of a socket, which
	// allows no origin.
	base string
	port bool
	http *http.Client
	// off is the configuration; nil if a Caddy that runs is asked.
	off *dnspersist.Offline
}

// urlNames is how many names are put into the URL of one request.
const urlNames = 100

func newClient(address string) (*client, error) {
	parsed, err := caddy.ParseNetworkAddress(address)
	if err != nil || parsed.PortRangeSize() > 1 {
		return nil, fmt.Errorf("%q is no address of an admin endpoint, such as localhost:2019 or unix//run/caddy.sock", address)
	}
	// as Caddy's own commands do, see caddycmd.AdminAPIRequest: a test holds the two together
	c := &client{address: address, base: "http://" + parsed.JoinHostPort(0), port: true}
	if parsed.IsUnixNetwork() || parsed.IsFdNetwork() {
		c.base, c.port = "http://127.0.0.1", false
		// the address of a socket may hold its permissions
		parsed.Host, _, _ = strings.Cut(parsed.Host, "|")
	}
	dialer := net.Dialer{Timeout: 5 * time.Second}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, parsed.Network, parsed.JoinHostPort(0))
		},
	}}
	return c, nil
}

// inProcess asks about a configuration that no server runs.
func inProcess(off *dnspersist.Offline) *client {
	return &client{base: "http://localhost", http: &http.Client{Transport: off.Operator}, off: off}
}

// Close gives up what the client has opened.
func (c *client) Close() error {
	if c.off != nil {
		return c.off.Close()
	}
	c.http.CloseIdleConnections()
	return nil
}

// reachable makes sure that there is a Caddy with this plugin and a configuration for it.
func (c *client) reachable(ctx context.Context) error {
	return c.call(ctx, http.MethodGet, "", nil, new(operator.OverviewReply))
}

// call makes one request.
func (c *client) call(ctx context.Context, method, path string, body, into any) error {
	var reader io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("asking the running Caddy: %w", err)
		}
		reader = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+operator.Prefix+path, reader)
	if err != nil {
		return fmt.Errorf("asking the running Caddy: %w", err)
	}
	if c.port {
		req.Header.Set("Origin", c.base)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			if strings.HasPrefix(c.address, "fd") {
				return fmt.Errorf("%s is a socket that the service manager has handed to Caddy, and nobody else can reach it by this number: "+
					"name the address that it is bound to with --address, such as unix//run/caddy.sock", c.address)
			}
			return fmt.Errorf("no Caddy answers at %s: %w", c.address, op.Err)
		}
		return fmt.Errorf("asking the running Caddy at %s: %w", c.address, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("reading the answer of the running Caddy at %s: %w", c.address, err)
	}
	if resp.StatusCode != http.StatusOK {
		var problem struct {
			Error string `json:"error"`
		}
		switch {
		case json.Unmarshal(data, &problem) != nil || problem.Error == "":
			return fmt.Errorf("the Caddy at %s answers %s: is the plugin dns_persist built in?", c.address, resp.Status)
		case c.off != nil:
			return errors.New(problem.Error)
		}
		return fmt.Errorf("the running Caddy at %s: %s", c.address, problem.Error)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("reading the answer of the running Caddy at %s: %w", c.address, err)
	}
	return nil
}

// Records returns the records that names need, those of all that are managed if there are none.
func (c *client) Records(ctx context.Context, names []string) ([]operator.RecordSet, error) {
	if len(names) == 0 {
		var reply operator.RecordsReply
		if err := c.call(ctx, http.MethodGet, "records", nil, &reply); err != nil {
			return nil, err
		}
		return reply.Records, partial(reply.Failed)
	}
	// a name and its wildcard have one record: the names of it must not be torn apart
	slices.SortFunc(names, func(a, b string) int { return strings.Compare(record.Base(a), record.Base(b)) })
	var all []operator.RecordSet
	var failed []operator.Failure
	for len(names) > 0 {
		n := min(len(names), urlNames)
		for n < len(names) && record.Base(names[n]) == record.Base(names[n-1]) {
			n++
		}
		var reply operator.RecordsReply
		if err := c.call(ctx, http.MethodGet, "records?"+url.Values{"name": names[:n]}.Encode(), nil, &reply); err != nil {
			return nil, err
		}
		all, names = append(all, reply.Records...), names[n:]
		failed = append(failed, reply.Failed...)
	}
	return operator.MergeRecordSets(all), partial(failed)
}

// partial is the error for CAs of which nothing is known.
func partial(failed []operator.Failure) error {
	if len(failed) == 0 {
		return nil
	}
	return &operator.PartialError{Failed: failed}
}

// Accounts returns the bound accounts, that at one CA only if ca is not empty.
func (c *client) Accounts(ctx context.Context, ca string) ([]acmepersist.AccountState, error) {
	var reply operator.AccountReply
	err := c.call(ctx, http.MethodGet, "account?"+url.Values{"ca": {ca}}.Encode(), nil, &reply)
	if err == nil {
		err = partial(reply.Failed)
	}
	return reply.Accounts, err
}

// Probe asks the CAs whether they offer the challenge, one only if ca is not empty.
func (c *client) Probe(ctx context.Context, ca string) ([]acmepersist.Probe, error) {
	var reply operator.ProbeReply
	err := c.call(ctx, http.MethodGet, "probe?"+url.Values{"ca": {ca}}.Encode(), nil, &reply)
	if err == nil {
		err = partial(reply.Failed)
	}
	return reply.CAs, err
}

// looks are names that are looked at, again and again.
type looks struct {
	*run
	client *client
	checks []acmepersist.Wanted
}

// looks prepares to look at names, at all that are managed if there are none.
func (r *run) looks(c *client, names []string) (*looks, error) {
	sets, err := c.Records(r, names)
	if err = r.partly(err); err != nil {
		return nil, err
	}
	l := &looks{run: r, client: c}
	for _, set := range sets {
		for _, w := range set.Wanted {
			if w.Name == set.Name { // and not what is published at the target of a delegation
				l.checks = append(l.checks, w)
			}
		}
	}
	return l, nil
}

// all are the numbers of all checks.
func (l *looks) all() []int {
	all := make([]int, len(l.checks))
	for i := range all {
		all[i] = i
	}
	return all
}

// batch is how many names are looked at between two reports of progress.
const batch = 50

// at looks at the checks with the given numbers, a batch at a time, and hands over what came of each.
func (l *looks) at(which []int, thorough bool, fn func(i int, c acmepersist.Checked)) error {
	for from := 0; from < len(which); from += batch {
		some := which[from:min(from+batch, len(which))]
		done, err := l.batch(some, thorough)
		if err != nil {
			return err
		}
		for n, c := range done {
			fn(some[n], c)
		}
		if len(which) > batch {
			l.progress("looked at %d of %d names", from+len(some), len(which))
		}
	}
	return nil
}

func (l *looks) batch(which []int, thorough bool) ([]acmepersist.Checked, error) {
	var names []string
	for _, i := range which {
		names = append(names, l.checks[i].Identifiers...)
	}
	req := operator.CheckRequest{Names: names, Thorough: thorough}
	var reply operator.CheckReply
	if err := l.client.call(l, http.MethodPost, "check", req, &reply); err != nil {
		return nil, err
	}
	var all []acmepersist.Checked
	for _, i := range which {
		wanted := l.checks[i]
		at := slices.IndexFunc(reply.Checks, func(c acmepersist.Checked) bool {
			return c.Name == wanted.Name && c.CA == wanted.CA && c.Account == wanted.Account
		})
		if at < 0 && len(reply.Failed) > 0 {
			return nil, partial(reply.Failed)
		}
		if at < 0 {
			return nil, fmt.Errorf("the running Caddy at %s has not answered for %s: was its configuration changed meanwhile? try again", l.client.address, wanted.Name)
		}
		all = append(all, reply.Checks[at])
	}
	return all, nil
}
