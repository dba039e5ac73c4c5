package command

import (
	"context"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/operator"
)

// completionTime is how long a person who has pressed the tabulator waits at most.
const completionTime = 2 * time.Second

// completeFlags has a shell offer values for the flags of a command and of those below it, and files
// only where one is meant.
func completeFlags(cmd *cobra.Command) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		var values cobra.CompletionFunc
		switch allowed := f.Annotations["allowed"]; f.Name {
		case "config", "provider", "standby", "output", "root":
			return
		case "adapter":
			values = completeAdapter
		case "ca":
			values = asked(casOf)
		case "ask", "order":
			values = asked(namesOf)
		default: // none for most: what is typed with care, such as the account to deactivate, is not offered
			values = cobra.FixedCompletions(allowed, cobra.ShellCompDirectiveNoFileComp)
		}
		_ = cmd.RegisterFlagCompletionFunc(f.Name, values) // an error means that the command has its own
	})
	for _, sub := range cmd.Commands() {
		completeFlags(sub)
	}
}

// completeAdapter offers the adapters that are built in.
func completeAdapter(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var all []cobra.Completion
	for _, m := range caddy.GetModules("caddy.adapters") {
		all = append(all, m.ID.Name())
	}
	return all, cobra.ShellCompDirectiveNoFileComp
}

// completePhases offers the phases that are not among those before the last comma.
func completePhases(_ *cobra.Command, _ []string, begin string) (all []cobra.Completion, _ cobra.ShellCompDirective) {
	given := begin[:strings.LastIndex(begin, ",")+1]
	for _, phase := range operator.Phases() {
		if !strings.Contains(","+given, ","+phase+",") {
			all = append(all, given+phase)
		}
	}
	return all, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// completeNames offers the domains that the running Caddy manages, or the configuration.
var completeNames = asked(namesOf)

// asked offers what whoever answers the command knows, without those that are given already. It is
// silent and has little time: what a completion writes stands in the line that somebody types.
func asked(ask func(*client) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begin string) ([]cobra.Completion, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(context.Background(), completionTime)
		defer cancel()
		r := &run{Context: ctx, cmd: cmd, args: args, out: io.Discard, err: io.Discard, in: strings.NewReader("")}
		answer := make(chan []string, 1)
		go func() { // a storage cannot be told to hurry
			defer close(answer)
			if r.text("config") == "-" || r.text("account-url") != "" {
				return // what is typed is the configuration, and here is none
			}
			if c, err := r.source(); err == nil {
				answer <- ask(c)
			}
			r.close()
		}()
		var all []string
		select {
		case all = <-answer:
		case <-ctx.Done():
		}
		all = slices.DeleteFunc(all, func(s string) bool { return !strings.HasPrefix(s, begin) || slices.Contains(args, s) })
		return all, cobra.ShellCompDirectiveNoFileComp
	}
}

// namesOf are the domains that a configuration manages.
func namesOf(c *client) (all []string) {
	if c.off != nil {
		return c.off.Managed() // and storage need not be read
	}
	query := url.Values{"limit": {"1000"}}
	for {
		reply, err := get[operator.NamesReply](c, "names", query)
		for _, n := range reply.Names {
			all = append(all, n.Domain)
		}
		if query.Set("after", reply.After); err != nil || reply.After == "" {
			slices.Sort(all)
			return slices.Compact(all) // one may be at several CAs
		}
	}
}

// casOf are the directory URLs of a configuration.
func casOf(c *client) []string {
	reply, _ := get[operator.OverviewReply](c, "", nil)
	return reply.CAs
}
