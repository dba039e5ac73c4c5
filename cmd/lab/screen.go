package main

import (
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// columns is how wide the lines of the lab are. What somebody may copy (a value, a command) is alone on
// its line and not broken.
const columns = 80

// screen is where the lab tells what happens: whole lines, also while somebody types.
type screen struct {
	began time.Time

	mu  sync.Mutex
	out io.Writer
}

// to sends what is said from now on to out.
func (s *screen) to(out io.Writer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = out
}

// say tells a part of the story, with the seconds since the start.
func (s *screen) say(format string, args ...any) {
	label := fmt.Sprintf("%6.1fs  ", time.Since(s.began).Seconds())
	s.print(folded(label, strings.Repeat(" ", len(label)), fmt.Sprintf(format, args...)))
}

// print writes text as it is.
func (s *screen) print(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintln(s.out, strings.TrimRight(text, "\n"))
}

// unbroken is what stays on one line: a text in quotes, and every word.
var unbroken = regexp.MustCompile(`[^\s"]*"(?:[^"\\]|\\.)*"[^\s"]*|\S+`)

// folded breaks the lines of a text. The first begins with label, what is broken goes on behind indent, and
// a line that begins with a space is not broken.
func folded(label, indent, text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, " ") || line == "" {
			b.WriteString(line + "\n")
			continue
		}
		current, isEmpty := label, true
		for _, word := range unbroken.FindAllString(line, -1) {
			if !isEmpty && utf8.RuneCountInString(current)+1+utf8.RuneCountInString(word) > columns {
				b.WriteString(current + "\n")
				current, isEmpty = indent, true
			}
			if !isEmpty {
				current += " "
			}
			current, isEmpty = current+word, false
		}
		b.WriteString(current + "\n")
		label = indent
	}
	return b.String()
}
