//go:build unix && long

package monitoring

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/realdns"
)

const examples = "../../../examples/monitoring/"

var update = flag.Bool("update", false, "record the series of examples/monitoring/alerts_test.yml anew")

// Each alert fires for what it is about, at its CA and at no other, and ends when that does; the dashboard shows
// it. What Prometheus has scraped meanwhile is then what `promtool test rules` has, with the same outcome at the
// rules' own times: the series in alerts_test.yml were made by this test, with -update.
func TestAlerts(t *testing.T) {
	w := newWorld(t)
	promtool := realdns.Program(t, "promtool", debian)
	p := startPrometheus(t, w.target, scaled(t))
	r := &recording{began: time.Now()}
	w.start()
	r.note(w, p, "all is well", nil, func(alert string, cas []string) bool {
		return !slices.ContainsFunc(cas, func(ca string) bool { return !slices.Contains([]string{missing, unwritten, ending, limited}, ca) })
	})

	w.breakAll()
	wanted := map[string][]string{
		"DNSPersistCertificateEnds":    {overdue},
		"DNSPersistRenewalOverdue":     {overdue},
		"DNSPersistRecordGone":         {gone},
		"DNSPersistRecordEnds":         {ending},
		"DNSPersistNamesWait":          {missing},
		"DNSPersistAccountUnusable":    {lost},
		"DNSPersistCAUnreachable":      {down},
		"DNSPersistWritesFail":         {unwritten},
		"DNSPersistValidationsRefused": {refused},
		"DNSPersistOrdersHeldUp":       {limited},
	}
	// what comes and goes with the end of the certificate, or after a long wait
	also := map[string][]string{
		"DNSPersistNamesWait": {unwritten, refused, overdue}, "DNSPersistRecordGone": {overdue}, "DNSPersistValidationsRefused": {overdue},
	}
	r.note(w, p, "all is broken", wanted, func(alert string, cas []string) bool {
		return !slices.ContainsFunc(cas, func(ca string) bool {
			return !slices.Contains(wanted[alert], ca) && !slices.Contains(also[alert], ca)
		})
	})
	t.Run("dashboard", func(t *testing.T) { testDashboard(t, p) })
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", w.HTTPPort)) //nolint:noctx // a test
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || !strings.Contains(string(text), "caddy_dns_persist_records_not_ready{") {
		t.Errorf("the handler shows no metrics of ours: %v", err)
	}

	w.publish(gone, w.names[gone])
	r.note(w, p, "the record is back", nil, func(alert string, cas []string) bool {
		return alert != "DNSPersistRecordGone" || !slices.Contains(cas, gone)
	})
	w.hide()
	r.note(w, p, "Caddy does not answer", map[string][]string{"DNSPersistDown": {""}}, func(string, []string) bool { return true })
	p.assertRulesAreHealthy()

	file := filepath.Join(t.TempDir(), "alerts_test.yml")
	if *update {
		file = examples + "alerts_test.yml"
	}
	rules, err := filepath.Abs(examples + "alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		rules = "alerts.yml"
	}
	if err := os.WriteFile(file, r.tests(w, p, rules), 0o644); err != nil { //nolint:gosec // it is an example
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "test", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("promtool: %v\n%s", err, out)
	}
}

// scaled are the rules at the speed of the lab.
func scaled(t *testing.T) []byte {
	t.Helper()
	data, err := os.ReadFile(examples + "alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(`(for: |\[)(\d+)([mhd])\b`).ReplaceAllStringFunc(string(data), func(s string) string {
		m := regexp.MustCompile(`(\D+)(\d+)(.)`).FindStringSubmatch(s)
		n, _ := strconv.Atoi(m[2])
		scaled := n * map[string]int{"m": 60, "h": 3600, "d": 86400}[m[3]] * 1000 / speed
		if m[1] == "[" {
			scaled = max(scaled, 2000) // a scrape may be late
		}
		return fmt.Sprintf("%s%dms", m[1], scaled)
	})
	return []byte(strings.ReplaceAll(text, "* 3600", fmt.Sprintf("* %g", 3600.0/speed)))
}

// alert is one that fires.
type alert struct {
	Labels, Annotations map[string]string
	State               string
}

// firing are the alerts that fire, by name and CA.
func (p *prometheus) firing() (map[string]alert, error) {
	resp, err := http.Get(p.url + "/api/v1/alerts") //nolint:noctx // a test
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var reply struct{ Data struct{ Alerts []alert } }
	if err := json.NewDecoder(resp.Body).Decode(&reply); err != nil {
		return nil, err
	}
	all := make(map[string]alert)
	for _, a := range reply.Data.Alerts {
		if a.State == "firing" {
			all[a.Labels["alertname"]+" "+a.Labels["ca"]] = a
		}
	}
	return all, nil
}

// assertRulesAreHealthy fails if a rule could not be evaluated.
func (p *prometheus) assertRulesAreHealthy() {
	p.t.Helper()
	resp, err := http.Get(p.url + "/api/v1/rules") //nolint:noctx // a test
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	var reply struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&reply); err != nil {
		p.t.Fatal(err)
	}
	n := 0
	for _, group := range reply.Data.Groups {
		for _, rule := range group.Rules {
			if n++; rule.Health != "ok" {
				p.t.Errorf("%s is %s: %s", rule.Name, rule.Health, rule.LastError)
			}
		}
	}
	if n == 0 {
		p.t.Error("there are no rules")
	}
}

// recording is what Prometheus has seen, and which alerts have fired at some times.
type recording struct {
	began time.Time
	notes []note
}

type note struct {
	name   string
	at     time.Time
	firing map[string]alert
}

// steady is how long alerts have to be the same.
const steady = 2 * time.Second

// note waits until all the wanted alerts fire, and none that must not, for a moment.
func (r *recording) note(w *world, p *prometheus, name string, wanted map[string][]string, may func(alert string, cas []string) bool) {
	w.T.Helper()
	var since time.Time
	var last map[string]alert
	w.Eventually(2*harness.Soon, name, func() error {
		now, err := p.firing()
		if err != nil {
			return err
		}
		if !slices.Equal(slices.Sorted(maps.Keys(now)), slices.Sorted(maps.Keys(last))) {
			since, last = time.Now(), now
			w.T.Logf("%3.0f s: %s", since.Sub(r.began).Seconds(), w.rename(fmt.Sprint(slices.Sorted(maps.Keys(now)))))
		}
		cas := make(map[string][]string)
		for _, a := range now {
			alert := a.Labels["alertname"]
			cas[alert] = append(cas[alert], w.caOf(a.Labels["ca"]))
		}
		for alert, at := range wanted {
			for _, ca := range at {
				if !slices.Contains(cas[alert], ca) {
					return fmt.Errorf("%s does not fire at %s; what does: %v", alert, ca, cas)
				}
			}
		}
		for alert, at := range cas {
			if !may(alert, at) {
				return fmt.Errorf("%s fires at %v", alert, at)
			}
		}
		if time.Since(since) < steady {
			return errors.New("the alerts have just changed")
		}
		return nil
	})
	r.notes = append(r.notes, note{name, since.Add(time.Since(since) / 2), last})
}

// minute is how far a time is from the beginning at the rules' own times.
func (r *recording) minute(at time.Time) int {
	return int(at.Sub(r.began) * speed / time.Minute)
}

// labels are those of recorded series, which are the same in each recording.
func (w *world) labels(of map[string]string) map[string]string {
	all := maps.Clone(of)
	for name, value := range all {
		all[name] = w.rename(value)
	}
	return all
}

// tests is the file for promtool: the series that the rules are about, and the alerts at each note.
func (r *recording) tests(w *world, p *prometheus, rules string) []byte {
	w.T.Helper()
	data, err := os.ReadFile(examples + "alerts.yml")
	if err != nil {
		w.T.Fatal(err)
	}
	metrics := regexp.MustCompile(`caddy_dns_persist_[a-z_]+`).FindAllString(string(data), -1)
	slices.Sort(metrics)
	all, err := p.query(fmt.Sprintf(`{__name__=~"up|%s"}[1h]`, strings.Join(slices.Compact(metrics), "|")))
	if err != nil {
		w.T.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("# Made by a test: go test -tags long ./internal/e2e/monitoring -run TestAlerts -update\n" +
		"# A real Prometheus has scraped a real Caddy, whose CAs are named after what went wrong at each. One second of\n" +
		"# that is two hours here. Series that were 0 all the time are left out.\n")
	fmt.Fprintf(&b, "rule_files:\n  - %s\nevaluation_interval: 5m\ntests:\n  - interval: 1m\n    input_series:\n", rules)
	end := r.notes[len(r.notes)-1].at.Add(steady)
	up := all[slices.IndexFunc(all, func(s series) bool { return s.Metric["__name__"] == "up" })]
	for _, s := range all {
		if !slices.ContainsFunc(s.Values, func(v point) bool { return v.Value != 0 }) {
			continue
		}
		fmt.Fprintf(&b, "      - series: '%s'\n        values: '%s'\n", selector(w.labels(s.Metric)), r.values(s, up, end))
	}
	b.WriteString("    alert_rule_test:\n")
	for _, n := range r.notes {
		fmt.Fprintf(&b, "      # %s\n", n.name)
		for _, alert := range regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(string(data), -1) {
			fmt.Fprintf(&b, "      - eval_time: %dm\n        alertname: %s\n", r.minute(n.at), alert[1])
			expected := ""
			for _, key := range slices.Sorted(maps.Keys(n.firing)) {
				if a := n.firing[key]; a.Labels["alertname"] == alert[1] {
					delete(a.Labels, "alertname")
					expected += fmt.Sprintf("          - exp_labels: %s\n            exp_annotations: %s\n", asYAML(w.T, w.labels(a.Labels)), asYAML(w.T, w.annotations(a)))
				}
			}
			if expected != "" {
				fmt.Fprintf(&b, "        exp_alerts:\n%s", expected)
			}
		}
	}
	return []byte(b.String())
}

// values are those of a series, a minute each: equal ones in a row are written once. While Caddy is not up there
// are none of its own.
func (r *recording) values(s, up series, end time.Time) string {
	var runs []string
	last, n := "", 0
	flush := func() {
		switch {
		case n == 0:
		case last == "_":
			runs = append(runs, fmt.Sprintf("_x%d", n))
		default:
			runs = append(runs, fmt.Sprintf("%s+0x%d", last, n-1))
		}
	}
	for minute := range r.minute(end) {
		at := r.began.Add(time.Duration(minute) * time.Minute / speed)
		value := "_"
		if v, known := s.at(at); known {
			if isUp, _ := up.at(at); isUp == 1 || s.Metric["__name__"] == "up" {
				value = r.scaled(s.Metric["__name__"], v)
			}
		}
		if value != last {
			flush()
			last, n = value, 0
		}
		n++
	}
	flush()
	return strings.Join(runs, " ")
}

// at is the last value at a time.
func (s series) at(at time.Time) (value float64, known bool) {
	i, found := slices.BinarySearchFunc(s.Values, at, func(v point, at time.Time) int { return v.At.Compare(at) })
	if found {
		i++
	}
	if i == 0 || at.Sub(s.Values[i-1].At) > 5*time.Second {
		return 0, false
	}
	return s.Values[i-1].Value, true
}

// scaled is a value at the rules' own times, which begin at zero.
func (r *recording) scaled(metric string, value float64) string {
	switch {
	case value == 0:
	case strings.HasSuffix(metric, "_timestamp_seconds"):
		value = (value - float64(r.began.UnixMilli())/1000) * speed
	case strings.HasSuffix(metric, "_seconds"):
		value *= speed
	}
	return strconv.FormatFloat(value, 'f', -1, 64)
}

// selector writes labels as promtool wants a series.
func selector(labels map[string]string) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		if name != "__name__" {
			all = append(all, fmt.Sprintf("%s=%q", name, labels[name]))
		}
	}
	return labels["__name__"] + "{" + strings.Join(all, ",") + "}"
}

// annotations are those of an alert, with the names of a recording.
func (w *world) annotations(a alert) map[string]string {
	all := make(map[string]string)
	for name, text := range a.Annotations {
		all[name] = w.rename(text)
	}
	return all
}

// asYAML writes a map on one line: JSON is YAML.
func asYAML(t testing.TB, m map[string]string) string {
	t.Helper()
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(m); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(b.String())
}

// caOf is the name of the CA with a directory.
func (w *world) caOf(directory string) string {
	for name, ca := range w.cas {
		if ca.Directory() == directory {
			return name
		}
	}
	return directory
}
