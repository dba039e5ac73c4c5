package command

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/operator"
)

func accountCommand() *cobra.Command {
	cmd := newCommand("account [--register] [--format text|json]", "Shows the ACME account that the records name", `
Shows the bound account of each CA: its URL, its key's thumbprint, its status
at the CA, and where its key lies in storage. The JSON holds all that another
machine needs to make records (records --account-url), and never the key.

Without --config that is the account of the Caddy that runs. What registers,
copies or changes an account works from the configuration and its storage, as
the user whose storage it is, and refuses where the Caddy that runs uses
another account. With --config nothing is compared: mind as which user, and
with which storage, it runs.

--register binds an account if there is none, as Caddy does at its first
certificate: the one that the issuer acme has for the CA is adopted, else one
is registered.

The exit status is 2 if no CA has an account, if a CA does not accept one, or
if nothing could be learned of one; a CA without an account beside others is
only left out.`, runAccount)
	cmd.Args = commandsOnly
	cmd.Flags().Bool("register", false, "Bind an account if there is none")
	cmd.Flags().Bool("json", false, "The same as --format json")
	choice(cmd.Flags(), "format", "text", "Output", "text", "json")
	cmd.Example = examples("account", "account --register --config /etc/caddy/Caddyfile", "account --format json > standby.json")
	cmd.AddCommand(exportCommand(), importCommand(), rolloverCommand(), deactivateCommand())
	return cmd
}

func runAccount(r *run) error {
	reply, err := r.accounts()
	if err != nil {
		return err
	}
	r.note(reply.Failed)
	reply.Failed = r.failed
	if r.isJSON() {
		err = r.json(reply)
	} else {
		err = accountTable(r.out, reply.Accounts)
	}
	if err != nil {
		return err
	}
	if len(reply.Accounts) == 0 && len(r.failed) == 0 {
		r.report("no ACME account is bound yet: --register binds one; where account_url names one, `account import` brings it")
		return errNotOK
	}
	var notOK error
	for _, a := range reply.Accounts {
		if a.Status == "valid" {
			continue
		}
		notOK = errNotOK
		if r.flag("register") {
			r.report("nothing was registered at %s: the account %s is bound, although the CA does not accept it. See whether a backup has the right one; "+
				"to give it up for ever move %s in the storage away and run this again, and publish every record anew", a.CA, a.URL, a.StorageKey)
		}
	}
	return notOK
}

func (r *run) accounts() (operator.AccountReply, error) {
	if !r.flag("register") {
		src, err := r.source()
		if err != nil {
			return operator.AccountReply{}, err
		}
		return get[operator.AccountReply](src, "account", url.Values{"ca": {r.text("ca")}})
	}
	off, err := r.changing()
	if err != nil {
		return operator.AccountReply{}, err
	}
	failed, err := off.Register(r, r.text("ca"))
	if err != nil {
		return operator.AccountReply{}, err
	}
	r.note(failed)
	return off.Accounts(r, r.text("ca"))
}

func accountTable(out io.Writer, all []acmepersist.AccountState) error {
	return details(out, len(all), func(i int, field func(string, ...string)) {
		a := all[i]
		field("CA", a.CA)
		field("account URL", a.URL)
		field("thumbprint", a.Thumbprint)
		for _, t := range a.EarlierThumbprints {
			field("earlier thumbprint", t)
		}
		field("issuer domain names", a.IssuerDomainNames...)
		field("account hash prefix", a.AccountHashPrefix)
		field("status", cmp.Or(a.Status, "not asked"))
		field("problem", a.Problem)
		field("contact", cmp.Or(strings.Join(a.Contact, ", "), "none"))
		field("bound", a.BoundAt.Format(time.DateTime)+" ("+a.Origin+")")
		if !a.RolledAt.IsZero() {
			field("key changed", a.RolledAt.Format(time.DateTime))
		}
		field("key in storage", a.StorageKey)
		if a.PendingRollover {
			field("note", "a key rollover was cut short: `caddy dns-persist account rollover` finishes it")
		}
		if !a.DeactivatedAt.IsZero() {
			field("note", "deactivated by the command on "+a.DeactivatedAt.Format(time.DateTime))
		}
	})
}

func exportCommand() *cobra.Command {
	cmd := newCommand("export [--output FILE]", "Writes the account with its key to one file", `
Writes the bound account with its PRIVATE KEY as one JSON file, for a backup,
for a CI machine or for a second cluster. A file is made with mode 0600 and
never overwritten. Without --output it goes to standard output, but not to a
terminal.`, runExport)
	cmd.Args = cobra.NoArgs
	cmd.Flags().StringP("output", "o", "", "File to write")
	cmd.Example = examples("account export --output account-backup.json", "account export | age -r age1… > account-backup.age")
	return cmd
}

func runExport(r *run) error {
	path := r.text("output")
	if path == "" && isTerminal(r.out) {
		return errors.New("the account's private key is not shown on a terminal: use --output FILE, or pipe it to where it belongs")
	}
	iss, err := r.one()
	if err != nil {
		return err
	}
	data, err := iss.ExportAccount(r)
	if err != nil {
		return err
	}
	if path == "" {
		if f, ok := r.out.(*os.File); ok {
			if info, err := f.Stat(); err == nil && runtime.GOOS != "windows" && info.Mode().IsRegular() && info.Mode().Perm()&0o044 != 0 {
				r.report("warning: other users of this machine can read the file that the private key goes into (%#o): use --output FILE, or take that right from them", info.Mode().Perm())
			}
		}
		_, err := r.out.Write(data)
		return err
	}
	if err := writeSecret(path, data); err != nil {
		return fmt.Errorf("writing the account: %w", err)
	}
	r.report("the account and its private key are in %s", path)
	return nil
}

// writeSecret makes a file that nobody else can read. One that exists is never touched.
func writeSecret(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists and is not overwritten: it may be the only copy of another key", path)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

func importCommand() *cobra.Command {
	cmd := newCommand("import FILE|-", "Binds the account from an exported file", `
Binds the account that account export has written, after the CA has confirmed
it. An account that is bound already stays: the same one is no error, another
one is.`, runImport)
	cmd.Args = func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return errors.New("give the file that `account export` has written, or - for standard input")
		}
		return nil
	}
	cmd.ValidArgsFunction = nil // a file
	cmd.Example = examples("account import account-backup.json", "account import - < account-backup.json")
	return cmd
}

func runImport(r *run) error {
	data, err := r.read("the exported account", r.args[0])
	if err != nil {
		return err
	}
	iss, err := r.one()
	if err != nil {
		return err
	}
	result, err := iss.ImportAccount(r, data)
	if err != nil {
		return err
	}
	r.report("%s: %s", result.Outcome, result.URL)
	return nil
}
