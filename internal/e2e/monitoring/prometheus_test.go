//go:build unix

package monitoring

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
	"github.com/dnspersist/caddy-dnspersist/internal/realdns"
)

// debian is the Debian package with prometheus and promtool.
const debian = "prometheus"

// prometheus is a running server, version 2.42 where Debian 12 has it from.
type prometheus struct {
	t   testing.TB
	url string
}

// startPrometheus runs a server until the test ends that scrapes an address and evaluates rules, both
// twice a second.
func startPrometheus(t testing.TB, target string, rules []byte) *prometheus {
	t.Helper()
	program := realdns.Program(t, "prometheus", debian)
	port, err := lab.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range map[string][]byte{
		"alerts.yml": rules,
		"prometheus.yml": fmt.Appendf(nil, `
global: {scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}
rule_files: [alerts.yml]
scrape_configs: [{job_name: caddy, static_configs: [{targets: [%q]}]}]
`, target),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := &prometheus{t: t, url: fmt.Sprintf("http://127.0.0.1:%d", port)}
	var out bytes.Buffer // read after Wait
	cmd := exec.CommandContext(t.Context(), program, "--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=warn",
		fmt.Sprintf("--web.listen-address=127.0.0.1:%d", port))
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &out
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { defer close(exited); _ = cmd.Wait() }()
	t.Cleanup(func() { <-exited }) // the context of the test has ended
	err = harness.Eventually(harness.Soon, func() error {
		select {
		case <-exited:
			return fmt.Errorf("it has ended:\n%s", &out)
		default:
		}
		resp, err := http.Get(p.url + "/-/ready") //nolint:noctx // a test
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("Prometheus does not answer: %v", err)
	}
	return p
}

// series is one in the answer to a query.
type series struct {
	Metric map[string]string
	// Value is that of an instant, Values are those of a range.
	Value  point
	Values []point
}

// point is a value at a time.
type point struct {
	At    time.Time
	Value float64
}

func (p *point) UnmarshalJSON(data []byte) error {
	var at float64
	var value string
	if err := json.Unmarshal(data, &[]any{&at, &value}); err != nil {
		return err
	}
	p.At = time.UnixMilli(int64(at * 1000))
	var err error
	p.Value, err = strconv.ParseFloat(value, 64)
	return err
}

// query evaluates an expression now.
func (p *prometheus) query(expr string) ([]series, error) {
	resp, err := http.PostForm(p.url+"/api/v1/query", url.Values{"query": {expr}}) //nolint:noctx // a test
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var reply struct {
		Status, Error string
		Data          struct{ Result []series }
	}
	if err := json.NewDecoder(resp.Body).Decode(&reply); err != nil {
		return nil, fmt.Errorf("%s: %s: %w", expr, resp.Status, err)
	}
	if reply.Status != "success" {
		return nil, fmt.Errorf("%s: %s", expr, reply.Error)
	}
	return reply.Data.Result, nil
}
