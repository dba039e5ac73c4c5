package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	_ "github.com/caddyserver/caddy/v2/modules/metrics"

	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
	"github.com/dnspersist/caddy-dnspersist/internal/realdns"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

// scraped is what Caddy shows at /metrics.
type scraped string

func scrape(e *harness.Env) scraped {
	e.T.Helper()
	req, err := http.NewRequestWithContext(e.T.Context(), http.MethodGet, "http://"+e.Admin+"/metrics", nil)
	if err != nil {
		e.T.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		e.T.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		e.T.Fatalf("%s %v: %s", resp.Status, err, text)
	}
	return scraped(text)
}

// of is the value of a series of ours, which is given without the CA.
func (s scraped) of(series string) (value float64, shown bool) {
	name, labels, _ := strings.Cut(strings.TrimSuffix(series, "}"), "{")
	labels = strings.Trim(`(?:ca="[^"]*",?)?`+regexp.QuoteMeta(labels), ",")
	m := regexp.MustCompile(`(?m)^caddy_dns_persist_` + name + `(?:\{` + labels + `\})? (\S+)$`).FindStringSubmatch(string(s))
	if m == nil {
		return 0, false
	}
	value, err := strconv.ParseFloat(m[1], 64)
	return value, err == nil
}

// has returns an error unless the series have the values.
func (s scraped) has(want map[string]float64) error {
	for series, value := range want {
		if got, shown := s.of(series); !shown || got != value {
			return fmt.Errorf("%s is %v (shown: %t), want %v", series, got, shown, value)
		}
	}
	return nil
}

// showsMetrics waits until the series have the values.
func showsMetrics(e *harness.Env, what string, want map[string]float64) (last scraped) {
	e.T.Helper()
	e.Eventually(harness.Soon, what, func() error {
		last = scrape(e)
		return last.has(want)
	})
	return last
}

// withAdmin is an environment whose Caddy has an admin endpoint.
func withAdmin(t *testing.T, o harness.Options) *harness.Env {
	t.Helper()
	e := harness.New(t, o)
	port, err := lab.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	e.Admin = fmt.Sprintf("127.0.0.1:%d", port)
	return e
}

// Two issuers in one configuration, and reloads: what was counted goes on, and each name is where it is.
func TestMetrics(t *testing.T) {
	e := withAdmin(t, harness.Options{Tuning: func(v *tuning.Values) { v.LookAtNames = 2 * time.Second }})
	served, waits := e.Name("served"), e.Name("waits")
	value := e.Value(e.Bind(), false)
	end := time.Now().Add(500 * 24 * time.Hour).Unix()
	e.Publish(served, fmt.Sprintf("%s; persistUntil=%d", value, end))
	config := e.Global("dns_persist {\n\t\tmetrics {\n\t\t\tper_name\n\t\t}\n\t}") +
		e.Site(served, e.Block("rate_limit 40 1h")) + e.Site(waits, e.Block("policy exact"))
	e.Load(config)
	cert := e.WaitTrusted(served, harness.Soon)
	counted := map[string]float64{
		`orders_total{result="refused"}`: 0, `validations_total{result="valid"}`: 1, `asked_early_total`: 0,
		`issuance_seconds_count`: 1, `provider_writes_total{operation="add",result="ok"}`: 0,
	}
	places := map[string]float64{
		`names{phase="served",reason="",source="configuration"}`: 1, `names{phase="waiting",reason="record_absent",source="configuration"}`: 1,
		`names{phase="waiting",reason="record_absent",source="on_demand"}`: 0,
		`account_usable`: 1, `directory_reachable`: 1,
		`certificate_not_after_timestamp_seconds{source="configuration"}`:            float64(cert.NotAfter.Unix()),
		`name_status{domain="` + waits + `",phase="waiting",reason="record_absent"}`: 1, `name_status{domain="` + served + `",phase="served",reason=""}`: 1,
		`name_certificate_not_after_timestamp_seconds{domain="` + served + `"}`: float64(cert.NotAfter.Unix()),
		`record_ends_timestamp_seconds{source="configuration"}`:                 float64(end),
	}
	first := showsMetrics(e, "the names", places)
	// whichever name comes first teaches by an order what the CA offers, and keeps it
	made, _ := first.of(`orders_total{result="made"}`)
	if counted[`orders_total{result="made"}`] = made; made != 1 && made != 2 {
		t.Errorf("%v orders were made", made)
	}
	if err := first.has(counted); err != nil {
		t.Error(err)
	}
	if left, shown := first.of("orders_left"); !shown || left < 39 || left > 40 {
		t.Errorf("%v orders are left of 40", left)
	}
	asked, _ := first.of(`dns_queries_total{result="answered"}`)
	wait, _ := first.of(`longest_wait_seconds{source="configuration"}`)
	if asked == 0 || wait == 0 {
		t.Errorf("%v questions, a wait of %v", asked, wait)
	}

	for range 3 {
		e.Load(config)
	}
	again := showsMetrics(e, "the names after reloads", places)
	if err := again.has(counted); err != nil {
		t.Errorf("after reloads: %v", err)
	}
	if n, _ := again.of(`dns_queries_total{result="answered"}`); n < asked {
		t.Errorf("after reloads %v questions are counted, and %v before", n, asked)
	}
	if n, _ := again.of(`longest_wait_seconds{source="configuration"}`); n < wait {
		t.Errorf("after reloads the longest wait is %v, and %v before", n, wait)
	}

	e.Publish(waits, strings.Replace(value, "accounturi=", "accounturi=x", 1))
	showsMetrics(e, "a wrong record", map[string]float64{`names{phase="waiting",reason="record_wrong",source="configuration"}`: 1})
	e.Publish(waits, value)
	e.WaitTrusted(waits, harness.Soon)
	showsMetrics(e, "both served", map[string]float64{
		`names{phase="served",reason="",source="configuration"}`: 2, `names{phase="waiting",reason="record_wrong",source="configuration"}`: 0,
		`orders_total{result="made"}`: 2, `validations_total{result="valid"}`: 2, `issuance_seconds_count`: 2, `longest_wait_seconds{source="configuration"}`: 0,
	})

	t.Run("promtool", func(t *testing.T) {
		check := exec.CommandContext(t.Context(), realdns.Program(t, "promtool", "prometheus"), "check", "metrics")
		check.Stdin = bytes.NewReader([]byte(scrape(e)))
		if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("promtool check metrics: %v\n%s", err, out)
		}
	})
}

// What the CA answers is counted: a limit, a refusal, an account that it has lost, and that it is down.
func TestMetricsOfTheCA(t *testing.T) {
	e := withAdmin(t, harness.Options{Tuning: func(v *tuning.Values) { v.Retry = time.Second }})
	name := e.Name("unlucky")
	e.Publish(name, e.Value(e.Bind(), false))
	e.CA.FailValidations(&lab.ErrSecondary)
	config := e.Global() + e.Site(name, e.Block())
	e.Load(config)
	showsMetrics(e, "the refusal", map[string]float64{
		`validations_total{result="refused"}`: 1, `orders_total{result="made"}`: 1, `account_usable`: 1, `directory_reachable`: 1,
		`names{phase="held",reason="rejected",source="configuration"}`: 1,
	})
	e.CA.FailValidations(nil)
	e.CA.Forget()
	e.Load(config)
	showsMetrics(e, "the lost account", map[string]float64{`account_usable`: 0, `names{phase="held",reason="account",source="configuration"}`: 1})
}
