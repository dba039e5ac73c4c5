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
	cmd := newCommand("publish [NAME… | -] [flags]", "Adds missing records through a DNS provider", `
Adds the records that the given names need, or all that the configuration
manages, with the DNS provider of the configuration, also one with publish
never, or with one whose credential is there for this run only: FILE holds the
provider as the JSON of a dns.providers module with its name, - reads it from
standard input. It is never stored.

Values are only added. What others have at a name stays; where one that is as
good is published, nothing is written. The authoritative servers are asked
before and after, and a provider that replaces where it should add is found
out and what it removed is put back. What was written is noted in storage.

The exit status of a dry run is 2 if there is something to add. The JSON has
one of the changes for each record, whose result is published (nothing had to
be done), added, to_add (in a dry run) or failed.`, runPublish)
	cmd.Flags().String("provider", "", "File with the provider's JSON, or - for standard input. Default: the configured one")
	cmd.Flags().Bool("dry-run", false, "Show what would be added, and write nothing")
	cmd.Flags().Bool("allow-shadowing", false, "Publish also where a wildcard record then stops answering for the name")
	cmd.Flags().Duration("wait", publish.DefaultWait, "How long a write may take to show on all name servers")
	choice(cmd.Flags(), "format", "text", "Output", "text", "json")
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
	changes  []change
}

// change is what was done about one record, or would be; in the JSON of the commands.
type change struct {
	// Name is where the record is published: the validation name, or where that leads.
	Name string `json:"name"`
	// Domains are those that it is for, where that is known, CA and Account the URLs.
	Domains []string `json:"domains,omitempty"`
	CA      string   `json:"ca"`
	Account string   `json:"account"`
	// Value and TTL, in seconds, are what was added or removed, or would be.
	Value string       `json:"value,omitempty"`
	TTL   int          `json:"ttl,omitempty"`
	What  changeResult `json:"result"`
	// Restored are values of others that the provider had taken away, and that were put back.
	Restored []string `json:"restored,omitempty"`
	Error    string   `json:"error,omitempty"`
	// at is the validation name.
	at string
}

// changeResult is what came of a change.
type changeResult string

const (
	changePublished changeResult = "published"
	changeAdded     changeResult = "added"
	changeToAdd     changeResult = "to_add"
	changeRemoved   changeResult = "removed"
	changeGone      changeResult = "gone"
	changeNotOurs   changeResult = "not_ours"
	changeToRemove  changeResult = "to_remove"
	changeFailed    changeResult = "failed"
)

// changeTexts are for people.
var changeTexts = map[changeResult]string{
	changePublished: "is published",
	changeAdded:     "added, all name servers show it",
	changeRemoved:   "removed",
	changeGone:      "was gone already",
	changeNotOurs:   "nothing there is noted as ours; it stays as it is",
}

// changeOf is a change at the name of a check.
func changeOf(c *acmepersist.Check) change {
	return change{Name: c.Place(), Domains: c.Domains(), CA: c.CA(), Account: c.Account(), at: c.Name()}
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

// show notes a change, and shows it to a person. One that failed is no reason to leave out the others.
func (p *publishing) show(c change, err error) {
	if err != nil {
		c.What, c.Error = changeFailed, err.Error()
	}
	p.changes = append(p.changes, c)
	for _, v := range c.Restored {
		p.report("%s: the provider had taken %q away, it is there again", c.at, v)
	}
	switch {
	case err != nil:
		p.report("%s: %v", c.at, err)
	case p.isJSON():
	case c.What == changeToAdd:
		fmt.Fprintf(p.out, "add %s. %d IN TXT %s\n", c.Name, c.TTL, record.Quote(c.Value))
	case c.What == changeToRemove:
		fmt.Fprintf(p.out, "remove %s. IN TXT %s\n", c.Name, record.Quote(c.Value))
	default:
		p.report("%s: %s", c.at, changeTexts[c.What])
	}
}

// changesReply is the JSON of the commands.
type changesReply struct {
	Changes []change           `json:"changes"`
	Failed  []operator.Failure `json:"failed,omitempty"`
}

// end puts the JSON out, and is not ok if something failed or is to be done. err is what has kept the
// command from the rest.
func (p *publishing) end(err error) error {
	if p.isJSON() {
		err = errors.Join(err, p.json(changesReply{append([]change{}, p.changes...), p.run.failed}))
	}
	failed, open := 0, false
	for _, c := range p.changes {
		if c.What == changeFailed {
			failed++
		}
		open = open || c.What == changeToAdd || c.What == changeToRemove
	}
	switch {
	case err != nil:
		return err
	case failed > 0 && p.flag("dry-run"):
		return fmt.Errorf("%d of %d names failed, see above; nothing was changed, and the command may be repeated", failed, len(p.changes))
	case failed > 0:
		return fmt.Errorf("%d of %d names failed, see above; what was written stays, and the command may be repeated", failed, len(p.changes))
	case open:
		return errNotOK
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
			return p.end(err)
		}
		p.show(p.add(c))
	}
	return p.end(nil)
}

// add writes the value that is missing; in a dry run it only finds out which one that is.
func (p *publishing) add(c *acmepersist.Check) (change, error) {
	what := changeOf(c)
	with, err := p.with(c.Configured())
	if err != nil {
		return what, err
	}
	with.AllowShadowing = with.AllowShadowing || p.flag("allow-shadowing")
	done, err := c.Publish(p, with)
	what.Restored = done.Restored
	if _, shadows := errors.AsType[*acmepersist.ShadowingError](err); shadows {
		return what, fmt.Errorf("%w or --allow-shadowing", err)
	}
	if err != nil {
		return what, err
	}
	what.Name, what.Value, what.TTL = done.Name, done.Value, int(done.TTL/time.Second)
	switch {
	case done.Value == "":
		what.TTL, what.What = 0, changePublished
	case with.DryRun:
		what.What = changeToAdd
	default:
		what.What = changeAdded
	}
	return what, nil
}
