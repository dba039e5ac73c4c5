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
	cmd := newCommand("unpublish NAME… | - | --stale [--provider FILE|-] [--dry-run]", "Removes what publish has written", `
Removes, at the given names, exactly the values that publish has written for the bound
account and that are noted in storage. Everything else stays. With --stale it does so at
the names that the configuration does not manage any more and that have no valid
certificate either.`, runUnpublish)
	cmd.Flags().String("provider", "", "File with the provider's JSON, or - for standard input. Default: the configured one")
	cmd.Flags().Bool("stale", false, "Remove the records of names that need none any more")
	cmd.Flags().Bool("dry-run", false, "Show what would be removed, and write nothing")
	cmd.Flags().Duration("wait", publish.DefaultWait, "How long a write may take to show on all name servers")
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
		if err := p.unshared(c); err != nil {
			p.fail(c.Name(), err)
			continue
		}
		entries, err := c.Inventory().At(r, c.Place())
		if err != nil {
			p.fail(c.Name(), err)
			continue
		}
		n := 0
		for _, e := range entries {
			if e.Account != c.Account() {
				continue // of another time
			}
			n++
			p.remove(c.Name(), c.Place(), e.Value, c.Configured(), func(with *acmepersist.Publishing) (publish.Removed, error) {
				return c.Unpublish(p, with, e.Value)
			})
		}
		if n == 0 {
			p.report("%s: nothing there is noted as ours; it stays as it is", c.Name())
		}
	}
	return p.end(len(p.checks))
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
	if err != nil {
		p.fail("what was written", err)
	}
	for _, l := range all {
		p.remove(l.Name, l.Name, l.Value, l.Configured(), func(with *acmepersist.Publishing) (publish.Removed, error) { return l.Unpublish(p, with) })
	}
	if len(all) == 0 && err == nil {
		p.report("nothing was written for a name that needs it no more")
	}
	return p.end(max(len(all), p.failed))
}

// remove removes a value of a name that is published at a place, or shows it in a dry run.
func (p *publishing) remove(name, place, value string, configured *acmepersist.Publishing, unpublish func(*acmepersist.Publishing) (publish.Removed, error)) {
	if p.flag("dry-run") {
		fmt.Fprintf(p.out, "remove %s. IN TXT %s\n", place, record.Quote(value))
		return
	}
	with, err := p.with(configured)
	var done publish.Removed
	if err == nil {
		done, err = unpublish(with)
	}
	for _, v := range done.Restored {
		p.report("%s: the provider had removed %q as well, it is there again", name, v)
	}
	switch {
	case err != nil:
		p.fail(name, err)
	case done.Gone:
		p.report("%s: removed", name)
	default:
		p.report("%s: was gone already", name)
	}
}
