package dnspersist

import (
	"fmt"
	"strings"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// longestDelegationName is what leaves room for a label of record.DelegationLabel.
const longestDelegationName = 253 - 27

// DelegationName checks a name below which validation names are delegated, or to which, and
// returns it as DNS names are compared.
func DelegationName(s string) (string, error) {
	if err := checkDelegationName(s); err != nil {
		return "", err
	}
	return record.Normalize(s)
}

// delegationName is DelegationName of what is configured: Validate says if it is wrong.
func delegationName(s string) string {
	if name, err := DelegationName(s); err == nil {
		return name
	}
	return s
}

// checkDelegationName accepts the name of a zone or of a target in one.
func checkDelegationName(s string) error {
	if strings.Contains(s, "{") {
		return fmt.Errorf("%q: placeholders are not expanded here; in a Caddyfile {$NAME} takes the value of an environment variable", s)
	}
	name := strings.TrimSuffix(s, ".")
	if _, err := record.Normalize(name); err != nil || record.IsWildcard(name) || !strings.Contains(name, ".") {
		return fmt.Errorf("%q is not the name of a zone of yours, or within one, such as certs.example.net", s)
	}
	if len(name) > longestDelegationName {
		return fmt.Errorf("%q has %d octets, over %d: labels below it have no room", s, len(name), longestDelegationName)
	}
	if strings.HasPrefix(name, record.Label+".") {
		return fmt.Errorf("%q begins with %s: name a zone of yours, the validation names of others are to lead into it", s, record.Label)
	}
	return nil
}
