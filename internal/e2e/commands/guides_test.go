//go:build unix

package commands

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// Every example of docs/guides is run, in its order: a caddyfile block becomes the Caddyfile,
// sh blocks are run by a shell, and what a block takes for granted stands in a comment before
// it. Tools that are not ours (terraform, octodns-sync, nsupdate) are stood in for by scripts
// that take note of their arguments; curl is the real one.
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
			newGuide(t).follow(string(data))
		})
	}
}

// guide is somebody who follows a page.
type guide struct {
	*env
	dir, bin string
	values   map[string][]string // that stand, by validation name
	given    []string
}

func newGuide(t *testing.T) *guide {
	t.Helper()
	g := &guide{env: newEnv(t, harness.Options{}), dir: t.TempDir(), bin: t.TempDir(), values: make(map[string][]string)}
	g.DNS.AddZone("example.com")
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
	ran := 0
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
			g.run(m[3])
		default:
			g.T.Errorf("a block of %s without a use:\n%s", m[2], m[3])
		}
		g.given = nil
	}
	if ran == 0 {
		g.T.Error("the page has no example")
	}
}

// take makes what a page takes for granted true.
func (g *guide) take(what string) {
	g.T.Helper()
	switch what {
	case "the records stand":
		g.given = append(g.given, what)
	case "Caddy runs":
		g.start()
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

// local puts the lab in the place of a page's CA and ports.
func (g *guide) local(text string) string {
	return strings.NewReplacer("https://ca.example/directory", g.CA.Directory(), "localhost:2019", g.Admin,
		"/tmp/spare-storage", filepath.Join(g.dir, "spare-storage")).Replace(text)
}

// write writes a file. A Caddyfile gets the options that the lab needs.
func (g *guide) write(name, kind, text string) {
	g.T.Helper()
	text = g.local(text) + "\n"
	if kind == "caddyfile" {
		options := fmt.Sprintf("{\n\tadmin %s\n\tacme_ca_root %s\n\ttls_resolvers %s\n\thttp_port %d\n\thttps_port %d\n\tdefault_bind 127.0.0.1\n",
			g.Admin, g.CA.RootsFile(), g.DNS.Resolver(), g.HTTPPort, g.HTTPSPort)
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

// run runs a block. Where the records are to stand, they are published at its end, or at its
// beginning if there is an account to ask for them.
func (g *guide) run(script string) {
	g.T.Helper()
	stand := slices.Contains(g.given, "the records stand")
	if stand {
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
	if stand {
		g.publish()
	}
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

// start runs Caddy with the page's Caddyfile until the test ends.
func (g *guide) start() {
	g.T.Helper()
	cmd := g.command("caddy", "run")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
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
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s", resp.Status)
		}
		return nil
	})
	if err != nil {
		g.T.Fatalf("Caddy does not run: %v", err)
	}
}
