// Package command adds `caddy dns-persist` to Caddy's command line: what an operator needs to
// know and do of records and of the account that they name.
//
// Machine output goes to standard output and everything else to standard error. The exit
// status is 0 only if all is ok: 1 means that the command could not do its work, 2 that it
// did and not all names are ok, or that a dry run has found something to do.
package command

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"text/tabwriter"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/dnspersist/caddy-dnspersist/dnspersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/operator"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "dns-persist",
		Usage: "<command>",
		Short: "Shows and checks the records of the ACME challenge dns-persist-01",
		Long: `
Shows, makes and checks the TXT records at _validation-persist.<name> by which
the issuer dns_persist obtains certificates, and cares for the ACME account that
they name.

Names are given as arguments; the argument - reads them from standard input, one
in a line. Without names a command works on all that the configuration manages.

Without --config the Caddy that runs is asked, at --address or where its admin
endpoint is by default; if none runs, the Caddyfile in the current directory is
used. With --config the configuration and its storage are used, whether Caddy
runs or not. Commands that change the account, the storage or DNS, and those
that make an order, never go through the admin endpoint: they use the
configuration.

--ca URL chooses one CA by its directory, where the configuration has several.

The exit status is 0 only if all is ok, 1 for an error, and 2 if the command
has done its work and not all names are ok, or has found something to do in a
dry run.`,
		CobraFunc: func(cmd *cobra.Command) {
			cmd.AddCommand(statusCommand(), probeCommand(), accountCommand(), recordsCommand(), checkCommand(), publishCommand(), unpublishCommand())
			cmd.Example = examples("records example.com", "check --wait", "status", "account export --output account-backup.json")
			cmd.SetErrPrefix("error:")
			completeFlags(cmd)
			cmd.SetUsageTemplate(strings.NewReplacer(".FlagUsages ", ".FlagUsagesWrapped 80 ", "for more information about a command", "for more about one").Replace(cmd.UsageTemplate()))
			cmd.Args = commandsOnly
			cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
				if strings.Contains(err.Error(), "missing unit in duration") {
					return fmt.Errorf("%w: write a number with its unit, such as 30s, 5m or 1h", err)
				}
				return fmt.Errorf("%w: see `%s --help`", err, cmd.CommandPath())
			})
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		},
	})
}

// commandsOnly names the command that a mistyped one may have been.
func commandsOnly(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	cmd.SuggestionsMinimumDistance = 2
	hint := fmt.Sprintf("see `%s --help`", cmd.CommandPath())
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "did you mean " + strings.Join(near, " or ") + "?"
	}
	return fmt.Errorf("unknown command %q for %q: %s", args[0], cmd.CommandPath(), hint)
}

// errNotOK ends a command that has done its work with status 2.
var errNotOK = errors.New("not all is ok")

// run is one call of a command.
type run struct {
	context.Context
	cmd      *cobra.Command
	args     []string
	out, err io.Writer
	in       io.Reader
	// failed are the CAs of which nothing is known; the others are reported.
	failed []operator.Failure
	// opened are the configurations that the command has opened, closed when it ends.
	opened []*dnspersist.Offline
	// inProgress is true while there is a line of progress on the terminal.
	inProgress bool
}

// newCommand makes a command of fn, with the flags that all have. A shell offers no arguments for it.
func newCommand(use, short, long string, fn func(*run) error) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Long: strings.TrimSpace(long), ValidArgsFunction: cobra.NoFileCompletions}
	cmd.Flags().StringP("config", "c", "", "Configuration file; its issuers and storage are used, not the running Caddy")
	cmd.Flags().StringP("adapter", "a", "", "Name of the adapter for the configuration file")
	cmd.Flags().String("address", "", "Address of the running Caddy's admin endpoint")
	cmd.Flags().String("ca", "", "Directory URL of one CA of the configuration, where it has several")
	cmd.MarkFlagsMutuallyExclusive("config", "address")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		context.AfterFunc(ctx, stop) // who interrupts twice does not want to wait for the end
		r := &run{Context: ctx, cmd: cmd, args: args, out: cmd.OutOrStdout(), err: cmd.ErrOrStderr(), in: cmd.InOrStdin()}
		err := r.checkChoices()
		if err == nil {
			err = fn(r)
		}
		r.close()
		if err == nil && len(r.failed) > 0 {
			err = errNotOK
		}
		return r.end(err)
	}
	return cmd
}

// examples are those of a help text, as Caddy's own are.
func examples(commands ...string) string {
	return "  $ caddy dns-persist " + strings.Join(commands, "\n  $ caddy dns-persist ")
}

// close closes what the command has opened.
func (r *run) close() {
	for _, off := range r.opened {
		_ = off.Close()
	}
}

// errInterrupted is the error for whatever a signal has cut short.
var errInterrupted = errors.New("interrupted; the command may be repeated")

// end reports what went wrong and sets the exit status.
func (r *run) end(err error) error {
	r.clear()
	if err == nil {
		return nil
	}
	r.cmd.SilenceErrors, r.cmd.SilenceUsage = true, true
	r.cmd.Root().SilenceErrors = true
	if errors.Is(err, errNotOK) {
		// Caddy's own wrapper is the only way to another status than 1
		quit := &cobra.Command{}
		return caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) { return 2, nil })(quit, nil)
	}
	if r.Err() != nil && errors.Is(err, context.Canceled) {
		err = errInterrupted
	}
	r.report("error: %v", err)
	return err
}

// note reports CAs of which nothing is known. The command goes on with the others and ends with
// status 2.
func (r *run) note(failed []operator.Failure) {
	for _, f := range failed {
		if !slices.ContainsFunc(r.failed, func(other operator.Failure) bool { return other.CA == f.CA }) {
			r.failed = append(r.failed, f)
			r.report("error: %v", f)
		}
	}
}

// report writes a line for a person.
func (r *run) report(format string, args ...any) {
	r.clear()
	for line := range strings.Lines(fmt.Sprintf(format, args...)) {
		wrap(r.err, columnsOf(r.err), "", strings.TrimSuffix(line, "\n"))
	}
}

func (r *run) text(flag string) string {
	s, _ := r.cmd.Flags().GetString(flag)
	return s
}

// isJSON reports whether the output is to be JSON.
func (r *run) isJSON() bool { return r.flag("json") || r.text("format") == "json" }

// choice gives a command a flag that takes one of several values.
func choice(flags *pflag.FlagSet, name, value, usage string, allowed ...string) {
	flags.String(name, value, usage+": "+strings.Join(allowed, ", "))
	_ = flags.SetAnnotation(name, "allowed", allowed)
}

// checkChoices checks the values of such flags.
func (r *run) checkChoices() (err error) {
	r.cmd.Flags().Visit(func(f *pflag.Flag) {
		if allowed := f.Annotations["allowed"]; len(allowed) > 0 && !slices.Contains(allowed, f.Value.String()) {
			last := len(allowed) - 1
			err = errors.Join(err, fmt.Errorf("--%s %s is unknown: use %s or %s", f.Name, f.Value, strings.Join(allowed[:last], ", "), allowed[last]))
		}
	})
	return err
}

func (r *run) flag(flag string) bool {
	b, _ := r.cmd.Flags().GetBool(flag)
	return b
}

// read reads a file, or standard input for "-".
func (r *run) read(what, path string) (data []byte, err error) {
	if path == "-" {
		data, err = io.ReadAll(r.in)
	} else {
		data, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", what, err)
	}
	return data, nil
}

// json writes v as JSON that a terminal may show.
func (r *run) json(v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "\t")
	err := enc.Encode(v)
	if err == nil {
		_, err = r.out.Write(foreign.JSON(b.Bytes()))
	}
	return err
}

// table writes columns.
func table(w io.Writer, fn func(row func(cells ...string))) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fn(func(cells ...string) { fmt.Fprintln(t, strings.TrimRight(strings.Join(cells, "\t"), "\t")) })
	return t.Flush()
}

// details writes the fields of n things by their names, with an empty line between two. What is
// empty is left out.
func details(w io.Writer, n int, of func(i int, field func(name string, values ...string))) error {
	var b bytes.Buffer
	columns := columnsOf(w)
	for i := range n {
		if i > 0 {
			b.WriteByte('\n')
		}
		var fields [][2]string
		longest := 0
		of(i, func(name string, values ...string) {
			if text := strings.Join(values, ", "); text != "" {
				fields = append(fields, [2]string{name, text})
				longest = max(longest, len(name))
			}
		})
		for _, f := range fields {
			wrap(&b, columns, fmt.Sprintf("%-*s  ", longest, f[0]), f[1])
		}
	}
	_, err := b.WriteTo(w)
	return err
}
