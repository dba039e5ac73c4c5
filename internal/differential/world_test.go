package differential

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

const (
	// workers is how many orders are under way: more of them only wait for the lab.
	workers      = 8
	pollInterval = 2 * time.Millisecond
	patience     = time.Minute
	// margin is how far from now the end of a permission must be: Pebble's clock is
	// read later than ours.
	margin = 2 * time.Minute
	// maxAsked bounds how often a set is tried whose record Pebble could not get.
	maxAsked = 5
)

// useResolver leads Go's resolver to the lab for the time of a test.
func useResolver(t testing.TB, d *lab.DNS) {
	old := net.DefaultResolver
	t.Cleanup(func() { net.DefaultResolver = old })
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		// TCP, which Go's resolver notices, for values that do not fit into a datagram.
		return new(net.Dialer).DialContext(ctx, "tcp", d.Resolver())
	}}
}

// court is a CA with an account.
type court struct {
	client  *acme.Client
	account acme.Account
	// checks is what the command check asks, with the same account.
	checks *acmepersist.Issuer
}

// world has one zone and two CAs that see different things in it, see pebbleSees.
type world struct {
	dns           *lab.DNS
	raw, escaping *court
}

func newWorld(t testing.TB) *world {
	t.Helper()
	d, err := lab.NewDNS(1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	d.AddZone(zone)
	useResolver(t, d)
	return &world{dns: d, raw: newCourt(t, d, ""), escaping: newCourt(t, d, d.Resolver())}
}

func newCourt(t testing.TB, d *lab.DNS, resolver string) *court {
	t.Helper()
	ca, err := lab.NewCA(lab.CAConfig{Resolver: resolver, IssuerNames: issuers})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ca.Close)
	// Every worker keeps its connection.
	transport := ca.HTTPClient().Transport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = workers
	t.Cleanup(transport.CloseIdleConnections)
	c := &court{client: &acme.Client{
		Directory:  ca.Directory(),
		HTTPClient: &http.Client{Transport: transport},
		Logger:     slog.New(slog.NewTextHandler(io.Discard, nil)),
	}}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.account, err = c.client.NewAccount(t.Context(), acme.Account{TermsOfServiceAgreed: true, PrivateKey: key})
	if err != nil {
		t.Fatal(err)
	}
	pem, err := certmagic.PEMEncodePrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	c.checks = acmepersist.New(acmepersist.Config{
		CA: ca.Directory(), Storage: &certmagic.FileStorage{Path: t.TempDir()}, Transport: transport, AccountKeyPEM: string(pem),
		Checker: propagation.NewChecker(propagation.Config{Resolvers: []string{d.Resolver()}, AllowPrivate: true, Exchanger: d.Exchanger()}),
	})
	if _, err := c.checks.Account(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

// check is what the command check says of a name.
func (c *court) check(ctx context.Context, identifier string) (acmepersist.Checked, error) {
	checks, err := c.checks.Checks(ctx, []string{identifier})
	if err != nil {
		return acmepersist.Checked{}, err
	}
	return checks[0].Look(ctx, false), nil
}

// ruling is what Pebble says.
type ruling struct {
	good      bool
	errorType string
	detail    string
}

// unanswered reports whether Pebble got no answer from DNS, be it one without a record.
// It waits for two seconds only, which a busy machine may take. That it is the error's
// beginning keeps values, which errors repeat, from looking like it.
func (r ruling) unanswered() bool {
	return strings.HasPrefix(r.detail, "Error retrieving TXT records") &&
		!strings.Contains(r.detail, "an unsuccessful response") && !strings.HasSuffix(r.detail, "no such host")
}

// rule makes an order and lets Pebble validate it.
func (c *court) rule(ctx context.Context, identifier string) (ruling, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	order, err := c.client.NewOrder(ctx, c.account, acme.Order{Identifiers: []acme.Identifier{{Type: "dns", Value: identifier}}})
	if err != nil {
		return ruling{}, fmt.Errorf("new order: %w", err)
	}
	if len(order.Authorizations) != 1 || order.Status != acme.StatusPending {
		return ruling{}, fmt.Errorf("order %+v", order)
	}
	authz, err := c.client.GetAuthorization(ctx, c.account, order.Authorizations[0])
	if err != nil {
		return ruling{}, fmt.Errorf("authorization: %w", err)
	}
	persist := func() (acme.Challenge, error) {
		i := slices.IndexFunc(authz.Challenges, func(c acme.Challenge) bool { return c.Type == "dns-persist-01" })
		if i < 0 {
			return acme.Challenge{}, fmt.Errorf("no dns-persist-01 in %+v", authz)
		}
		return authz.Challenges[i], nil
	}
	chal, err := persist()
	if err != nil {
		return ruling{}, err
	}
	if _, err := c.client.InitiateChallenge(ctx, c.account, chal); err != nil {
		return ruling{}, fmt.Errorf("challenge: %w", err)
	}
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ruling{}, fmt.Errorf("authorization %+v: %w", authz, ctx.Err())
		}
		if authz, err = c.client.GetAuthorization(ctx, c.account, order.Authorizations[0]); err != nil {
			return ruling{}, fmt.Errorf("authorization: %w", err)
		}
		switch authz.Status {
		case acme.StatusPending:
		case acme.StatusValid:
			return ruling{good: true}, nil
		default:
			chal, err := persist()
			if err != nil || authz.Status != acme.StatusInvalid || chal.Error == nil {
				return ruling{}, fmt.Errorf("authorization %+v: %w", authz, err)
			}
			return ruling{errorType: strings.TrimPrefix(chal.Error.Type, "urn:ietf:params:acme:error:"), detail: chal.Error.Detail}, nil
		}
	}
}

// comparison is a set with both answers.
type comparison struct {
	set        testSet
	texts      []string // as published
	seen       []string
	prediction prediction
	ruling     ruling
	// checked is what the command check says, nil if it sees other octets than Pebble.
	checked *acmepersist.Checked
	// skipped says that an end is too near to now.
	skipped bool
	// asked is how many orders it took.
	asked int
}

// compare has a set judged by both.
func (w *world) compare(ctx context.Context, s testSet) (comparison, error) {
	judge := w.escaping
	if s.raw {
		judge = w.raw
	}
	now := time.Now()
	c := comparison{set: s, texts: s.bind(judge.account.Location, now)}
	for _, text := range c.texts {
		c.seen = append(c.seen, pebbleSees(text, s.raw))
	}
	want := record.Requirement{IssuerDomainNames: issuers, AccountURI: judge.account.Location, Wildcard: s.wildcard}
	c.prediction = predict(c.seen, want, now)
	for _, at := range []time.Time{now.Add(-margin), now.Add(margin)} {
		c.skipped = c.skipped || predict(c.seen, want, at).outlook != c.prediction.outlook
	}
	if c.skipped {
		return c, nil
	}

	name := record.Label + "." + s.name
	defer w.dns.ClearName(0, name)
	if s.other {
		w.dns.SetRR(0, name+". A 192.0.2.77")
	}
	for i, text := range c.texts {
		publish(w.dns, name, text, s.values[i].cuts)
	}
	if slices.Equal(c.seen, c.texts) {
		checked, err := judge.check(ctx, s.identifier())
		if err != nil {
			return c, err
		}
		c.checked = &checked
	}
	for {
		var err error
		c.asked++
		if c.ruling, err = judge.rule(ctx, s.identifier()); err != nil || !c.ruling.unanswered() {
			return c, err
		}
		if c.asked == maxAsked {
			return c, fmt.Errorf("no answer from DNS: %s", c.ruling.detail)
		}
	}
}

// agrees reports whether Pebble ruled as predicted.
func (c comparison) agrees() bool {
	p := c.prediction
	if k := c.checked; k != nil {
		v := k.Verdicts[0]
		if v.Outlook != p.outlook || !slices.Equal(v.ErrorTypes, p.errorTypes) || k.State.IsOK() != (p.outlook != record.OutlookBad) {
			return false
		}
	}
	if c.ruling.good {
		return p.outlook != record.OutlookBad
	}
	return p.outlook != record.OutlookGood && slices.Contains(p.errorTypes, c.ruling.errorType)
}

func (c comparison) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "set %d: %s (wildcard %t), octets %t\n", c.set.index, c.set.identifier(), c.set.wildcard, c.set.raw)
	for i, text := range c.texts {
		fmt.Fprintf(&b, "  DNS    %q, cut at %v\n", text, c.set.values[i].cuts)
		if c.seen[i] != text {
			fmt.Fprintf(&b, "  Pebble %q\n", c.seen[i])
		}
		v := c.prediction.verdicts[i]
		fmt.Fprintf(&b, "         %s %q\n", v.Code, v.Reason())
	}
	fmt.Fprintf(&b, "  predicted: %s, errors %v\n", c.prediction.outlook, c.prediction.errorTypes)
	if k := c.checked; k != nil {
		fmt.Fprintf(&b, "  check:     %s, %+v, %s\n", k.State, k.Verdicts, k.Do)
	}
	fmt.Fprintf(&b, "  Pebble:    good %t, %s %q", c.ruling.good, c.ruling.errorType, c.ruling.detail)
	return b.String()
}
