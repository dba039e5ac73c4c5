package command

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/dnspersist/caddy-dnspersist/dnspersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/operator"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/publish"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

func publishCommand() *cobra.Command {
	cmd := newCommand("publish [NAME… | -] [--provider FILE|-] [--dry-run]", "Adds missing records through a DNS provider", `
Adds the records that the given names need, or all that the configuration manages, with
the DNS provider of the configuration, also one with publish never, or with one whose
credential is there for this run only: FILE holds the provider as the JSON of a
dns.providers module with its name, - reads it from standard input. It is never stored.

Values are only added. What others have at a name stays; where one that is as good
is published, nothing is written. The authoritative servers are asked before and after, and a
provider that replaces where it should add is found out and what it removed is put back.
What was written is noted in storage.`, runPublish)
	cmd.Flags().String("provider", "", "File with the provider's JSON, or - for standard input. Default: the configured one")
	cmd.Flags().Bool("dry-run", false, "Show what would be added, and write nothing")
	cmd.Flags().Bool("allow-shadowing", false, "Publish also where a wildcard record then stops answering for the name")
	cmd.Flags().Duration("wait", publish.DefaultWait, "How long a write may take to show on all name servers")
	return cmd
}

var errNoProvider = errors.New("--provider is missing: a file with the provider's JSON, or - for standard input; the configuration has no provider either")

// publishing is one run with a provider.
type publishing struct {
	*run
	off      *dnspersist.Offline
	checks   []*acmepersist.Check
	provider dnspersist.Provider
	patience time.Duration
	failed   int
}

// publishing reads the names and the provider and prepares the checks.
func (r *run) publishing() (*publishing, error) {
	provider := r.text("provider")
	if provider == "-" && slices.Contains(r.args, "-") {
		return nil, errors.New("both the provider and the names are to come from standard input: name a file with --provider")
	}
	names, err := r.names()
	if err != nil {
		return nil, err
	}
	open := r.changing
	if r.flag("dry-run") {
		open = r.offline
	}
	off, err := open()
	if err != nil {
		return nil, err
	}
	p := &publishing{run: r, off: off}
	if p.patience, err = r.cmd.Flags().GetDuration("wait"); err == nil {
		err = p.load(provider)
	}
	if err == nil {
		r.reportUnsupported(off, names)
		p.checks, err = off.Checks(r, names)
		err = r.partly(err)
	}
	if err == nil && p.provider.RecordAppender == nil && !r.flag("dry-run") && slices.ContainsFunc(p.checks, func(c *acmepersist.Check) bool { return c.Configured() == nil }) {
		err = errNoProvider
	}
	if err != nil {
		return nil, errors.Join(err, off.Close())
	}
	return p, nil
}

// load reads the provider.
func (p *publishing) load(path string) error {
	if path == "" {
		return nil // a dry run needs none
	}
	in := p.in
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("reading the provider: %w", err)
		}
		defer f.Close()
		in = f
	}
	raw, err := io.ReadAll(io.LimitReader(in, maxExport))
	if err != nil {
		return fmt.Errorf("reading the provider: %w", err)
	}
	p.provider, err = p.off.Provider(raw)
	return err
}

// with is what writes: the provider given for this run, or the configured one.
func (p *publishing) with(configured *acmepersist.Publishing) (*acmepersist.Publishing, error) {
	with := acmepersist.Publishing{TTL: operator.TTL * time.Second}
	if configured != nil {
		with = *configured
	}
	switch {
	case p.provider.RecordAppender != nil:
		with.Provider, with.Secrets = p.provider.RecordAppender, p.provider.Secrets
	case configured == nil:
		return nil, errNoProvider
	}
	with.Wait = p.patience
	return &with, nil
}

// fail reports what went wrong with a name; the others go on.
func (p *publishing) fail(name string, err error) {
	p.failed++
	p.report("%s: %v", name, err)
}

func (p *publishing) end() error { return p.endOf(len(p.checks)) }

func (p *publishing) endOf(names int) error {
	if p.failed > 0 {
		return fmt.Errorf("%d of %d names failed, see above; what was written stays, and the command may be repeated", p.failed, names)
	}
	return nil
}

func runPublish(r *run) error {
	p, err := r.publishing()
	if err != nil {
		return err
	}
	defer p.off.Close()
	if len(p.checks) == 0 {
		return errors.New("the configuration manages no name with dns_persist: give the names as arguments or, after -, on standard input")
	}
	for _, c := range p.checks {
		if err := r.Err(); err != nil {
			return err
		}
		if !r.flag("dry-run") {
			if err := p.add(c); err != nil {
				p.fail(c.Name(), err)
			}
			continue
		}
		found := c.Look(r, true)
		switch value, err := p.toAdd(c, found); {
		case err != nil:
			p.fail(c.Name(), err)
		case value == "":
			p.report("%s: is published", c.Name())
		default:
			fmt.Fprintf(r.out, "add %s. %d IN TXT %s\n", placeOf(found), ttlAt(c, found), record.Quote(value))
		}
	}
	return p.end()
}

// toAdd is the value that is missing at a name, empty if none is.
func (p *publishing) toAdd(c *acmepersist.Check, found acmepersist.Checked) (string, error) {
	at := found.AtTarget
	switch {
	case at != nil && at.State == acmepersist.StateBlocked:
		return "", fmt.Errorf("what is published at %s is not known: %s", at.Name, at.Reason)
	case at != nil && at.State == acmepersist.StateGood:
		return "", nil
	case at != nil && at.Alias != "" && at.Alias != at.Name:
		return "", &acmepersist.ForeignAliasError{Name: c.Name(), Alias: at.Alias, Wanted: at.Name}
	case at == nil && found.State == acmepersist.StateBlocked:
		return "", errors.New(found.Do)
	}
	if at == nil && slices.ContainsFunc(found.Standing, func(v acmepersist.ValueVerdict) bool { return v.Outlook == record.OutlookGood }) {
		return "", nil
	}
	allowed := p.flag("allow-shadowing") || c.Configured() != nil && c.Configured().AllowShadowing
	for _, d := range found.Diagnostics {
		if d.Code == propagation.CodeWildcardBreaks && !allowed && at == nil {
			return "", shadowing(&acmepersist.ShadowingError{Name: c.Name(), Text: d.Text})
		}
	}
	if with := c.Configured(); with != nil {
		return with.Lasting(found.Value, time.Now()), nil
	}
	return found.Value, nil
}

// placeOf is where the record is written.
func placeOf(found acmepersist.Checked) string {
	if found.AtTarget != nil {
		return found.AtTarget.Name
	}
	return found.Name
}

// shadowing adds the command's own way out.
func shadowing(err error) error {
	var shadows *acmepersist.ShadowingError
	if errors.As(err, &shadows) {
		return fmt.Errorf("%w or --allow-shadowing", err)
	}
	return err
}

// ttlAt is the TTL that a value gets.
func ttlAt(c *acmepersist.Check, found acmepersist.Checked) uint32 {
	var ttl uint32
	if found.AtTarget != nil {
		ttl = found.AtTarget.TTL
	} else {
		for _, s := range found.Report.Servers {
			ttl = max(ttl, s.TTL)
		}
	}
	if ttl > 0 {
		return ttl
	}
	if with := c.Configured(); with != nil && with.TTL > 0 {
		return uint32(with.TTL / time.Second)
	}
	return operator.TTL
}

// add writes the value that is missing.
func (p *publishing) add(c *acmepersist.Check) error {
	with, err := p.with(c.Configured())
	if err != nil {
		return err
	}
	with.AllowShadowing = with.AllowShadowing || p.flag("allow-shadowing")
	done, err := c.Publish(p, with)
	if err != nil {
		return shadowing(err)
	}
	for _, v := range done.Restored {
		p.report("%s: the provider had replaced %q, it is there again", c.Name(), v)
	}
	if done.Value == "" {
		p.report("%s: is published", c.Name())
	} else {
		p.report("%s: added, all name servers show it", c.Name())
	}
	return nil
}
