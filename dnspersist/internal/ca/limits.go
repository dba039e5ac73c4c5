package ca

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/fair"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

const (
	// guessedFirst and guessedMost bound how long a name waits whose CA does not answer for how
	// long; where it names a page, only somebody who visits that can help.
	guessedFirst, guessedMost = time.Minute, 6 * time.Hour
	// longestLimit is the longest wait that a CA is believed to ask for: limits by the week
	// are the longest there are.
	longestLimit = 8 * 24 * time.Hour
	// maxText bounds what is kept of a CA's text, in octets.
	maxText = 500
)

// limit is what a CA has answered to an order: that it takes none for a name, or for a
// registered domain and all below it, before a time. It is kept in storage, so that neither
// each name of the domain nor a restart has to learn it by a refusal of its own.
type limit struct {
	Account string    `json:"account"`
	Name    string    `json:"name"`
	At      time.Time `json:"at"`
	Until   time.Time `json:"until"`
	// Guessed counts the refusals in a row that gave no time.
	Guessed int    `json:"guessed,omitempty"`
	URL     string `json:"url,omitempty"`
	Text    string `json:"text"`
}

// Check reports what a file has to hold.
func (l *limit) Check() error {
	if l.Account == "" || l.Name == "" {
		return errors.New("account or name is missing")
	}
	return nil
}

// limitKeys are where limits of a name and of its registered domain lie.
func (c *Client) limitKeys(name string) (own, domain string) {
	own = c.server.Store.Key("limits", state.Safe(name)+".json")
	domain = c.server.Store.Key("limits", "below_"+state.Safe(fair.Domain(record.Base(name)))+".json")
	return own, domain
}

// loadLimit returns the limit of this account at a key. It is knowledge that can be had again:
// what cannot be read counts as none.
func (c *Client) loadLimit(ctx context.Context, account, key string) (l limit, found bool) {
	found, err := c.server.Store.Load(ctx, key, &l)
	if err != nil {
		c.logger.Warn("a limit of the CA could not be read; going on without it", zap.String("storage_key", key), zap.Error(err))
		return limit{}, false
	}
	now := walltime.Now()
	found = found && l.Account == account && !state.IsAhead(l.At, now, 0) && !state.IsAhead(l.Until, now, longestLimit)
	return l, found
}

// CheckLimits returns an error while the CA takes no order for the name.
func (c *Client) CheckLimits(ctx context.Context, account, name string) error {
	own, domain := c.limitKeys(name)
	for _, key := range []string{own, domain} {
		l, found := c.loadLimit(ctx, account, key)
		if !found || !walltime.Now().Before(l.Until) {
			continue
		}
		return fmt.Errorf("no order was made for %s: %w", name, &RateLimitedError{RetryAt: l.Until, URL: l.URL, Err: fmt.Errorf(
			"at %s the CA answered about %s: %s", l.At.Format(time.RFC3339), l.Name, l.Text)})
	}
	return nil
}

// NoteLimit keeps what the CA has answered to an order with a RateLimitedError, which has
// the time afterwards.
func (c *Client) NoteLimit(ctx context.Context, account, name string, err error) error {
	var limited *RateLimitedError
	var problem acme.Problem
	status, _, has := c.wire.last()
	if !errors.As(err, &limited) || !errors.As(err, &problem) || status != http.StatusTooManyRequests {
		return err
	}
	key, domainKey := c.limitKeys(name)
	now := walltime.Now().UTC()
	l := limit{Account: account, Name: name, At: now, URL: limited.URL, Text: foreign.Cut(problem.Detail, maxText)}
	if domain := limitedDomain(name, problem.Detail); domain != "" {
		key, l.Name = domainKey, domain
	}
	if !has {
		before, found := c.loadLimit(ctx, account, key)
		if found && now.Sub(before.Until) < guessedMost {
			l.Guessed = before.Guessed
		}
		wait := min(guessedFirst<<min(2*l.Guessed, 16), guessedMost)
		if pageOf(err) != "" {
			wait = guessedMost
		}
		l.Guessed++
		limited.RetryAt = now.Add(wait)
	}
	l.Until = limited.RetryAt.UTC()
	fields := []zap.Field{
		zap.String("domain", name), zap.String("limited", l.Name), zap.String("ca", c.server.URL), zap.String("account", l.Account),
		zap.Time("until", l.Until), zap.String("answer", l.Text),
	}
	if l.URL != "" {
		fields = append(fields, zap.String("url", l.URL))
	}
	c.logger.Warn("the CA takes no order for now; it is asked again later", fields...)
	if saveErr := c.server.Store.Save(ctx, key, l); saveErr != nil {
		c.logger.Warn("a limit of the CA could not be noted; it may be met again", zap.String("domain", name), zap.Error(saveErr))
	}
	return err
}

// ForgetLimit drops a limit that holds no more: the CA has taken an order for the name.
func (c *Client) ForgetLimit(ctx context.Context, name string) {
	own, _ := c.limitKeys(name)
	if !c.server.Store.Storage.Exists(ctx, own) {
		return
	}
	if err := c.server.Store.Remove(ctx, own); err != nil {
		c.logger.Warn("a limit of the CA that is over stays in storage", zap.String("storage_key", own), zap.Error(err))
	}
}

// limitedDomain is the registered domain of a name, if the CA's text names that and not the
// name itself: then the limit is that of all its names.
func limitedDomain(name, text string) string {
	base := record.Base(name)
	registered := fair.Domain(base)
	text = strings.ToLower(text)
	if registered == base || !mentions(text, registered) || mentions(text, base) {
		return ""
	}
	return registered
}

// mentions reports whether a text names a domain by itself, not as a part of a longer one.
func mentions(text, domain string) bool {
	label := func(c byte) bool { return c == '-' || c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' }
	for start := 0; ; {
		i := strings.Index(text[start:], domain)
		if i < 0 {
			return false
		}
		begin, end := start+i, start+i+len(domain)
		before := begin > 0 && (label(text[begin-1]) || text[begin-1] == '.' || text[begin-1] == '/')
		after := end < len(text) && (label(text[end]) || text[end] == '.' && end+1 < len(text) && label(text[end+1]))
		if !before && !after {
			return true
		}
		start = begin + 1
	}
}

var pagePattern = regexp.MustCompile(`https?://[!-~]+`)

// visit is how CAs lead to a page on which somebody has to do something: RFC 8555 has
// userActionRequired with an instance for it, and Boulder a text.
var visit = regexp.MustCompile(`(?i)\bvisit\b`)

// pageOf is the page that somebody has to visit before the CA takes another order.
func pageOf(err error) string {
	var problem acme.Problem
	if !errors.As(err, &problem) {
		return ""
	}
	if IsProblem(err, "userActionRequired") && problem.Instance != "" {
		return page(problem.Instance)
	}
	if !visit.MatchString(problem.Detail) {
		return ""
	}
	return page(problem.Detail)
}

// page is the first URL in a text, empty if there is none.
func page(text string) string {
	found := strings.TrimRight(pagePattern.FindString(text), `.,;:)>"'`)
	if u, err := url.Parse(found); err != nil || u.Host == "" || len(found) > 2048 {
		return ""
	}
	return found
}

// RateLimit makes the error for a wait that is too long for an attempt.
func (c *Client) RateLimit(err error, wait time.Duration) *RateLimitedError {
	status, _, has := c.wire.last()
	e := &RateLimitedError{RetryAt: walltime.Now().Add(min(wait, longestLimit)), Err: err}
	var problem acme.Problem
	if status == http.StatusTooManyRequests && errors.As(err, &problem) {
		if e.URL = pageOf(err); e.URL == "" {
			e.URL = page(problem.Detail)
		}
	}
	if !has {
		e.RetryAt = walltime.Now().Add(guessedFirst)
		if pageOf(err) != "" {
			e.RetryAt = walltime.Now().Add(guessedMost)
		}
	}
	return e
}
