package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"time"
)

// table is a plain text table; the first column is aligned to the left, the
// others to the right.
type table struct {
	title string
	rows  [][]string
}

func newTable(title string, head ...string) *table {
	return &table{title: title, rows: [][]string{head}}
}

func (t *table) row(cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		row[i] = cell(c)
	}
	t.rows = append(t.rows, row)
}

// cell writes numbers with as many digits as mean something.
func cell(c any) string {
	switch c := c.(type) {
	case float64:
		switch {
		case c == 0:
			return "0"
		case c < 0.1:
			return fmt.Sprintf("%.4f", c)
		case c < 10:
			return fmt.Sprintf("%.2f", c)
		case c < 100:
			return fmt.Sprintf("%.1f", c)
		}
		return fmt.Sprintf("%.0f", c)
	case time.Duration:
		return span(c)
	}
	return fmt.Sprint(c)
}

// span is a duration in one unit.
func span(d time.Duration) string {
	switch {
	case d >= 100*time.Second:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d >= time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d >= time.Millisecond:
		return fmt.Sprintf("%.0f ms", float64(d)/float64(time.Millisecond))
	case d >= time.Microsecond:
		return fmt.Sprintf("%.1f µs", float64(d)/float64(time.Microsecond))
	}
	return fmt.Sprintf("%d ns", d.Nanoseconds())
}

func (t *table) print(w io.Writer) {
	widths := make([]int, len(t.rows[0]))
	for _, r := range t.rows {
		for i, c := range r {
			widths[i] = max(widths[i], len([]rune(c)))
		}
	}
	fmt.Fprintf(w, "%s\n\n", t.title)
	for i, r := range t.rows {
		var line strings.Builder
		for j, c := range r {
			pad := strings.Repeat(" ", widths[j]-len([]rune(c)))
			if j == 0 {
				line.WriteString(c + pad)
			} else {
				line.WriteString("  " + pad + c)
			}
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
		if i == 0 {
			var rule []string
			for _, n := range widths {
				rule = append(rule, strings.Repeat("-", n))
			}
			fmt.Fprintln(w, strings.Join(rule, "  "))
		}
	}
	fmt.Fprintln(w)
}

// heading says on what was measured, without naming the machine.
func heading(w io.Writer) {
	fmt.Fprintf(w, "%d cores, %s, %s/%s, %s\n\n",
		runtime.NumCPU(), runtime.Version(), runtime.GOOS, runtime.GOARCH, time.Now().UTC().Format(time.DateOnly))
}

// quantile of durations, which it sorts; 1 is the worst.
func quantile(all []time.Duration, q float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[min(int(q*float64(len(all))), len(all)-1)]
}
