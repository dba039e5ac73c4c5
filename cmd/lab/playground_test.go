package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// session is a playground with somebody who types.
type session struct {
	t     *testing.T
	typed *io.PipeWriter
	ended chan error

	mu    sync.Mutex
	shown bytes.Buffer
}

// Write implements io.Writer.
func (s *session) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shown.Write(p)
}

func (s *session) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shown.String()
}

// find waits for what the lab shows.
func (s *session) find(pattern string) string {
	s.t.Helper()
	return s.eventually(pattern, func() (string, bool) {
		m := regexp.MustCompile(pattern).FindStringSubmatch(s.text())
		if m == nil {
			return s.text(), false
		}
		return m[len(m)-1], true
	})
}

// eventually waits until fn has what it looks for.
func (s *session) eventually(what string, fn func() (string, bool)) string {
	s.t.Helper()
	deadline, tick := time.After(30*time.Second), time.NewTicker(50*time.Millisecond)
	defer tick.Stop()
	for {
		found, ok := fn()
		if ok {
			return found
		}
		select {
		case err := <-s.ended:
			s.t.Fatalf("waiting for %s the lab has ended: %v\n%s", what, err, found)
		case <-deadline:
			s.t.Fatalf("waited in vain for %s:\n%s", what, found)
		case <-tick.C:
		}
	}
}

func (s *session) typeIn(line string) {
	s.t.Helper()
	if _, err := fmt.Fprintln(s.typed, line); err != nil {
		s.t.Fatal(err)
	}
}

// ctl gives a command as `cmd/lab ctl` does.
func (s *session) ctl(line string) string {
	s.t.Helper()
	var out strings.Builder
	err := order(s.t.Context(), line, &out)
	if _, isStatus := errors.AsType[statusError](err); err != nil && !isStatus {
		s.t.Fatalf("ctl %s: %v", line, err)
	}
	return out.String()
}

func play(t *testing.T) *session {
	in, typed := io.Pipe()
	s := &session{t: t, typed: typed, ended: make(chan error, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { s.ended <- run(ctx, options{play: true, dialect: lab.Dialect{Draft: "01"}}, in, s) }()
	t.Cleanup(func() {
		typed.Close()
		cancel()
	})
	t.Setenv(socketVariable, s.find(`(/\S+/`+regexp.QuoteMeta(socket)+`)\. Type quit`))
	s.find(`(?s)asks for.*www\.example\.test\n +pebble`)
	return s
}

// check asks the admin endpoint what the CA would make of records.
func (s *session) check(names ...string) string {
	s.t.Helper()
	body, err := json.Marshal(map[string]any{"names": names, "thorough": true})
	if err != nil {
		s.t.Fatal(err)
	}
	address := s.find(`check --address (\S+)`)
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, "http://"+address+"/dns_persist/check", bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Origin", "http://"+address)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		s.t.Fatalf("%v: %s", err, answer)
	}
	return string(answer)
}

// Somebody publishes by typing and by ctl, and certificates follow; breaks what there is, and the
// admin endpoint calls it what the lab has announced; mends it, and it is good again.
func TestSession(t *testing.T) {
	if filepath.Separator != '/' {
		t.Skip("paths are searched for as they are on Unix")
	}
	s := play(t)
	s.typeIn("publish www")
	if told := s.ctl("publish shop"); told != "The owner of shop.example.test publishes the record.\n" {
		t.Errorf("ctl answers %q", told)
	}
	s.find(`The owner of www\.example\.test publishes the record`)
	s.find(`\(ctl\) The owner of shop\.example\.test publishes the record`)
	s.find(`The CA issues a certificate for www\.example\.test`)
	s.find(`The CA issues a certificate for \*\.shop\.example\.test`)

	names := []string{"shop.example.test", "*.shop.example.test"}
	for _, w := range wrongRecords {
		if told := s.ctl("break shop " + w.how); !strings.Contains(told, w.about) {
			t.Errorf("break shop %s: %s", w.how, told)
		}
		if got := s.check(names...); !strings.Contains(got, `"`+w.code+`"`) {
			t.Errorf("break shop %s: check does not call it %s:\n%s", w.how, w.code, got)
		}
	}
	if err := order(t.Context(), "check www shop", io.Discard); !errors.Is(err, statusError(2)) {
		t.Errorf("ctl check of a broken record ends with %v, want the exit status 2", err)
	}
	s.ctl("mend")
	for _, b := range brokenServers {
		if b.how == "lag" { // takes as long as drop, and comes to the same
			continue
		}
		s.ctl("break ns2 " + b.how)
		if b.how == "stale" {
			s.ctl("break shop absent")
			s.ctl("break ns2 stale")
			s.ctl("publish shop")
		}
		if got := s.check(names...); !strings.Contains(got, `"`+b.code+`"`) {
			t.Errorf("break ns2 %s: check does not call it %s:\n%s", b.how, b.code, got)
		}
		s.ctl("mend ns2")
	}
	s.eventually("all to be right again", func() (string, bool) {
		answer := s.ctl("check www shop")
		return answer, strings.Count(answer, ": good (") == 2
	})
	s.typeIn("quit")
	if err := <-s.ended; err != nil {
		t.Error(err)
	}
	for line := range strings.Lines(s.text()) {
		if strings.ContainsAny(strings.TrimLeft(line, " "), " ") && len([]rune(line)) > columns+1 && !strings.Contains(line, "accounturi") {
			t.Errorf("a line is too long: %s", line)
		}
	}
}

// What is typed wrong says how it reads, and a tab completes what can only follow.
func TestTypedWrongAndCompleted(t *testing.T) {
	dns, err := lab.NewDNS(2)
	if err != nil {
		t.Fatal(err)
	}
	defer dns.Close()
	dns.AddZone(zone)
	d := &demo{dns: dns, records: newRecords(dns), wanted: map[string]string{validationName(plain): "ca.example; accounturi=1"}}
	for line, want := range map[string]string{
		"frob":              "there is no command frob: help lists them",
		"break www":         "it reads: break NAME|SERVER HOW",
		"break www often":   `a record cannot break by "often"`,
		"break ns1 often":   `a name server cannot break by "often"`,
		"break ns3 drop":    "ns3 is not a name server",
		"break www policy":  "the record of www.example.test has no policy",
		"publish nobody":    "there is no record of nobody: Caddy has asked for those of www.example.test",
		"ca away":           "it reads ca down|forget|limited|slow|up",
		"add www":           "www.example.test is a site already",
		"check www --watch": "go run ./cmd/caddy dns-persist check www --watch --address",
	} {
		if _, err := d.command(t.Context(), line); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
	for line, want := range map[string]string{
		"pub": "publish ", "publish w": "publish www.example.test ", "break n": "break ns", "break ns2 s": "break ns2 s", "break ns2 st": "break ns2 stale ",
		"break www.example.test q": "break www.example.test quotes ", "ca l": "ca limited ", "check w": "check www.example.test ", "x": "x",
	} {
		if got := d.completed(line); got != want {
			t.Errorf("%q is completed to %q, want %q", line, got, want)
		}
	}
}

// Lines are broken at 80 columns, but not within quotes, and not what somebody copies.
func TestFolded(t *testing.T) {
	value := strings.Repeat("v", 90)
	got := folded("  1.0s  ", "        ", "this line is a good deal longer than what fits into eighty columns \"of a terminal\"\n    "+value)
	want := "  1.0s  this line is a good deal longer than what fits into eighty columns\n        \"of a terminal\"\n    " + value + "\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
