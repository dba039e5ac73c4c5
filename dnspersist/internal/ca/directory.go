package ca

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

const (
	// directoryFresh is how long a directory is used without asking again.
	directoryFresh = time.Hour
	// directoryTimeout bounds one attempt to fetch it: a CA that hangs must not
	// hold a job for long, and a second attempt often works.
	directoryTimeout  = 8 * time.Second
	directoryAttempts = 4
)

// Directory is a CA's directory as it was served.
type Directory struct {
	URL     string
	Body    []byte
	Fetched time.Time

	NewNonce    string `json:"newNonce"`
	NewAccount  string `json:"newAccount"`
	NewOrder    string `json:"newOrder"`
	RevokeCert  string `json:"revokeCert"`
	KeyChange   string `json:"keyChange"`
	RenewalInfo string `json:"renewalInfo"`
	Meta        struct {
		directoryMeta
		ExternalAccountRequired bool              `json:"externalAccountRequired"`
		TermsOfService          string            `json:"termsOfService"`
		Profiles                map[string]string `json:"profiles"`
	} `json:"meta"`
}

// fragment makes the URL that acmez sees one for each content, so that its
// process-wide cache can never return an older or another client's directory.
func (d *Directory) fragment() string {
	sum := sha256.Sum256(d.Body)
	return "dns-persist-" + hex.EncodeToString(sum[:8])
}

func (d *Directory) response(req *http.Request) *http.Response {
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:        http.Header{"Content-Type": []string{"application/json"}},
		Body:          io.NopCloser(bytes.NewReader(d.Body)),
		ContentLength: int64(len(d.Body)),
		Request:       req,
	}
}

func parseDirectory(url string, body []byte) (*Directory, error) {
	d := &Directory{URL: url, Body: body, Fetched: time.Now()}
	if err := json.Unmarshal(body, d); err != nil {
		return nil, fmt.Errorf("decoding the directory: %w", err)
	}
	if d.NewNonce == "" || d.NewAccount == "" || d.NewOrder == "" {
		return nil, errors.New("this is not an ACME directory: newNonce, newAccount or newOrder is missing")
	}
	for _, listed := range []string{d.NewNonce, d.NewAccount, d.NewOrder, d.RevokeCert, d.KeyChange, d.RenewalInfo} {
		if err := CheckEncrypted(url, listed); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// maxRemembered is the longest for which a CA's wish not to be asked for its directory is obeyed.
const maxRemembered = time.Hour

// directories caches the directory of one CA for an issuer. While a fetch is
// under way nobody else waits for it who has a usable older copy.
type directories struct {
	mu       sync.Mutex
	current  *Directory
	fetching *directoryFetch
	// limited is the CA's wish not to be asked, until limitedUntil.
	limited      error
	limitedUntil time.Time
}

// directoryFetch is a fetch under way.
type directoryFetch struct {
	done chan struct{}
	err  error // read once done is closed; nil if the waiters have to look again
}

// get returns the directory, fetched at most once an hour. An older copy is
// better than none: it is used while the CA does not answer, or asks not to be asked.
func (c *directories) get(ctx context.Context, url string, transport http.RoundTripper, userAgent string) (*Directory, error) {
	for {
		c.mu.Lock()
		if c.current != nil && time.Since(c.current.Fetched) < directoryFresh {
			d := c.current
			c.mu.Unlock()
			return d, nil
		}
		if c.limited != nil && time.Now().Before(c.limitedUntil) {
			stale, err := c.current, c.limited
			c.mu.Unlock()
			if stale != nil {
				return stale, nil
			}
			return nil, err
		}
		if other := c.fetching; other != nil {
			stale := c.current
			c.mu.Unlock()
			if stale != nil {
				return stale, nil
			}
			select {
			case <-other.done:
				if other.err != nil {
					return nil, other.err
				}
				continue
			case <-ctx.Done():
				return nil, fmt.Errorf("fetching the directory %s: %w", url, context.Cause(ctx))
			}
		}
		mine := &directoryFetch{done: make(chan struct{})}
		c.fetching = mine
		c.mu.Unlock()

		fresh, err := fetchDirectory(ctx, url, transport, userAgent)

		c.mu.Lock()
		c.fetching = nil
		c.remember(err)
		if err != nil && c.current != nil {
			// ask again soon, but not at every certificate
			stale := *c.current
			stale.Fetched = time.Now().Add(time.Minute - directoryFresh)
			c.current = &stale
			fresh, err = &stale, nil
		}
		if err == nil {
			c.current = fresh
		} else if ctx.Err() == nil {
			// the end of one caller is not the others' failure
			mine.err = err
		}
		close(mine.done)
		c.mu.Unlock()
		return fresh, err
	}
}

// remember keeps until when the CA is not to be asked, as the last fetch has shown.
func (c *directories) remember(err error) {
	c.limited, c.limitedUntil = nil, time.Time{}
	var limited *RateLimitedError
	if errors.As(err, &limited) {
		c.limited = err
		c.limitedUntil = time.Now().Add(min(time.Until(limited.RetryAt), maxRemembered))
	}
}

// expire makes the next get ask the CA, unless that has asked to be left alone.
func (c *directories) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current != nil {
		old := *c.current
		old.Fetched = time.Time{}
		c.current = &old
	}
}

// ask fetches the directory now, whatever is known of it, unless the CA has asked to be left alone.
func (c *directories) ask(ctx context.Context, url string, transport http.RoundTripper, userAgent string) error {
	c.mu.Lock()
	limited, until := c.limited, c.limitedUntil
	c.mu.Unlock()
	if limited != nil && time.Now().Before(until) {
		return limited
	}
	_, _, err := fetchDirectoryOnce(ctx, url, transport, userAgent)
	return err
}

func fetchDirectory(ctx context.Context, url string, transport http.RoundTripper, userAgent string) (*Directory, error) {
	var lastErr error
	for attempt := range directoryAttempts {
		if attempt > 0 {
			if err := Sleep(ctx, time.Duration(attempt)*time.Second); err != nil {
				break
			}
		}
		d, wait, err := fetchDirectoryOnce(ctx, url, transport, userAgent)
		if err == nil {
			return d, nil
		}
		if lastErr = err; isUnusable(err) {
			return nil, fmt.Errorf("fetching the directory %s: %w", url, err)
		}
		if wait > maxRetryWait {
			return nil, fmt.Errorf("fetching the directory %s: %w", url, &RateLimitedError{RetryAt: time.Now().Add(wait), Err: err})
		}
		if wait > 0 {
			if err := Sleep(ctx, wait); err != nil {
				break
			}
		}
	}
	if lastErr == nil {
		lastErr = context.Cause(ctx)
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("fetching the directory %s: %w", url, lastErr)
	}
	return nil, &DownError{CA: url, Err: fmt.Errorf("fetching the directory %s: %w; check the URL and that this machine reaches the CA", url, lastErr)}
}

func fetchDirectoryOnce(ctx context.Context, url string, transport http.RoundTripper, userAgent string) (*Directory, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, directoryTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("User-Agent", userAgent)
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, 0, fmt.Errorf("reading the directory: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		wait, _ := parseRetryAfter(resp.Header.Get("Retry-After"), time.Now())
		return nil, wait, fmt.Errorf("HTTP status %s", resp.Status)
	}
	d, err := parseDirectory(url, body)
	return d, 0, err
}

// Values of Config.Dialect.
const (
	// DialectAuto leaves it to the CA's challenges and directory. It is the default.
	DialectAuto = "auto"
	// DialectAccountURL asks for the account URL, as drafts -00 and -01 have it.
	DialectAccountURL = string(record.DialectAccountURL)
	// DialectHashed asks for the hashed account URI, as draft -02 has it.
	DialectHashed = string(record.DialectHashed)
)

// Terms is what a CA wants to see in a record, by its directory or a challenge.
type Terms struct {
	// Names are the issuer domain names, the preferred one first.
	Names   []string
	Dialect record.Dialect
	// Prefix is the CA's accountHashPrefix, empty if it is not known.
	Prefix string
}

// Equal reports whether a record for one is a record for the other.
func (t Terms) Equal(u Terms) bool {
	return t.Dialect == u.Dialect && t.Prefix == u.Prefix && sameSet(t.Names, u.Names)
}

// maxIssuerDomainNames is the most that a directory or challenge may list (section 3.1 of
// draft -02).
const maxIssuerDomainNames = 10

// conformingNames leaves out what is not an issuer domain name: it ends up in zone
// files and shell scripts.
func conformingNames(all []string) []string {
	var names []string
	for _, n := range all {
		if record.ValidIssuerDomainName(n) == nil && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}

// stringList is an array of strings from a CA. Whatever is none of it counts as absent
// rather than spoiling the answer around it.
type stringList []string

// UnmarshalJSON implements json.Unmarshaler. It never fails.
func (l *stringList) UnmarshalJSON(data []byte) error {
	var items []json.RawMessage
	*l = nil
	if json.Unmarshal(data, &items) != nil {
		return nil
	}
	for _, item := range items {
		var s string
		if json.Unmarshal(item, &s) != nil {
			s = "" // no conforming name, but it counts
		}
		*l = append(*l, s)
	}
	return nil
}

// text is a string from a CA; whatever is none counts as absent.
type text string

// UnmarshalJSON implements json.Unmarshaler. It never fails.
func (t *text) UnmarshalJSON(data []byte) error {
	var s string
	*t = ""
	if json.Unmarshal(data, &s) == nil {
		*t = text(s)
	}
	return nil
}

// directoryMeta is what a directory has of the challenge (section 3.2 of draft -02).
type directoryMeta struct {
	CAAIdentities     stringList `json:"caaIdentities"`
	IssuerDomainNames stringList `json:"issuerDomainNames"`
	AccountHashPrefix text       `json:"accountHashPrefix"`
}

// Prefix returns the conforming accountHashPrefix, empty if there is none.
func (m directoryMeta) Prefix() string {
	if record.ValidAccountHashPrefix(string(m.AccountHashPrefix)) != nil {
		return ""
	}
	return string(m.AccountHashPrefix)
}

// names returns the set D of draft -02: nothing if the array does not conform, for then
// no record can be made before an order. One name that does not conform spoils all.
func (m directoryMeta) names() []string {
	names := conformingNames(m.IssuerDomainNames)
	n := len(m.IssuerDomainNames)
	if n == 0 || n > maxIssuerDomainNames || slices.ContainsFunc(m.IssuerDomainNames, isNoIssuer) {
		return nil
	}
	return names
}

func isNoIssuer(name string) bool { return record.ValidIssuerDomainName(name) != nil }

// Identities returns the set I of draft -02 as A-labels in lower case without a final dot;
// nothing if the array does not conform.
func (m directoryMeta) Identities() []string {
	var names []string
	for _, n := range m.CAAIdentities {
		n, err := record.NormalizeIssuerDomainName(n)
		if err != nil {
			return nil
		}
		names = append(names, n)
	}
	return names
}

// challengeMembers is what acmez does not pass on of a dns-persist-01 challenge.
type challengeMembers struct {
	Type string `json:"type"`
	URL  string `json:"url"`
	// AccountURI may be in challenges of draft -01.
	AccountURI text `json:"accounturi"`
	// Deployed is the member of drafts -00 and -01, Names that of draft -02.
	Deployed *stringList `json:"issuer-domain-names"`
	Names    *stringList `json:"issuerDomainNames"`
}

// OfferedNames returns the conforming names of a challenge. One that does not conform is
// the CA's fault and left out; none or more than ten make the challenge malformed.
func OfferedNames(list stringList) ([]string, error) {
	if n := len(list); n == 0 || n > maxIssuerDomainNames {
		return nil, fmt.Errorf("it names %d issuer domain names, the draft wants 1 to %d", n, maxIssuerDomainNames)
	}
	names := conformingNames(list)
	if len(names) == 0 {
		return nil, fmt.Errorf("none of its %d issuer domain names conforms: they have to be domain names in lower case without a final dot", len(list))
	}
	return names, nil
}

// checkSubsets holds the names of a challenge against those of the directory (section
// 3.2 of draft -02): all of D in C, and all of C in I, also what conforms to nothing.
func checkSubsets(challenge, directory, identities []string) error {
	for _, n := range directory {
		if !slices.Contains(challenge, n) {
			return fmt.Errorf("it lacks the issuer domain name %s, which the directory promises", n)
		}
	}
	if len(identities) == 0 {
		return nil
	}
	for _, n := range challenge {
		if !slices.Contains(identities, n) {
			return fmt.Errorf("its issuer domain name %q is not among the directory's caaIdentities %s", n, strings.Join(identities, ", "))
		}
	}
	return nil
}

// sameSet reports whether two lists hold the same names, in whatever order.
func sameSet(a, b []string) bool {
	for _, n := range a {
		if !slices.Contains(b, n) {
			return false
		}
	}
	return len(a) == len(b)
}
