package command

import (
	"bufio"
	"errors"
	"fmt"
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
