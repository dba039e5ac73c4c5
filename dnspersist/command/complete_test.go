package command

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// tree is the command as Caddy has it.
func tree() *cobra.Command {
	root := &cobra.Command{Use: "caddy", SilenceUsage: true}
	cmd := &cobra.Command{Use: "dns-persist <command>"}
	caddycmd.Commands()["dns-persist"].CobraFunc(cmd)
	root.AddCommand(cmd)
	return root
}

// completed is what a shell is told to offer, of which it takes what begins with what is typed, and
// the directive for it.
func completed(t *testing.T, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	root := tree()
	root.SetOut(&out)
	root.SetErr(new(bytes.Buffer))
	root.SetArgs(append([]string{"__complete", "dns-persist"}, args...))
	if err := root.Execute(); err != nil {
		t.Errorf("%q: %v", args, err)
	}
	return strings.Join(strings.Fields(out.String()), " ")
}

// answering is the address of what answers as a running Caddy does.
func answering(t *testing.T, answers map[string]string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, ok := answers[strings.TrimPrefix(r.URL.Path, "/dns_persist/")]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
		}
		_, _ = w.Write([]byte(answer))
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

const (
	noFile  = ":4"
	anyFile = ":0"
)

func TestCompletion(t *testing.T) {
	t.Chdir(t.TempDir())
	running := answering(t, map[string]string{
		"":      `{"cas":["https://ca.example/dir","https://other.example/dir"]}`,
		"names": `{"names":[{"domain":"example.com"},{"domain":"example.org"},{"domain":"*.example.org"},{"domain":"example.com"}]}`,
	})
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"records", "--format", ""}, "table json zone nsupdate route53 octodns terraform " + noFile},
		{[]string{"status", "--phase", ""}, "wanted waiting held looking publishing ordering processing failed served :6"},
		{[]string{"status", "--phase", "wanted,waiting,held,looking,publishing,ordering,f"}, "wanted,waiting,held,looking,publishing,ordering,processing " +
			"wanted,waiting,held,looking,publishing,ordering,failed wanted,waiting,held,looking,publishing,ordering,served :6"},
		{[]string{"records", "--only", ""}, "TXT CNAME " + noFile},
		{[]string{"records", "--dns", "a"}, "auto always never " + noFile},
		{[]string{"records", "--policy", ""}, "auto exact wildcard " + noFile},
		{[]string{"check", "--format", ""}, "text json " + noFile},
		{[]string{"check", "--timeout", ""}, noFile},
		{[]string{"check", "--address", ""}, noFile},
		{[]string{"check", "--adapter", "caddyf"}, noFile}, // Caddy's modules are not in this test
		{[]string{"check", "--config", ""}, anyFile},
		{[]string{"publish", "--provider", ""}, anyFile},
		{[]string{"account", "import", ""}, anyFile},
		{[]string{"account", "export", ""}, noFile},
		{[]string{"account", "export", "--output", ""}, anyFile},
		{[]string{"account", "deactivate", "--yes", ""}, noFile},
		{[]string{"check", "--address", running, ""}, "*.example.org example.com example.org " + noFile},
		{[]string{"check", "--address", running, "example.com", ""}, "*.example.org example.org " + noFile},
		{[]string{"publish", "--address", running, "example.o"}, "example.org " + noFile},
		{[]string{"check", "--address", running, "--ask", "*"}, "*.example.org " + noFile},
		{[]string{"probe", ""}, "https://acme-staging-v02.api.letsencrypt.org/directory Let's Encrypt staging " +
			"https://acme-v02.api.letsencrypt.org/directory Let's Encrypt production https://dv.acme-v02.api.pki.goog/directory Google Trust Services " + noFile},
		{[]string{"probe", "--address", running, "--order", "example.c"}, "example.com " + noFile},
		{[]string{"check", "--address", running, "--ca", ""}, "https://ca.example/dir https://other.example/dir " + noFile},
		{[]string{"account", "--address", running, "--ca", "https://o"}, "https://other.example/dir " + noFile},
		// nobody who could answer
		{[]string{"check", "--address", "127.0.0.1:1", ""}, noFile},
		{[]string{"check", "--config", "none", ""}, noFile},
		{[]string{"check", "--config", "-", ""}, noFile},
		{[]string{"check", "--address", answering(t, nil), "--ca", ""}, noFile},
		// and where there is none by intent
		{[]string{"records", "--account-url", "https://ca.example/1", "--issuer", "ca.example", ""}, noFile},
	} {
		if got := completed(t, c.args...); got != c.want {
			t.Errorf("%q offers %q, want %q", c.args, got, c.want)
		}
	}
	if flags := completed(t, "records", "--config", "Caddyfile", "--a"); strings.Contains(flags, "--address") || !strings.Contains(flags, "--adapter") {
		t.Errorf("beside --config are offered %s", flags)
	}
}

// What does not answer holds up nobody who types.
func TestCompletionIsQuick(t *testing.T) {
	done := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-done:
		}
	}))
	t.Cleanup(s.Close)
	t.Cleanup(func() { close(done) })
	began := time.Now()
	if got := completed(t, "check", "--address", strings.TrimPrefix(s.URL, "http://"), ""); got != noFile || time.Since(began) > 10*time.Second {
		t.Errorf("offers %q after %s", got, time.Since(began))
	}
}

// The examples of each command's help are calls of it that its flags allow.
func TestExamples(t *testing.T) {
	commands := 0
	var check func(path string, cmd *cobra.Command)
	check = func(path string, cmd *cobra.Command) {
		commands++
		if cmd.Example == "" {
			t.Errorf("%s has no example", path)
		}
		for line := range strings.Lines(cmd.Long) {
			if utf8.RuneCountInString(strings.ReplaceAll(line, "\t", "        ")) > 81 {
				t.Errorf("%s: a line of the help is longer than a terminal: %s", path, line)
			}
		}
		for line := range strings.Lines(cmd.UsageString()) {
			if utf8.RuneCountInString(line) > 81 && !strings.HasPrefix(line, "  $ ") { // a call is copied whole
				t.Errorf("%s: a line of the usage is longer than a terminal: %s", path, line)
			}
		}
		for line := range strings.Lines(cmd.Example) {
			call, ok := strings.CutPrefix(line, "  $ caddy ")
			call, _, _ = strings.Cut(call, " | ")
			call, _, _ = strings.Cut(call, " > ")
			call, _, _ = strings.Cut(call, " >> ")
			call, _, _ = strings.Cut(call, " < ")
			parsed, err := parsed(strings.Fields(strings.ReplaceAll(call, "'", "")))
			if !ok || err != nil || path != "caddy dns-persist" && parsed.cmd.CommandPath() != path {
				t.Errorf("%s: %q is none of its calls: %v", path, line, err)
			}
		}
		for _, sub := range cmd.Commands() {
			check(path+" "+sub.Name(), sub)
		}
	}
	for line := range strings.Lines(caddycmd.Commands()["dns-persist"].Long) {
		if utf8.RuneCountInString(line) > 81 {
			t.Errorf("a line of the help is longer than a terminal: %s", line)
		}
	}
	check("caddy dns-persist", tree().Commands()[0])
	if commands < 11 {
		t.Errorf("only %d commands", commands)
	}
}

// parsed is a call as far as it needs nobody else.
func parsed(args []string) (*run, error) {
	cmd, rest, err := tree().Find(args)
	if err == nil {
		err = cmd.ParseFlags(rest)
	}
	r := &run{cmd: cmd, args: cmd.Flags().Args(), in: strings.NewReader("example.com")}
	for _, step := range []func() error{
		func() error { return cmd.ValidateArgs(r.args) }, cmd.ValidateRequiredFlags, cmd.ValidateFlagGroups, r.checkChoices,
		func() error {
			if cmd.ValidArgsFunction == nil || cmd.Name() == "probe" {
				return nil
			}
			_, err := r.names()
			return err
		},
	} {
		if err == nil {
			err = step()
		}
	}
	return r, err
}

// Manual pages show tables as they are.
func TestManualPage(t *testing.T) {
	cmd, _, err := tree().Find([]string{"dns-persist", "records"})
	var page bytes.Buffer
	if err == nil {
		err = doc.GenMan(cmd, nil, &page)
	}
	if err != nil || !strings.Contains(page.String(), ".EX\ntable      for people\njson       all") {
		t.Errorf("%v, %s", err, page.String())
	}
}
