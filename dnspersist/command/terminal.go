package command

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"strings"
	"unicode"

	"golang.org/x/term"
	"golang.org/x/text/width"
)

// isTerminal reports whether w, or a reader, is a terminal that a person sits at, or is shown on one.
func isTerminal(w any) bool {
	if p, ok := w.(*page); ok {
		w = p.of
	}
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// columnsOf is how many columns the terminal w has now, or what shows a terminal the output of a command;
// 0 if it is neither, whose lines are as long as they are: somebody may search them.
func columnsOf(w any) int {
	if shown, ok := w.(interface{ Columns() int }); ok {
		return shown.Columns()
	}
	if !isTerminal(w) {
		return 0
	}
	columns, _, err := term.GetSize(int(w.(*os.File).Fd()))
	if err != nil || columns <= 0 {
		return 80
	}
	return columns
}

// rowsOf is how many rows the terminal w has now; 0 if that is not known.
func rowsOf(w any) int {
	if f, ok := w.(*os.File); ok {
		if _, rows, err := term.GetSize(int(f.Fd())); err == nil {
			return rows
		}
	}
	return 0
}

// canOverwrite reports whether a line on w can be written over. A dumb terminal cannot, and what
// reads one aloud reads each line once.
func canOverwrite(w any) bool {
	kind := os.Getenv("TERM")
	return isTerminal(w) && kind != "dumb" && (kind != "" || runtime.GOOS == "windows")
}

// colour is one of the terminal's own, so that it fits its background.
type colour int

const (
	red    colour = 31
	green  colour = 32
	yellow colour = 33
)

// paint returns a word in a colour, where w shows colours and nobody has set NO_COLOR
// (https://no-color.org). No more than a word gets one, and it means nothing that is not written too.
func paint(w any, c colour, word string) string {
	if !canOverwrite(w) || os.Getenv("NO_COLOR") != "" {
		return word
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", c, word)
}

// progress shows a person who waits how far it is, in a line that the next one takes the place of.
func (r *run) progress(format string, args ...any) {
	if r.flag("quiet") || !canOverwrite(r.err) {
		return
	}
	r.clear()
	// a full line would move the cursor to the next one
	fmt.Fprint(r.err, fit(fmt.Sprintf(format, args...), columnsOf(r.err)-1))
	r.inProgress = true
}

// clear takes the line of progress away, before anything else is written.
func (r *run) clear() {
	if r.inProgress {
		fmt.Fprint(r.err, "\r\x1b[K")
		r.inProgress = false
	}
}

// fit cuts a text that is longer than so many columns.
func fit(text string, columns int) string {
	if widthOf(text) <= columns {
		return text
	}
	used := 0
	for i, r := range text {
		if used += widthOf(string(r)); used > columns-1 {
			return text[:i] + "…"
		}
	}
	return text
}

// unbroken is what has to stay on one line for somebody to copy it: the value of a record, a line of a
// zone file, a text in quotes, and every word.
var unbroken = regexp.MustCompile(`\S+ \d+ IN TXT "(?:[^"\\]|\\.)*"(?: "(?:[^"\\]|\\.)*")*[;,]?|\S+ \d+ IN CNAME \S+|` +
	`[^\s"]+; accounturi=[^\s;]+(?:; [^\s=]+=[^\s;]+)*|[^\s"]*"(?:[^"\\]|\\.)*"[^\s"]*|\S+`)

// wrap writes a text in lines of at most so many columns, if there are any. The first begins with
// label, and the others are below its text. What is longer than a line is not broken: it is alone
// on one, from its begin, and so can be copied.
func wrap(w io.Writer, columns int, label, text string) {
	if columns <= 0 {
		fmt.Fprintln(w, label+text)
		return
	}
	indent := cmp.Or(strings.Repeat(" ", widthOf(label)), "    ")
	line, isBegun := label, label != ""
	end := func() {
		if isBegun {
			fmt.Fprintln(w, strings.TrimRight(line, " "))
		}
		line, isBegun = indent, false
	}
	for _, part := range unbroken.FindAllString(text, -1) {
		switch size := widthOf(part); {
		case len(indent)+size > columns:
			end()
			line, isBegun = strings.TrimRight(part, ";,"), true
			end()
			continue
		case widthOf(line)+1+size > columns:
			end()
		case isBegun && !strings.HasSuffix(line, " "):
			line += " "
		}
		line, isBegun = line+part, true
	}
	end()
}

// widthOf is how many columns a text takes. Escape sequences in it are our own.
func widthOf(text string) (columns int) {
	inEscape := false
	for _, r := range text {
		switch {
		case r == '\x1b':
			inEscape = true
		case inEscape:
			inEscape = r != 'm'
		case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		case isWide(r):
			columns += 2
		default:
			columns++
		}
	}
	return columns
}

func isWide(r rune) bool {
	kind := width.LookupRune(r).Kind()
	return kind == width.EastAsianWide || kind == width.EastAsianFullwidth
}
