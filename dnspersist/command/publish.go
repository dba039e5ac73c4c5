package command

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/dnspersist/caddy-dnspersist/dnspersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/operator"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/publish"
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
	cmd.ValidArgsFunction = completeNames
	cmd.Example = examples("publish --dry-run", "publish example.com --provider provider.json", "publish --provider - < provider.json")
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
	if p.patience, err = r.cmd.Flags().GetDuration("wait"); err != nil {
		return nil, err
	}
	if provider != "" {
		raw, err := r.read("the provider", provider)
		if err != nil {
			return nil, err
		}
		if p.provider, err = off.Provider(raw); err != nil {
			return nil, err
		}
	}
	r.reportUnsupported(off, names)
	var unknown []operator.Failure
	if p.checks, unknown, err = off.Checks(r, r.text("ca"), names); err != nil {
		return nil, err
	}
	r.note(unknown)
	if p.provider.RecordAppender == nil && !r.flag("dry-run") && slices.ContainsFunc(p.checks, func(c *acmepersist.Check) bool { return c.Configured() == nil }) {
		return nil, errNoProvider
	}
	return p, nil
}

// with is what writes: the provider given for this run, or the configured one. A dry run needs none.
func (p *publishing) with(configured *acmepersist.Publishing) (*acmepersist.Publishing, error) {
	with := acmepersist.Publishing{TTL: operator.TTL * time.Second}
	if configured != nil {
		with = *configured
	}
	switch {
	case p.provider.RecordAppender != nil:
		with.Provider, with.Secrets = p.provider.RecordAppender, p.provider.Secrets
	case configured == nil && !p.flag("dry-run"):
		return nil, errNoProvider
	}
	with.Wait, with.DryRun = p.patience, p.flag("dry-run")
	return &with, nil
}

// fail reports what went wrong with a name; the others go on.
func (p *publishing) fail(name string, err error) {
	p.failed++
	p.report("%s: %v", name, err)
}

func (p *publishing) end(names int) error {
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
	if len(p.checks) == 0 {
		return errors.New("the configuration manages no name with dns_persist: give the names as arguments or, after -, on standard input")
	}
	for _, c := range p.checks {
		if err := r.Err(); err != nil {
			return err
		}
		if err := p.add(c); err != nil {
			p.fail(c.Name(), err)
		}
	}
	return p.end(len(p.checks))
}

// add writes the value that is missing, or shows it in a dry run.
func (p *publishing) add(c *acmepersist.Check) error {
	with, err := p.with(c.Configured())
	if err != nil {
		return err
	}
	with.AllowShadowing = with.AllowShadowing || p.flag("allow-shadowing")
	done, err := c.Publish(p, with)
	if _, shadows := errors.AsType[*acmepersist.ShadowingError](err); shadows {
		return fmt.Errorf("%w or --allow-shadowing", err)
	}
	if err != nil {
		return err
	}
	for _, v := range done.Restored {
		p.report("%s: the provider had replaced %q, it is there again", c.Name(), v)
	}
	switch {
	case done.Value == "":
		p.report("%s: is published", c.Name())
	case with.DryRun:
		fmt.Fprintf(p.out, "add %s. %d IN TXT %s\n", done.Name, done.TTL/time.Second, record.Quote(done.Value))
	default:
		p.report("%s: added, all name servers show it", c.Name())
	}
	return nil
}
