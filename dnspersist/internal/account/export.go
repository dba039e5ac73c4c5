package account

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// exportFormat is the "format" member of an exported account.
const exportFormat = "dns-persist-account-v1"

// exportedAccount is a backup of the bound account.
type exportedAccount struct {
	Format string `json:"format"`
	binding
}

// Export returns the bound account with its key as one JSON file, for a backup or to
// move it to another storage. Whoever has it can get certificates for every name whose
// record names the account. It registers nothing, asks nobody, and fails if no account is
// bound. The new key of a rollover that is pending is in it, too.
func (h *Holder) Export(ctx context.Context) ([]byte, error) {
	bound, err := h.mustKnow(ctx)
	if err != nil {
		return nil, fmt.Errorf("exporting the account: %w", err)
	}
	if err := bound.check(h.CA.URL); err != nil {
		return nil, fmt.Errorf("exporting the account: %s in storage: %w", bound.at, err)
	}
	data, err := json.MarshalIndent(exportedAccount{exportFormat, bound}, "", "\t")
	if err != nil {
		return nil, fmt.Errorf("exporting the account: %w", err)
	}
	return append(data, '\n'), nil
}

// parseExport reads what Export has written. Its errors quote nothing of the file
// that could be a key.
func parseExport(data []byte, ca string) (binding, error) {
	var head struct {
		Format string `json:"format"`
	}
	if json.Unmarshal(data, &head) != nil || head.Format == "" {
		return binding{}, errors.New(`this is no exported account: it is not JSON with a member "format"; ` + "`caddy dns-persist account export` makes one")
	}
	if head.Format != exportFormat {
		if len(head.Format) > 2*len(exportFormat) {
			head.Format = "something long"
		}
		return binding{}, fmt.Errorf("the file's format is %q, this version reads %q", head.Format, exportFormat)
	}
	var e exportedAccount
	if err := json.Unmarshal(data, &e); err != nil {
		where := ""
		if typed, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			where = " at " + typed.Field
		}
		return binding{}, fmt.Errorf("the file is damaged%s: a member is not what it should be", where)
	}
	return e.binding, e.check(ca)
}
