//go:build unix

package commands

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
)

// A command that somebody interrupts says so.
func TestInterrupted(t *testing.T) {
	e := newEnv(t, harness.Options{})
	e.configure(e.Global() + e.Site("www.example.test", e.Block()))
	e.Bind()
	cmd := e.prepare("check", "--wait", "--config", e.config)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &said, &said, 10*time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	e.Eventually(harness.Soon, "the command to look at DNS", func() error {
		for _, q := range e.DNS.Queries() {
			if strings.HasPrefix(q.Name, "_validation-persist.www.") {
				return nil
			}
		}
		return fmt.Errorf("it has not")
	})
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("it has ended well")
	}
	if !strings.Contains(said.String(), "interrupted") || strings.Contains(said.String(), "context canceled") {
		t.Errorf("it said %s", said.String())
	}
}

// A storage that is none is an error of one line that names it, for root as well.
func TestStorageIsAFile(t *testing.T) {
	e := newEnv(t, harness.Options{})
	if err := os.WriteFile(e.Storage, []byte("no folder"), 0o600); err != nil {
		t.Fatal(err)
	}
	e.configure(e.Global() + e.Site("www.example.test", e.Block()))
	for _, command := range []string{"records", "check", "account", "publish"} {
		r := e.ends(1, command)
		if !strings.Contains(r.err, e.Storage) {
			t.Errorf("%s says %s", command, r.err)
		}
		if said := strings.TrimSuffix(r.err, "\n"); !strings.HasPrefix(said, "error: ") || strings.Contains(said, "\n") || r.out != "" {
			t.Errorf("%s says more than one error: %q and %q", command, r.out, r.err)
		}
	}
	if data, err := os.ReadFile(e.Storage); err != nil || string(data) != "no folder" {
		t.Errorf("the file was changed: %q, %v", data, err)
	}
}

// What cannot be written is an error, and not taken for what is wrong with the names.
func TestFullDevice(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("this system has no /dev/full: %v", err)
	}
	defer full.Close()
	e := newEnv(t, harness.Options{})
	e.configure(e.Global() + e.Site("www.example.test", e.Block()))
	e.Bind()
	for _, command := range []string{"check", "records", "account", "probe"} {
		cmd := e.prepare(command, "--config", e.config)
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = full, &said
		if err := cmd.Run(); err == nil || cmd.ProcessState.ExitCode() != 1 || !strings.Contains(said.String(), "no space left") {
			t.Errorf("%s ends with %v: %s", command, err, said.String())
		}
	}
}

// Records from the command line alone are for no CA that could be named.
func TestMadeComment(t *testing.T) {
	e := newEnv(t, harness.Options{})
	r := e.ok("records", "www.example.test", "--format", "zone", "--dns", "never", "--account-url", "https://ca.example/1", "--issuer", "ca.example")
	if !strings.Contains(r.out, "for www.example.test\n") || strings.Contains(r.out, " at ") {
		t.Errorf("%s", r.out)
	}
}
