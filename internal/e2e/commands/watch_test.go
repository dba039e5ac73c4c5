//go:build unix

package commands

import (
	"bufio"
	"errors"
	"net/http"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
)

// Status fits the terminal, and --watch draws anew there and reports each change elsewhere, until it is interrupted.
func TestStatusOnTerminal(t *testing.T) {
	e := newTerminalEnv(t)
	config, err := os.ReadFile(e.config)
	if err != nil {
		t.Fatal(err)
	}
	e.Load(string(config))
	e.Eventually(harness.Soon, "the names to be where they stay", func() error {
		_, reply := e.call(http.MethodGet, "/dns_persist/names", "")
		counts := decode[dnspersist.NamesReply](t, reply).Counts.Phases
		return errors.Join(harness.Want(counts["waiting"], 5), harness.Want(counts["served"], 2))
	})

	stop, elsewhere := e.lines("status", "--watch", "--address", e.Admin)
	elsewhere("^quotes.example.test: waiting for ")
	_, s := e.onTerminal(80, nil, "status", "--watch", "--address", e.Admin)
	s.waitFor("the names", "7 names: 5 waiting, 2 served")
	s.waitFor("the end of a page", "interrupt to end")
	e.Publish("quotes.example.test", e.value)
	s.waitFor("a change", "7 names: 4 waiting, 3 served")
	elsewhere(`^\d\d:\d\d:\d\d quotes\.example\.test: (served|looking|ordering)`)
	if status := stop(); status != 2 {
		t.Errorf("without a terminal it ends with status %d", status)
	}
	if _, err := s.tty.Write([]byte("\x03")); err != nil {
		t.Fatal(err)
	}
	_ = s.cmd.Wait()
	if text := s.text(); strings.Contains(text, "quotes.example.test") || s.cmd.ProcessState.ExitCode() != 2 {
		t.Errorf("status %d, and shown at last is\n%s", s.cmd.ProcessState.ExitCode(), text)
	}

	cmd, s := e.onTerminal(80, nil, "status", "missing.example.test", "--address", e.Admin)
	_ = cmd.Wait()
	text := s.text()
	for _, line := range []string{
		"␛[33mwaiting␛[0m for ", ", record_absent, no certificate", "    ca      https://127.0.0.1:", "    record  TXT _validation-persist.missing.example.test", "\n" + e.value + "\n", "    host    _validation-persist.missing",
		"    next    DNS is watched",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("it lacks %q:\n%s", line, text)
		}
	}
}

// lines starts a command without a terminal. It returns what interrupts it, with its exit status, and what waits for a
// line that matches.
func (e *env) lines(args ...string) (stop func() int, wait func(pattern string)) {
	e.T.Helper()
	cmd := e.prepare(args...)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		e.T.Fatal(err)
	}
	lines := make(chan string, 100)
	go func() {
		defer close(lines)
		for in := bufio.NewScanner(out); in.Scan(); {
			lines <- in.Text()
		}
	}()
	stop = func() int {
		_ = cmd.Process.Signal(syscall.SIGINT)
		_ = cmd.Wait()
		return cmd.ProcessState.ExitCode()
	}
	return stop, func(pattern string) {
		e.T.Helper()
		var all []string
		for limit := time.After(harness.Soon); ; {
			select {
			case line, ok := <-lines:
				if all = append(all, line); ok && regexp.MustCompile(pattern).MatchString(line) {
					return
				}
				if ok {
					continue
				}
			case <-limit:
			}
			e.T.Fatalf("no line is like %s:\n%s", pattern, strings.Join(all, "\n"))
		}
	}
}
