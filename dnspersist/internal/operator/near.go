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
		if d := distance(name, n, best); d < best {
			best, near = d, n
		}
	}
	return near
}

// distance is how many letters have to be added, taken out or exchanged, neighbours also with
// each other, to make b of a; most if it is not less.
func distance(a, b string, most int) int {
	if len(a)-len(b) >= most || len(b)-len(a) >= most {
		return most
	}
	before, last, next := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		next[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next[j+1] = min(last[j]+cost, last[j+1]+1, next[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, last, next = last, next, before
	}
	return min(last[len(b)], most)
}
