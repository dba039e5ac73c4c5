package command

import (
	"errors"
	"fmt"
)

// changing opens the configuration for a command that changes something in storage or takes a
// copy of it: only as the user whose storage it is, and not beside a running Caddy that uses
// another account.
func (r *run) changing() (*offline, error) {
	off, err := r.offline()
	if err != nil {
		return nil, err
	}
	if err = off.CheckOwner(); err == nil {
		err = r.sameAsRunning(off)
	}
	if err != nil {
		return nil, errors.Join(err, off.Close())
	}
	return off, nil
}

// sameAsRunning holds the storage against the account of a Caddy that runs, unless a
// configuration was named.
func (r *run) sameAsRunning(off *offline) error {
	if r.text("config") != "" {
		return nil
	}
	cfg, err := r.config()
	if err != nil {
		return err
	}
	address, err := adminAddress(cfg)
	if err != nil || address == "" {
		return err
	}
	running, err := newAPI(address)
	if err != nil {
		return err
	}
	defer running.Close()
	if running.reachable(r) != nil {
		return nil // none runs
	}
	accounts, err := running.Accounts(r, "")
	if err != nil {
		return fmt.Errorf("comparing with the Caddy that runs: %w; with --config nothing is compared", err)
	}
	return off.SameAccounts(r, accounts)
}
