//go:build unix

package commands

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/creack/pty"

	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
)

// What commands show on a terminal is in testdata/terminal, one file for each width; ␛ is the
// escape character of a colour. With -update it is written anew.
func TestTerminal(t *testing.T) {
	e := newTerminalEnv(t)
	for _, c := range []struct {
		golden  string
		columns int
		env     []string
		args    []string
	}{
		{"check-80", 80, nil, []string{"check"}},
		{"check-120", 120, nil, []string{"check"}},
		{"check-no-color", 80, []string{"NO_COLOR=1"}, []string{"check"}},
		{"check-dumb", 80, []string{"TERM=dumb"}, []string{"check"}},
		{"records-80", 80, nil, []string{"records"}},
		{"records-120", 120, nil, []string{"records"}},
		{"records-no-color", 80, []string{"NO_COLOR=1"}, []string{"records"}},
		{"records-200", 200, nil, []string{"records", "missing.example.test", "good.example.test"}},
		{"probe-80", 80, nil, []string{"probe"}},
		{"value", 80, nil, []string{"records", "policy.example.test", "*.policy.example.test", "--value"}},
	} {
		cmd, s := e.onTerminal(c.columns, c.env, append(c.args, "--config", e.config)...)
		_ = cmd.Wait()
		e.golden(c.golden, s.text())
	}
	// somebody may search what goes elsewhere: a line is a line
	for _, command := range []string{"check", "records"} {
		r := e.with(command)
		e.golden(command+"-no-terminal", r.out)
		if strings.ContainsAny(r.out+r.err, "\r\x1b") {
			t.Errorf("%s without a terminal: %q and %q", command, r.out, r.err)
		}
	}
}

// --wait shows at each change what a name has come to and what to do, and nothing of the line of
// progress is left between the messages.
func TestWaitOnTerminal(t *testing.T) {
	for _, columns := range []int{80, 120} {
		e := newTerminalEnv(t)
		_, s := e.onTerminal(columns, nil, "check", "missing.example.test", "quotes.example.test", "--wait", "--timeout", "1m", "--config", e.config)
		s.waitFor("2 names", "1 missing, 1 wrong; waited")
		e.PublishOn(1, "missing.example.test", e.value)
		s.waitFor("the record on one server", "missing on ns2.lab.test")
		e.Publish("quotes.example.test", strings.Replace(e.value, ";", ",", 1))
		s.waitFor("commas", "commas are where semicolons belong")
		e.Publish("missing.example.test", e.value)
		e.Publish("quotes.example.test", e.value)
		s.waitFor("the end", "servers ns1.lab.test, ns2.lab.test, ns3.lab.test: yes")
		if err := s.cmd.Wait(); err != nil {
			t.Error(err)
		}
		e.golden(fmt.Sprintf("wait-%d", columns), s.text())
	}
}

// Of many names there are counts, and only changes; who interrupts is told how far it was.
func TestWaitForMany(t *testing.T) {
	e := newTerminalEnv(t)
	var names []string
	for i := range 25 {
		names = append(names, fmt.Sprintf("n%02d.example.test", i))
	}
	e.configure(e.Global() + e.Site(strings.Join(names, ", "), e.Block()))
	_, s := e.onTerminal(80, nil, "check", "--wait", "--config", e.config)
	s.waitFor("the counts", "25 missing; waited")
	e.Publish(names[0], e.value)
	s.waitFor("a change", "1 good, 24 missing; waited")
	for _, name := range names[1:24] {
		e.Publish(name, e.value)
	}
	s.waitFor("all changes", "24 good, 1 missing; waited")
	if _, err := s.tty.Write([]byte("\x03")); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Wait(); err == nil {
		t.Error("it has ended well")
	}
	// both changes may come in more looks than one
	e.golden("wait-many", regexp.MustCompile(`(?m)^(_validation-persist\.n.*|\d+ names have changed.*)\n`).ReplaceAllString(s.text(), ""))

	// nothing of it goes elsewhere
	cmd := e.prepare("check", "--wait", "--timeout", "1s", "--config", e.config)
	out, _ := cmd.CombinedOutput()
	if bytes.ContainsAny(out, "\r\x1b") || !bytes.Contains(out, []byte("25 names: 24 good, 1 missing\n")) {
		t.Errorf("without a terminal: %q", out)
	}
}

// Where names are is shown as what check finds is; in place of times there are dots.
func TestStatusAsShown(t *testing.T) {
	e := newTerminalEnv(t)
	e.Load(e.Global() + e.Site("good.example.test, missing.example.test, quotes.example.test", e.Block()))
	e.Eventually(2*harness.Soon, "one name to be served and two to wait", func() error {
		_, reply := e.call(http.MethodGet, "/dns_persist/names", "")
		for _, want := range []string{`"phase":"served"`, `"reason":"record_absent"`, `"reason":"record_wrong"`} {
			if !strings.Contains(reply, want) {
				return errors.New(reply)
			}
		}
		return nil
	})
	times := regexp.MustCompile(`(\s|\()(?:\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|\d+[smhd](?:\d+m)?\b)`)
	show := func(golden string, columns int, env ...string) {
		cmd, s := e.onTerminal(columns, env, "status", "--address", e.Admin)
		_ = cmd.Wait()
		e.golden(golden, times.ReplaceAllString(s.text(), "${1}…"))
	}
	show("status-80", 80)
	show("status-120", 120)
	show("status-no-color", 80, "NO_COLOR=1")
	r := e.caddy("status", "--address", e.Admin)
	e.golden("status-no-terminal", times.ReplaceAllString(r.out, "${1}…"))
}

// What DNS says comes escaped to a terminal as well, whatever it is wrapped and painted with, and who
// waits is told of a record at another name at once.
func TestHostileTextsOnTerminal(t *testing.T) {
	e := newTerminalEnv(t)
	e.Publish("account.example.test", hostile, "\ufeff"+e.value, e.value+"; x="+hostile, "\u202epebble.letsencrypt.org; accounturi=x", strings.Repeat(hostile, 50))
	e.DNS.SetTXT(0, "_validation-persist.missing.example.test.example.test", e.value)
	for _, args := range [][]string{{"check"}, {"records"}, {"check", "--wait", "--timeout", "1s"}} {
		cmd, s := e.onTerminal(80, nil, append(args, "account.example.test", "missing.example.test", "--config", e.config)...)
		_ = cmd.Wait()
		shown := s.text() // fails the test for what is not our own
		clean(t, args[0], shown)
		if args[0] == "check" && (!strings.Contains(shown, "HOSTILE") || !strings.Contains(shown, "move the TXT record from")) {
			t.Errorf("%v shows\n%s", args, shown)
		}
	}
}

// terminalEnv is an env whose names and account are as long in each run.
type terminalEnv struct {
	*env
	value string
}

func newTerminalEnv(t *testing.T) *terminalEnv {
	e := &terminalEnv{env: newEnv(t, harness.Options{Servers: 3})}
	for account := ""; !regexp.MustCompile(`:\d{5}/my-account/[0-9a-f]{16}$`).MatchString(account); {
		if err := os.RemoveAll(e.Storage); err != nil {
			t.Fatal(err)
		}
		account = e.Bind()
		e.value = e.Value(account, false)
	}
	names := []string{"account", "good", "missing", "partial", "policy", "quotes"}
	e.configure(e.Global() + e.Site(strings.Join(names, ".example.test, ")+".example.test, *.policy.example.test", e.Block()))
	e.Publish("account.example.test", strings.Replace(e.value, "my-account/", "my-account/0", 1))
	e.Publish("good.example.test", e.value)
	e.PublishOn(1, "partial.example.test", e.value)
	e.Publish("policy.example.test", e.value)
	e.Publish("quotes.example.test", `"`+e.value+`"`)
	return e
}

// golden compares a text with the file that shows it.
func (e *terminalEnv) golden(name, text string) {
	e.T.Helper()
	account := regexp.MustCompile(`(0?)[0-9a-f]{16}\b`)
	text = account.ReplaceAllString(text, "${1}0123456789abcdef")
	text = regexp.MustCompile(`127\.0\.0\.1:\d{5}`).ReplaceAllString(text, "127.0.0.1:14000")
	text = regexp.MustCompile(`serial \d+`).ReplaceAllString(text, "serial 1")
	file := filepath.Join("testdata", "terminal", name+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil { //nolint:gosec // it is for everybody
			e.T.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		e.T.Fatal(err)
	}
	if text != string(want) {
		e.T.Errorf("%s shows\n%s\nand what is shown is\n%s", file, want, text)
	}
}

// screen is what a terminal shows. It knows what our commands use of one, and fails the test for
// anything else.
type screen struct {
	t       testing.TB
	columns int
	cmd     *exec.Cmd
	tty     *os.File
	done    chan struct{}

	mu     sync.Mutex
	lines  [][]string // cells, each with the colour that begins before it
	column int
	colour string
	rest   string // an escape sequence, or a rune, that is not complete
}

// onTerminal starts a command on a terminal of so many columns.
func (e *terminalEnv) onTerminal(columns int, env []string, args ...string) (*exec.Cmd, *screen) {
	e.T.Helper()
	cmd := e.prepare(args...)
	cmd.Env = append(append(cmd.Env, "TERM=xterm", "NO_COLOR="), env...)
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 50, Cols: uint16(columns)}) //nolint:gosec // it fits
	if err != nil {
		e.T.Skipf("no pseudo terminal can be had: %v", err)
	}
	s := &screen{t: e.T, columns: columns, cmd: cmd, tty: tty, done: make(chan struct{}), lines: [][]string{nil}}
	go func() {
		defer close(s.done)
		buf := make([]byte, 4096)
		for {
			n, err := tty.Read(buf)
			s.show(string(buf[:n]))
			if err != nil { // EIO when the command has ended
				return
			}
		}
	}()
	e.T.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = tty.Close()
		<-s.done
	})
	return cmd, s
}

var sequence = regexp.MustCompile(`^\x1b\[(\d*)([mKHJ])`)

// show does what a terminal does.
func (s *screen) show(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for text = s.rest + text; text != ""; {
		s.rest = text
		last := &s.lines[len(s.lines)-1]
		switch m := sequence.FindStringSubmatch(text); {
		case m != nil && m[2] == "K":
			if len(*last) >= s.columns { // the terminal would have gone on to a second one
				s.t.Errorf("a line of progress of %d columns: %s", len(*last), s.plain(*last))
			}
			*last = (*last)[:min(s.column, len(*last))]
			text = text[len(m[0]):]
		case m != nil && m[2] != "m": // a page is drawn anew
			s.lines, s.column, text = [][]string{nil}, 0, text[len(m[0]):]
		case m != nil:
			s.colour += "␛[" + m[1] + "m"
			if m[1] == "0" && s.column > 0 {
				(*last)[s.column-1] += s.colour
				s.colour = ""
			}
			text = text[len(m[0]):]
		case text[0] == '\x1b' && len(text) < 6 || !utf8.FullRuneInString(text):
			return // the rest is on its way
		case text[0] == '\r':
			s.column, text = 0, text[1:]
		case text[0] == '\n':
			s.lines, s.column, text = append(s.lines, nil), 0, text[1:]
		default:
			r, size := utf8.DecodeRuneInString(text)
			if r < ' ' {
				s.t.Errorf("the terminal is sent %q", r)
			}
			*last = append((*last)[:s.column], append([]string{s.colour + string(r)}, (*last)[min(s.column+1, len(*last)):]...)...)
			s.column, s.colour, text = s.column+1, "", text[size:]
		}
		s.rest = ""
	}
}

func (s *screen) plain(line []string) string { return strings.Join(line, "") }

// text is what is shown when the command has ended.
func (s *screen) text() string {
	select {
	case <-s.done:
	case <-time.After(harness.Soon):
		s.t.Error("the terminal was not left")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	for i, line := range s.lines {
		text := s.plain(line)
		if i == len(s.lines)-1 && text == "" {
			break
		}
		b.WriteString(text + "\n")
		isValue := strings.HasPrefix(text, `"`) || strings.HasPrefix(text, "pebble.letsencrypt.org;") || strings.Contains(text, " IN TXT ")
		if len(line) > s.columns && !isValue {
			s.t.Errorf("longer than %d columns: %s", s.columns, text)
		}
	}
	if strings.Contains(b.String(), "waited") {
		s.t.Errorf("the line of progress is left over:\n%s", b.String())
	}
	return b.String()
}

// waitFor waits until something is shown.
func (s *screen) waitFor(what, text string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), harness.Soon)
	defer cancel()
	for {
		s.mu.Lock()
		var shown []string
		for _, line := range s.lines {
			shown = append(shown, s.plain(line))
		}
		s.mu.Unlock()
		all := strings.Join(shown, "\n")
		if strings.Contains(all, text) {
			return
		}
		select {
		case <-ctx.Done():
			s.t.Fatalf("waiting for %s, %q, the terminal shows\n%s", what, text, all)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
