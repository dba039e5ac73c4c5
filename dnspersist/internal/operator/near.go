package operator

import "fmt"

// UnknownNameError means that no dns_persist issuer serves a name.
type UnknownNameError struct {
	Name string
	// Near is a managed name that hardly differs; empty if there is none.
	Near string
}

func (e *UnknownNameError) Error() string {
	if e.Near != "" {
		return fmt.Sprintf("no dns_persist issuer of the configuration serves %s: did you mean %s?", e.Name, e.Near)
	}
	return fmt.Sprintf("no dns_persist issuer of the configuration serves %s: another issuer does, or none; add the name to a site with dns_persist, or make its record with --account-url and --issuer", e.Name)
}

// mostGuessed is for how many names it is guessed what was meant.
const mostGuessed = 10

// Near is the name of several that takes the fewest changes to become the given one, two at
// most; empty if there is none.
func Near(name string, names []string) string {
	best, near := 3, ""
	for _, n := range names {
		if len(name)-len(n) >= best || len(n)-len(name) >= best {
			continue
		}
		if d := distance(name, n); d < best {
			best, near = d, n
		}
	}
	return near
}

// distance is how many letters have to be added, taken out or exchanged to make b of a.
func distance(a, b string) int {
	last := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		before := last[0]
		last[0] = i + 1
		for j := range len(b) {
			change := before
			if a[i] != b[j] {
				change++
			}
			before, last[j+1] = last[j+1], min(change, last[j]+1, last[j+1]+1)
		}
	}
	return last[len(b)]
}
