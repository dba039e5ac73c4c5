package command

import (
	"strings"
	"testing"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/operator"
)

// A page that is longer than the terminal ends where that does, and how many names are below is known.
func TestFirstRows(t *testing.T) {
	names := []operator.NameStatus{{Domain: "a.example"}, {Domain: "b.example"}, {Domain: "c.example"}}
	text := "3 names\na.example: waiting\n    do      x\nb.example: waiting\n    do      x\nc.example: waiting\n"
	for rows, want := range map[int]int{1: 3, 2: 2, 3: 2, 4: 1, 5: 1, 6: 0, 7: 0, 0: 0, -2: 0} {
		shown, hidden := firstRows(text, rows, names)
		if hidden != want || rows > 0 && strings.Count(shown, "\n") > rows {
			t.Errorf("of %d rows %d names are hidden, want %d:\n%s", rows, hidden, want, shown)
		}
	}
}
