package command

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dnspersist/caddy-dnspersist/dnspersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/operator"
)

func probeCommand() *cobra.Command {
	cmd := newCommand("probe [URL] [--order NAME] [--format text|json]", "Asks the CA whether and how it offers dns-persist-01", `
Shows for each CA of the configuration whether it offers dns-persist-01, in
which dialect, under which issuer domain names, and whether it wants an
external account binding. The directory shows it at CAs of draft -02. Where
only an order can tell, --order makes one for NAME with the bound account and
throws it away: nothing is validated. What is publicly known of a CA whose
directory does not tell is shown with its date, and does not change the
answer.

With the URL of a directory no configuration is needed: that CA is asked for
its directory, and nothing else.

The exit status is 2 unless every CA answers now, and offers the challenge.`, runProbe)
	cmd.Args = cobra.MaximumNArgs(1)
	cmd.Flags().String("order", "", "Make a throw-away order for this name to see what the CA offers")
	cmd.Flags().StringSlice("root", nil, "With a URL: file with the PEM certificate of a root to trust")
	choice(cmd.Flags(), "format", "text", "Output", "text", "json")
	cmd.MarkFlagsMutuallyExclusive("root", "order")
	var known []cobra.Completion
	for _, k := range acmepersist.KnownCAs() {
		known = append(known, cobra.CompletionWithDesc(k.CA, k.Name))
	}
	cmd.ValidArgsFunction = cobra.FixedCompletions(known, cobra.ShellCompDirectiveNoFileComp)
	cmd.Example = examples("probe https://acme-v02.api.letsencrypt.org/directory", "probe --order example.com")
	return cmd
}

func runProbe(r *run) error {
	reply, err := r.probes()
	if err != nil {
		return err
	}
	r.note(reply.Failed)
	if r.isJSON() {
		err = r.json(reply)
	} else {
		err = probeTable(r.out, reply.CAs)
	}
	if err == nil && slices.ContainsFunc(reply.CAs, func(p acmepersist.Probe) bool { return p.Offered != acmepersist.OfferedYes || p.Problem != "" }) {
		return errNotOK
	}
	return err
}

func (r *run) probes() (reply operator.ProbeReply, err error) {
	name := r.text("order")
	roots, err := r.cmd.Flags().GetStringSlice("root")
	switch {
	case err != nil:
		return reply, err
	case len(r.args) == 1:
		for _, flag := range []string{"order", "ca", "config", "address"} {
			if r.text(flag) != "" {
				return reply, fmt.Errorf("--%s is about a configuration, and a directory's URL needs none: use one of them", flag)
			}
		}
		p, err := dnspersist.ProbeDirectory(r, r.args[0], roots)
		return operator.ProbeReply{CAs: []acmepersist.Probe{p}}, err
	case len(roots) > 0:
		return reply, errors.New("--root is for a directory's URL; a configuration names its own trusted_roots")
	case name == "":
		src, err := r.source()
		if err != nil {
			return reply, err
		}
		return get[operator.ProbeReply](src, "probe", url.Values{"ca": {r.text("ca")}})
	}
	// an order is made by a command only, never through the admin endpoint
	iss, err := r.one()
	if err != nil {
		return reply, err
	}
	p, err := iss.ProbeByOrder(r, name)
	return operator.ProbeReply{CAs: []acmepersist.Probe{p}}, err
}

func probeTable(out io.Writer, all []acmepersist.Probe) error {
	return details(out, len(all), func(i int, field func(string, ...string)) {
		p := all[i]
		field("CA", p.CA)
		field("dns-persist-01", fmt.Sprintf("%s (by its %s)", p.Offered, p.By))
		if p.Known != nil {
			field("publicly known", fmt.Sprintf("%s: %s (%s)", p.Known.Offered, p.Known.Name, p.Known.Seen))
		}
		field("other challenges", p.OtherChallenges...)
		field("dialect", string(p.Dialect))
		field("account hash prefix", p.AccountHashPrefix)
		field("issuer domain names", cmp.Or(strings.Join(p.IssuerDomainNames, ", "), "not known"))
		field("external account", map[bool]string{true: "required", false: "not required"}[p.ExternalAccountRequired])
		field("profiles", slices.Sorted(maps.Keys(p.Profiles))...)
		field("problem", p.Problem)
		field("note", p.Note)
	})
}
