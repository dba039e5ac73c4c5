package command

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// names returns the names on the command line, with those on standard input in place of "-".
// They are checked before anybody is asked anything. Nil means all.
func (r *run) names() ([]string, error) {
	var given []string
	for _, arg := range r.args {
		if arg != "-" {
			given = append(given, arg)
			continue
		}
		lines := bufio.NewScanner(r.in)
		lines.Buffer(nil, 16<<20)
		for lines.Scan() {
			line, _, _ := strings.Cut(strings.TrimPrefix(lines.Text(), "\ufeff"), "#")
			given = append(given, strings.Fields(line)...)
		}
		if err := lines.Err(); err != nil {
			return nil, fmt.Errorf("reading names from standard input: %w", err)
		}
		if len(given) == 0 {
			// or an empty list would mean all names
			return nil, errors.New("standard input held no name")
		}
	}
	seen := make(map[string]bool)
	var names []string
	var errs []error
	for _, name := range given {
		// people paste what they see in their zone
		normal, err := record.Normalize(strings.TrimPrefix(strings.ToLower(name), record.Label+"."))
		if err != nil {
			if bare := hostOf(name); bare != "" {
				err = fmt.Errorf("%q is not a domain name: give %s", name, bare)
			}
			errs = append(errs, err)
			continue
		}
		if !seen[normal] {
			seen[normal] = true
			names = append(names, normal)
		}
	}
	return names, errors.Join(errs...)
}

// hostOf is the domain name in what was given in its place, a URL or an address with a port;
// empty if there is none.
func hostOf(name string) string {
	if _, rest, ok := strings.Cut(name, "://"); ok {
		name = rest
	}
	name, _, _ = strings.Cut(name, "/")
	if host, _, err := net.SplitHostPort(name); err == nil {
		name = host
	}
	normal, err := record.Normalize(name)
	if err != nil {
		return ""
	}
	return normal
}
