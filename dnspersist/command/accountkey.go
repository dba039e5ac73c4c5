package command

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/operator"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

func rolloverCommand() *cobra.Command {
	cmd := newCommand("rollover", "Changes the account's key", `
Changes the key of the bound account at the CA, which makes the old key
worthless at once. A command that was cut short is repeated: it goes on where
it ended. A running Caddy takes the new key by itself.

The account URL stays. Records with the account URL (drafts -00 and -01) stay
as they are. Those of draft -02 are made with the key's thumbprint: the
command then shows the values to publish beside the old ones.`, runRollover)
	cmd.Args = cobra.NoArgs
	choice(cmd.Flags(), "format", "text", "Output", "text", "json")
	cmd.Example = examples("account rollover")
	return cmd
}

// rolloverReply is the JSON of the command.
type rolloverReply struct {
	acmepersist.Rollover
	// Publish are the records that the new key needs, beside the published ones.
	Publish []operator.RecordSet `json:"publish"`
}

func runRollover(r *run) error {
	iss, err := r.one()
	if err != nil {
		return err
	}
	done, err := iss.RollKey(r)
	if err != nil {
		return err
	}
	r.report("the key of %s was changed; take a new backup with `account export`, the key in older ones is dead", done.URL)
	reply := rolloverReply{Rollover: done, Publish: []operator.RecordSet{}}
	records, err := r.opened[0].Records(r, iss.CA, nil) // other CAs have nothing to do with this key
	if err != nil {
		return fmt.Errorf("the key was changed, but which records it needs is not known: %w; ask with `caddy dns-persist records`", err)
	}
	for _, set := range records.Records {
		if set.Type == "CNAME" {
			continue // it leads where it did; the record at its end is among the others
		}
		if slices.ContainsFunc(set.Wanted, func(w acmepersist.Wanted) bool { return w.Account == done.URL && w.Dialect == record.DialectHashed }) {
			reply.Publish = append(reply.Publish, set)
		}
	}
	if r.isJSON() {
		return r.json(reply)
	}
	if len(reply.Publish) == 0 {
		r.report("no record in DNS has to change: they name the account URL, which stays")
		return nil
	}
	r.report("publish these beside the published values; an old value may go when `check` calls the new one good and the name's certificate was renewed after that")
	return recordTable(r.out, reply.Publish)
}

func deactivateCommand() *cobra.Command {
	cmd := newCommand("deactivate --yes ACCOUNT-URL", "Ends the account at the CA, for ever", `
Deactivates the bound account at the CA. This cannot be undone. Every record
that names it is worthless afterwards: no certificate is obtained or renewed
with it any more, and Caddy registers no other account in its place.
Certificates that were issued stay valid until they end.

--yes has to be followed by the account's URL, as the command account shows
it.`, runDeactivate)
	cmd.Args = cobra.NoArgs
	cmd.Flags().String("yes", "", "URL of the account to end")
	cmd.Example = examples("account deactivate --yes https://ca.example/acct/1")
	return cmd
}

func runDeactivate(r *run) error {
	iss, err := r.one()
	if err != nil {
		return err
	}
	known, found, err := iss.KnownAccount(r)
	if err != nil {
		return err
	}
	if r.text("yes") == "" {
		if !found {
			return fmt.Errorf("%w at %s: there is nothing to deactivate", acmepersist.ErrNoAccount, iss.CA)
		}
		r.report("%s is the bound account at %s; %d names use it, or have, and would get no further certificate", known.URL, iss.CA, usersOf(r, iss))
		return errors.New("this cannot be undone: repeat the command with --yes " + known.URL)
	}
	if err := iss.DeactivateAccount(r, r.text("yes")); err != nil {
		return err
	}
	r.report("%s is deactivated: no certificate is obtained or renewed with it any more (%d names use it, or have)", r.text("yes"), usersOf(r, iss))
	r.report("certificates that were issued stay valid until they end; to go on with another account, remove %s from the storage, let Caddy bind a new one, and publish its records", known.StorageKey)
	return nil
}

// usersOf counts the names of an account: those that storage knows, and those that the
// configuration manages, which may wait for their first certificate.
func usersOf(r *run, iss *acmepersist.Issuer) int {
	names, _ := iss.SeenIdentifiers(r)
	names = append(names, r.opened[0].ManagedAt(iss.CA)...)
	slices.Sort(names)
	return len(slices.Compact(names))
}
