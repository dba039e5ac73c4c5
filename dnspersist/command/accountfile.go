package command

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"github.com/spf13/cobra"
)

func exportCommand() *cobra.Command {
	cmd := newCommand("export [--output FILE] [--ca URL]", "Writes the account with its key to one file", `
Writes the bound account with its PRIVATE KEY as one JSON file, for a backup, for a CI
machine or for a second cluster. A file is made with mode 0600 and never overwritten.
Without --output it goes to standard output, but not to a terminal.`, runExport)
	cmd.Args = cobra.NoArgs
	cmd.Flags().StringP("output", "o", "", "File to write")
	cmd.Flags().String("ca", "", "Directory URL of one CA, where there are several")
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
	cmd := newCommand("import FILE|- [--ca URL]", "Binds the account from an exported file", `
Binds the account that account export has written, after the CA has confirmed it. An
account that is bound already stays: the same one is no error, another one is.`, runImport)
	cmd.Args = cobra.ExactArgs(1)
	cmd.Flags().String("ca", "", "Directory URL of one CA, where there are several")
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
