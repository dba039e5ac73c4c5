package command

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/publish"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

func unpublishCommand() *cobra.Command {
	cmd := newCommand("unpublish NAME… | - | --stale [flags]", "Removes what publish has written", `
Removes, at the given names, exactly the values that publish has written for
the bound account and that are noted in storage. Everything else stays. With
--stale it does so at the names that the configuration does not manage any
more and that have no valid certificate either.

The exit status of a dry run is 2 if there is something to remove. The JSON
has one of the changes for each record, whose result is removed, gone (it was
already), not_ours (nothing is noted), to_remove (in a dry run) or failed.`, runUnpublish)
	cmd.Flags().String("provider", "", "File with the provider's JSON, or - for standard input. Default: the configured one")
	cmd.Flags().Bool("stale", false, "Remove the records of names that need none any more")
	cmd.Flags().Bool("dry-run", false, "Show what would be removed, and write nothing")
	cmd.Flags().Duration("wait", publish.DefaultWait, "How long a write may take to show on all name servers")
	choice(cmd.Flags(), "format", "text", "Output", "text", "json")
	cmd.ValidArgsFunction = completeNames
	cmd.Example = examples("unpublish old.example.com --dry-run", "unpublish --stale")
	return cmd
}

func runUnpublish(r *run) error {
	switch stale := r.flag("stale"); {
	case stale && len(r.args) > 0:
		return errors.New("--stale is for all names that need no record any more, so none can be given")
	case !stale && len(r.args) == 0:
		return errors.New("the names have to be given, or --stale")
	}
	p, err := r.publishing()
	if err != nil {
		return err
	}
	if r.flag("stale") {
		return p.removeStale()
	}
	for _, c := range p.checks {
		if err := r.Err(); err != nil {
			return p.end(err)
		}
		what := changeOf(c)
		err := p.unshared(c)
		var entries []publish.Entry
		if err == nil {
			entries, err = c.Inventory().At(r, c.Place())
		}
		entries = slices.DeleteFunc(entries, func(e publish.Entry) bool { return e.Account != c.Account() }) // of another time
		if err != nil || len(entries) == 0 {
			what.What = changeNotOurs
			p.show(what, err)
			continue
		}
		for _, e := range entries {
			what.Value = e.Value
			p.show(p.remove(what, c.Configured(), func(with *acmepersist.Publishing) (publish.Removed, error) {
				return c.Unpublish(p, with, e.Value)
			}))
		}
	}
	return p.end(nil)
}

// unshared is an error if others need the record of a name as well, which are not given.
func (p *publishing) unshared(c *acmepersist.Check) error {
	others, more, err := c.Shares(p)
	if err != nil {
		return err
	}
	others = slices.DeleteFunc(others, func(domain string) bool {
		return slices.ContainsFunc(p.checks, func(o *acmepersist.Check) bool { return o.Name() == record.Label+"."+domain })
	})
	if twin := c.Twin(p, p.checks, p.off.ManagedAt, p.off.Serves); twin != "" {
		others = append(others, twin)
	}
	switch {
	case more:
		return fmt.Errorf("the record at %s serves many other domains as well; remove it by hand if none of them needs it", c.Place())
	case len(others) > 0:
		return fmt.Errorf("the record at %s serves %s as well: give these names too if none of them needs it", c.Place(), strings.Join(others, ", "))
	}
	return nil
}

// removeStale removes the records of names that need none any more.
func (p *publishing) removeStale() error {
	all, err := p.off.Leftovers(p, p.text("ca"))
	for _, l := range all {
		what := change{Name: l.Name, CA: l.CA, Account: l.Account, Value: l.Value, at: l.Name}
		p.show(p.remove(what, l.Configured(), func(with *acmepersist.Publishing) (publish.Removed, error) { return l.Unpublish(p, with) }))
	}
	if len(all) == 0 && err == nil {
		p.report("nothing was written for a name that needs it no more")
	}
	return p.end(err)
}

// remove removes the value of a change, if it is no dry run.
func (p *publishing) remove(what change, configured *acmepersist.Publishing, unpublish func(*acmepersist.Publishing) (publish.Removed, error)) (change, error) {
	if what.What = changeToRemove; p.flag("dry-run") {
		return what, nil
	}
	with, err := p.with(configured)
	if err != nil {
		return what, err
	}
	done, err := unpublish(with)
	what.Restored, what.What = done.Restored, changeGone
	if done.Gone {
		what.What = changeRemoved
	}
	return what, err
}
