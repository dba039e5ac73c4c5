package command

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dnspersist/caddy-dnspersist/dnspersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/operator"
)

func probeCommand() *cobra.Command {
	cmd := newCommand("probe [URL] [--order NAME] [--ca URL] [--format text|json]", "Asks the CA whether and how it offers dns-persist-01", `
Reports for each CA of the configuration whether it offers dns-persist-01, in which
dialect, under which issuer domain names, and whether it wants an external account
binding. The directory has it at CAs of draft -02. Where only an order can show it,
--order makes one for NAME with the bound account and throws it away: nothing is
validated.

With the URL of a directory no configuration is needed: that CA is asked for its
directory, and nothing else.

The exit status is 2 unless every CA offers the challenge.`, runProbe)
	cmd.Args = cobra.MaximumNArgs(1)
	cmd.Flags().String("order", "", "Make a throw-away order for this name to see what the CA offers")
	cmd.Flags().String("ca", "", "Directory URL of one CA, where there are several")
	cmd.Flags().StringSlice("root", nil, "With a URL: file with the PEM certificate of a root to trust")
	addFormat(cmd.Flags(), "text", "json")
	return cmd
}

func runProbe(r *run) error {
	format, err := r.format("text", "json")
	if err != nil {
		return err
	}
	all, err := r.probes()
	if err != nil {
		return err
	}
	if format == "json" {
		err = r.json(operator.ProbeReply{CAs: all, Failed: r.failed})
	} else {
		err = probeTable(r.out, all)
	}
	if err != nil {
		return err
	}
	for _, p := range all {
		if p.Offered != acmepersist.OfferedYes {
			return errNotOK
		}
	}
	return nil
}

func (r *run) probes() ([]acmepersist.Probe, error) {
	name := r.text("order")
	roots, err := r.cmd.Flags().GetStringSlice("root")
	if err != nil {
		return nil, err
	}
	if len(r.args) == 1 {
		for _, flag := range []string{"order", "ca", "config", "address"} {
			if r.text(flag) != "" {
				return nil, fmt.Errorf("--%s is about a configuration, and a directory's URL needs none: use one of them", flag)
			}
		}
		p, err := dnspersist.ProbeDirectory(r, r.args[0], roots)
		return []acmepersist.Probe{p}, err
	}
	if len(roots) > 0 {
		return nil, errors.New("--root is for a directory's URL; a configuration names its own trusted_roots")
	}
	if name == "" {
		src, err := r.source()
		if err != nil {
			return nil, err
		}
		defer src.Close()
		all, err := src.Probe(r, r.text("ca"))
		return all, r.partly(err)
	}
	// an order is made by a command only, never through the admin endpoint
	off, err := r.changing()
	if err != nil {
		return nil, err
	}
	defer off.Close()
	iss, err := off.One(r.text("ca"))
	if err != nil {
		return nil, err
	}
	p, err := iss.ProbeByOrder(r, name)
	return []acmepersist.Probe{p}, err
}

func probeTable(out io.Writer, all []acmepersist.Probe) error {
	return table(out, func(row func(...string)) {
		for i, p := range all {
			if i > 0 {
				row()
			}
			row("CA", p.CA)
			row("dns-persist-01", fmt.Sprintf("%s (by its %s)", p.Offered, p.By))
			if len(p.OtherChallenges) > 0 {
				row("other challenges", strings.Join(p.OtherChallenges, ", "))
			}
			if p.Dialect != "" {
				row("dialect", string(p.Dialect))
			}
			if p.AccountHashPrefix != "" {
				row("account hash prefix", p.AccountHashPrefix)
			}
			row("issuer domain names", cmp.Or(strings.Join(p.IssuerDomainNames, ", "), "not known"))
			row("external account", map[bool]string{true: "required", false: "not required"}[p.ExternalAccountRequired])
			if len(p.Profiles) > 0 {
				var names []string
				for n := range p.Profiles {
					names = append(names, n)
				}
				sort.Strings(names)
				row("profiles", strings.Join(names, ", "))
			}
			if p.Note != "" {
				row("note", p.Note)
			}
		}
	})
}
