//go:build unix

package commands

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// With -update the output that pages show is written anew.
var update = flag.Bool("update", false, "write what commands print into the pages that show it")

// Every example of docs/guides is run, in its order: a caddyfile block becomes the Caddyfile,
// sh blocks are run by a shell, a text or json block after one is its output, and what a block takes for
// granted is in a comment before it. In the output "…" is what differs from run to run. Scripts
// that note their arguments take the place of tools that are not ours (terraform, octodns-sync,
// nsupdate); curl is the real one.
func TestGuides(t *testing.T) {
	pages, err := filepath.Glob("../../../docs/guides/*.md")
	if err != nil || len(pages) < 7 {
		t.Fatal(pages, err)
	}
	for _, page := range pages {
		t.Run(strings.TrimSuffix(filepath.Base(page), ".md"), func(t *testing.T) {
			data, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(data), "curl ") {
				if _, err := exec.LookPath("curl"); err != nil {
					t.Skip("curl is missing: install the Debian package curl")
				}
			}
			g := newGuide(t)
			g.page = page
			g.follow(string(data))
		})
	}
}

// The log entry that the README shows after its first Caddyfile is the one that Caddy writes,
// on a terminal and on one line.
func TestLogEntryOfREADME(t *testing.T) {
	page := "../../../README.md"
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	// the first Caddyfile, and what follows it
	shown := regexp.MustCompile("(?s)```caddyfile\n(.*?)```.*?<!-- log -->\\s*```text\n(.*?)```").FindStringSubmatch(string(data))
	if shown == nil {
		t.Fatal("no Caddyfile with a log entry after it")
	}
	g := newGuide(t)
	g.console = true
	g.write("Caddyfile", "caddyfile", strings.TrimSuffix(shown[1], "\n"))
	log := g.start()
	err = harness.Eventually(harness.Soon, func() error {
		var warnings strings.Builder
		for line := range strings.Lines(log.String()) {
			line = strings.NewReplacer("https://ca.example/directory", staging+"/directory", "https://ca.example/acct/1", staging+"/acme/acct/123456",
				"ca.example", "letsencrypt.org").Replace(g.likePage(line))
			line = regexp.MustCompile(`"waiting": [23]\b`).ReplaceAllString(line, `"waiting": 2`) // seconds, rounded
			if looksLike(onOneLine(shown[2]), onOneLine(line)) {
				return nil
			}
			if strings.Contains(line, "WARN") {
				warnings.WriteString(line)
			}
		}
		return fmt.Errorf("the README shows\n%s\nand the warnings in the log are\n%s", shown[2], &warnings)
	})
	if err != nil {
		t.Error(err)
	}
}

// staging is the CA of the README.
const staging = "https://acme-staging-v02.api.letsencrypt.org"

func onOneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// guide is somebody who follows a page.
type guide struct {
	*env
	dir, bin string
	values   map[string][]string // that are published, by validation name
	given    []string
	page     string // the file
	console  bool   // whether Caddy logs as it does on a terminal
	accounts []string
	receiver *httptest.Server // of events; nil until a page names it
}

func newGuide(t *testing.T) *guide {
	t.Helper()
	g := &guide{env: newEnv(t, harness.Options{}), dir: t.TempDir(), bin: t.TempDir(), values: make(map[string][]string)}
	for _, zone := range []string{"example.com", "tenant.example", "other-tenant.example", "platform.example"} {
		g.DNS.AddZone(zone)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	g.script("caddy", fmt.Sprintf("%s=%q exec %q \"$@\"", childEnv, g.servers, self))
	for _, other := range []string{"terraform", "octodns-sync", "nsupdate"} {
		g.script(other, fmt.Sprintf("echo %s \"$@\" >>%q", other, filepath.Join(g.dir, "tools.log")))
	}
	return g
}

func (g *guide) script(name, body string) {
	g.T.Helper()
	if err := os.WriteFile(filepath.Join(g.bin, name), []byte("#!/bin/sh\n"+body+"\n"), 0o700); err != nil { //nolint:gosec // it is to be run
		g.T.Fatal(err)
	}
}

var (
	block = regexp.MustCompile("(?s)<!-- given: (.*?) -->|```([a-z]+)\n(.*?)\n```")
	site  = regexp.MustCompile(`(?m)^\{$`)
)

// follow does what the page says.
func (g *guide) follow(page string) {
	g.T.Helper()
	ran, out, updated := 0, "", page
	for _, m := range block.FindAllStringSubmatch(page, -1) {
		switch {
		case m[1] != "":
			g.take(m[1])
			continue
		case g.file() != "":
			g.write(g.file(), m[2], m[3])
		case m[2] == "caddyfile":
			g.write("Caddyfile", m[2], m[3])
		case m[2] == "sh":
			ran++
			out = g.run(m[3])
		case (m[2] == "text" || m[2] == "json") && ran > 0:
			if m[2] == "json" {
				out = indented(g.T, out)
			}
			if looksLike(m[3], out) {
				break
			}
			if !*update {
				g.T.Errorf("the page shows\n%s\nand what is printed is\n%s", m[3], out)
			}
			updated = strings.Replace(updated, m[0], "```"+m[2]+"\n"+out+"\n```", 1)
		default:
			g.T.Errorf("a block of %s without a use:\n%s", m[2], m[3])
		}
		g.given = nil
	}
	if ran == 0 {
		g.T.Error("the page has no example")
	}
	if *update && updated != page {
		if err := os.WriteFile(g.page, []byte(updated), 0o644); err != nil { //nolint:gosec // it is documentation
			g.T.Fatal(err)
		}
	}
}

// looksLike reports whether what was printed is what a page shows. "…" on the page is whatever is
// there, on a line of its own any number of lines; so is what differs from run to run. The width
// of columns does not matter, for the lab's names have other lengths.
func looksLike(shown, printed string) bool {
	columns := regexp.MustCompile(`(\S) {2,}`)
	shown, printed = columns.ReplaceAllString(shown, "$1 "), columns.ReplaceAllString(printed, "$1 ")
	var pattern strings.Builder
	pattern.WriteString("^")
	for line := range strings.Lines(differing.ReplaceAllString(shown, "…") + "\n") {
		if line == "…\n" {
			pattern.WriteString(`(?:.*\n)*`)
			continue
		}
		pattern.WriteString(strings.ReplaceAll(regexp.QuoteMeta(line), "…", ".*?"))
	}
	return regexp.MustCompile(pattern.String() + "$").MatchString(printed + "\n")
}

// indented is how a page shows JSON.
func indented(t testing.TB, text string) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.Indent(&b, []byte(text), "", "  "); err != nil {
		t.Errorf("%v: %s", err, text)
	}
	return b.String()
}

// differing is what is another one in each run: hashes and thumbprints, times, durations.
var differing = regexp.MustCompile(`\b[A-Za-z0-9_-]{43}\b|\b20\d\d[-/]\d\d[-/]\d\d[T ]?[0-9:.]*Z?\b|\b\d+(?:\.\d+)?(?:ms|µs|s)\b`)

// likePage is local the other way round: it puts the names of the pages in the place of the lab's.
func (g *guide) likePage(text string) string {
	base := strings.TrimSuffix(g.CA.Directory(), "/dir")
	for _, m := range regexp.MustCompile(regexp.QuoteMeta(base)+`/my-account/[0-9a-f]+`).FindAllString(text, -1) {
		if !slices.Contains(g.accounts, m) {
			g.accounts = append(g.accounts, m)
		}
	}
	for i, a := range g.accounts {
		text = strings.ReplaceAll(text, a, fmt.Sprintf("https://ca.example/acct/%d", i+1))
	}
	text = strings.NewReplacer(g.CA.Directory(), "https://ca.example/directory", base, "https://ca.example",
		strings.NewReplacer("https://", "", ":", "-").Replace(base)+"-dir", "ca.example-directory", harness.IssuerName, "ca.example", g.Admin, "localhost:2019", g.DNS.Resolver(), "192.0.2.53:53",
		filepath.Join(g.dir, "spare-storage"), "/tmp/spare-storage", g.dir, "/home/you", ".lab.test", ".dns.example").Replace(text)
	text = regexp.MustCompile(`\x1b\[[0-9;]*m`).ReplaceAllString(text, "") // colours
	text = regexp.MustCompile(`\bserial \d+`).ReplaceAllString(text, "serial 1")
	return strings.TrimRight(differing.ReplaceAllString(text, "…"), "\n")
}

// take makes what a page takes for granted true.
func (g *guide) take(what string) {
	g.T.Helper()
	switch what {
	case "the records are published":
		g.given = append(g.given, what)
	case "Caddy runs":
		g.start()
	case "hooks.example writes events.log": // from when on a page names it
	case "an empty storage":
		if err := os.RemoveAll(filepath.Join(g.dir, ".local")); err != nil {
			g.T.Fatal(err)
		}
	case "the CA speaks draft -02":
		d, err := lab.ParseDialect("02")
		if err != nil {
			g.T.Fatal(err)
		}
		g.CA.SetDialect(d)
	default:
		if !strings.HasPrefix(what, "file ") && !strings.HasPrefix(what, "status ") {
			g.T.Fatalf("nobody knows how to give %q", what)
		}
		g.given = append(g.given, what)
	}
}

// file is where the next block goes.
func (g *guide) file() string {
	for _, what := range g.given {
		if name, ok := strings.CutPrefix(what, "file "); ok {
			return name
		}
	}
	return ""
}

// local puts the lab in the place of a page's CA and ports, and what was shown before in that of its accounts.
func (g *guide) local(text string) string {
	for i, account := range g.accounts {
		text = strings.ReplaceAll(text, fmt.Sprintf("https://ca.example/acct/%d", i+1), account)
	}
	return strings.NewReplacer("https://ca.example/directory", g.CA.Directory(), "localhost:2019", g.Admin,
		staging+"/directory", g.CA.Directory(), "https://hooks.example/events", g.hooks(),
		"/tmp/spare-storage", filepath.Join(g.dir, "spare-storage")).Replace(text)
}

// hooks is the URL of a receiver that writes each event as a line of events.log.
func (g *guide) hooks() string {
	if g.receiver == nil {
		file := filepath.Join(g.dir, "events.log")
		g.receiver = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			log, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
			if err != nil {
				g.T.Error(err)
				return
			}
			defer log.Close()
			if _, err := log.Write(append(body, '\n')); err != nil {
				g.T.Error(err)
			}
		}))
		g.T.Cleanup(g.receiver.Close)
	}
	return g.receiver.URL
}

// write writes a file. A Caddyfile gets the options that the lab needs.
func (g *guide) write(name, kind, text string) {
	g.T.Helper()
	text = g.local(text) + "\n"
	if kind == "caddyfile" {
		options := fmt.Sprintf("{\n\tadmin %s\n\tacme_ca_root %s\n\ttls_resolvers %s\n\thttp_port %d\n\thttps_port %d\n\tdefault_bind 127.0.0.1\n",
			g.Admin, g.CA.RootsFile(), g.DNS.Resolver(), g.HTTPPort, g.HTTPSPort)
		if g.console {
			options += "\tlog {\n\t\tformat console\n\t}\n"
		}
		if site.FindStringIndex(text) != nil && strings.HasPrefix(text, "{\n") {
			text = options + strings.TrimPrefix(text, "{\n")
		} else {
			text = options + "}\n" + text
		}
	}
	if kind == "json" && !json.Valid([]byte(text)) {
		g.T.Errorf("%s is not JSON:\n%s", name, text)
	}
	if err := os.WriteFile(filepath.Join(g.dir, name), []byte(text), 0o600); err != nil {
		g.T.Fatal(err)
	}
}

// command is one that runs in the reader's directory.
func (g *guide) command(name string, args ...string) *exec.Cmd {
	return g.commandIn(g.T.Context(), name, args...)
}

func (g *guide) commandIn(ctx context.Context, name string, args ...string) *exec.Cmd {
	if name == "caddy" {
		name = filepath.Join(g.bin, name)
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = 10 * time.Second
	cmd.Dir = g.dir
	cmd.Env = append(os.Environ(), "PATH="+g.bin+":"+os.Getenv("PATH"), "HOME="+g.dir, "XDG_DATA_HOME=", "XDG_CONFIG_HOME=", "DNS_KEY=c2VjcmV0")
	return cmd
}

// run runs a block and returns what it prints, as a page shows it. Where the records are to be
// published, they are at its end, or at its beginning if there is an account to ask for them.
func (g *guide) run(script string) string {
	g.T.Helper()
	published := slices.Contains(g.given, "the records are published")
	if published {
		g.publish()
	}
	ctx, cancel := context.WithTimeout(g.T.Context(), 2*harness.Soon)
	defer cancel()
	cmd := g.commandIn(ctx, "sh", "-euc", g.local(script))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	status := fmt.Sprint(cmd.ProcessState.ExitCode())
	want := []string{"0"}
	for _, what := range g.given {
		if s, ok := strings.CutPrefix(what, "status "); ok {
			want = strings.Split(s, " or ")
		}
	}
	if !slices.Contains(want, status) {
		g.T.Fatalf("%v, want status %v\n$ %s\n%s", err, want, script, out.String())
	}
	if strings.Contains(out.String(), "PRIVATE KEY") {
		g.T.Errorf("a key is shown by\n%s", script)
	}
	if published {
		g.publish()
	}
	return g.likePage(out.String())
}

// publish adds what `records` asks for, if there is an account.
func (g *guide) publish() {
	g.T.Helper()
	out, err := g.command("caddy", "dns-persist", "records", "--format", "json", "--dns", "never").Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && strings.Contains(string(exit.Stderr), "no ACME account is bound yet") {
		return
	}
	if err != nil {
		g.T.Fatal(err)
	}
	for _, set := range decode[dnspersist.RecordsReply](g.T.(*testing.T), string(out)).Records {
		if set.Type == "CNAME" {
			g.DNS.ClearName(0, set.Name)
			g.DNS.SetRR(0, fmt.Sprintf("%s. 60 IN CNAME %s.", set.Name, set.Target))
			continue
		}
		for _, w := range set.Wanted {
			if !slices.Contains(g.values[set.Name], w.Value) {
				g.values[set.Name] = append(g.values[set.Name], w.Value)
				g.DNS.SetTXT(0, set.Name, g.values[set.Name]...)
			}
		}
	}
}

// start runs Caddy with the page's Caddyfile until the test ends, and returns its log.
func (g *guide) start() fmt.Stringer {
	g.T.Helper()
	cmd := g.command("caddy", "run")
	out := new(logged)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	if err := cmd.Start(); err != nil {
		g.T.Fatal(err)
	}
	g.T.Cleanup(func() { _ = cmd.Wait() })
	err := harness.Eventually(harness.Soon, func() error {
		resp, err := http.Get("http://" + g.Admin + "/dns_persist/records") //nolint:noctx // a test
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", resp.Status, body)
		}
		if bytes.Contains(body, []byte(`"presumed":true`)) {
			return errors.New("the CA has not shown yet which issuer domain name it wants")
		}
		return nil
	})
	if err != nil {
		g.T.Fatalf("Caddy does not run: %v", err)
	}
	return out
}

// logged is what a process that runs has written.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
