package command

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
)

// addFormat gives a command --format, the first being the default.
func addFormat(cmd interface {
	String(name, value, usage string) *string
}, formats ...string,
) {
	cmd.String("format", formats[0], "Output: "+strings.Join(formats, ", "))
}

// format returns the chosen format.
func (r *run) format(formats ...string) (string, error) {
	f := r.text("format")
	if r.flag("json") {
		f = "json"
	}
	if !slices.Contains(formats, f) {
		return "", fmt.Errorf("--format %s is unknown: use %s", f, strings.Join(formats, ", "))
	}
	return f, nil
}

// json writes v.
func (r *run) json(v any) error {
	data, err := encode(v, "\t")
	if err == nil {
		_, err = r.out.Write(data)
	}
	return err
}

// encode returns v as JSON that a terminal may show, with the end of its last line.
func encode(v any, indent string) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	err := enc.Encode(v)
	return foreign.JSON(b.Bytes()), err
}

// table writes columns.
func table(w io.Writer, fn func(row func(cells ...string))) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fn(func(cells ...string) { fmt.Fprintln(t, strings.TrimRight(strings.Join(cells, "\t"), "\t")) })
	return t.Flush()
}

// jsonLine writes v in one line, without its end.
func (r *run) jsonLine(v any) error {
	data, err := encode(v, "")
	if err == nil {
		_, err = r.out.Write(bytes.TrimRight(data, "\n"))
	}
	return err
}
