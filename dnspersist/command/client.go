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
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/operator"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// client asks the admin API: of a Caddy that runs, or its handlers within this process, for a
// configuration that no server runs.
type client struct {
	context.Context
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

func newClient(ctx context.Context, address string) (*client, error) {
	parsed, err := caddy.ParseNetworkAddress(address)
	if err != nil || parsed.PortRangeSize() > 1 {
		return nil, fmt.Errorf("%q is not the address of an admin endpoint, such as localhost:2019 or unix//run/caddy.sock", address)
	}
	// as Caddy's own commands do, see caddycmd.AdminAPIRequest: a test holds the two together
	c := &client{Context: ctx, address: address, base: "http://" + parsed.JoinHostPort(0), port: true}
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

// call makes one request.
func (c *client) call(method, path string, body, into any) error {
	var reader io.Reader
	if body != nil {
		data, _ := json.Marshal(body)
		reader = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(c, method, c.base+operator.Prefix+path, reader)
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
			return errors.New(plain(problem.Error))
		}
		return fmt.Errorf("the running Caddy at %s: %s", c.address, plain(problem.Error))
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("reading the answer of the running Caddy at %s: %w", c.address, err)
	}
	return nil
}

// plain is the text of an error, line by line, without what could control a terminal.
func plain(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		lines = append(lines, foreign.Line(strings.TrimSuffix(line, "\n")))
	}
	return strings.Join(lines, "\n")
}

// get asks for something.
func get[T any](c *client, path string, query url.Values) (reply T, err error) {
	err = c.call(http.MethodGet, path+"?"+query.Encode(), nil, &reply)
	return reply, err
}

// records returns the records that names need, those of all that are managed if there are none.
func (r *run) records(c *client, names []string) ([]operator.RecordSet, error) {
	// a name and its wildcard have one record: the names of it must not be torn apart
	slices.SortFunc(names, func(a, b string) int { return strings.Compare(record.Base(a), record.Base(b)) })
	var all []operator.RecordSet
	for first := true; first || len(names) > 0; first = false {
		n := min(len(names), urlNames)
		for n > 0 && n < len(names) && record.Base(names[n]) == record.Base(names[n-1]) {
			n++
		}
		reply, err := get[operator.RecordsReply](c, "records", url.Values{"name": names[:n], "ca": {r.text("ca")}})
		if err != nil {
			return nil, err
		}
		r.note(reply.Failed)
		all, names = append(all, reply.Records...), names[n:]
	}
	return operator.MergeRecordSets(all), nil
}

// looks are names that are looked at, again and again.
type looks struct {
	*run
	client *client
	checks []acmepersist.Wanted
	// held are the names of which Caddy does not obtain the certificates now for another reason than the record,
	// of those that were looked at last.
	held []operator.NameStatus
	// counts are how many names are in which state, for the line of progress.
	counts string
}

// looks prepares to look at names, at all that are managed if there are none.
func (r *run) looks(c *client, names []string) (*looks, error) {
	sets, err := r.records(c, names)
	if err != nil {
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

// batch is how many names are looked at between two reports of progress.
const batch = 50

// at looks at some of the checks, a batch at a time, and hands over what came of each.
func (l *looks) at(which []acmepersist.Wanted, thorough bool, fn func(acmepersist.Checked)) error {
	done := 0
	for some := range slices.Chunk(which, batch) {
		var names []string
		for _, w := range some {
			names = append(names, w.Identifiers...)
		}
		l.progress("%slooking at DNS, %d of %d names done", l.counts, done, len(which))
		req := operator.CheckRequest{Names: names, CA: l.text("ca"), Thorough: thorough}
		var reply operator.CheckReply
		if err := l.client.call(http.MethodPost, "check", req, &reply); err != nil {
			return err
		}
		l.clear()
		l.held = reply.Held
		for _, w := range some {
			at := slices.IndexFunc(reply.Checks, func(c acmepersist.Checked) bool { return keyOf(c.Wanted) == keyOf(w) })
			switch {
			case at >= 0:
				fn(reply.Checks[at])
			case len(reply.Failed) > 0:
				return reply.Failed[0]
			default:
				return fmt.Errorf("the running Caddy at %s has not answered for %s: was its configuration changed meanwhile? try again", l.client.address, w.Name)
			}
		}
		done += len(some)
	}
	return nil
}

// keyOf distinguishes what is checked.
func keyOf(w acmepersist.Wanted) string { return w.Name + " " + w.CA + " " + w.Account }
