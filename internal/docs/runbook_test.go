package docs

import (
	"os"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// alerting is what the rules of examples/monitoring say of an alert to people.
type alerting struct {
	Alert       string
	Labels      map[string]string
	Annotations map[string]string
}

// alerts reads the rules of examples/monitoring.
func alerts(t *testing.T) []alerting {
	t.Helper()
	data, err := os.ReadFile(root + "examples/monitoring/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct{ Rules []alerting }
	}
	if err := yaml.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	var all []alerting
	for _, group := range file.Groups {
		all = append(all, group.Rules...)
	}
	if len(all) < 8 {
		t.Fatalf("only %d alerts", len(all))
	}
	return all
}

// Whoever is woken by an alert finds what it means and what to do: each one leads to its section of the
// runbook, and the runbook has no section of an alert that there is not.
func TestAlertsAreInTheRunbook(t *testing.T) {
	const runbook = "docs/guides/3-am.md"
	var names, headings []string
	for _, a := range alerts(t) {
		names = append(names, a.Alert)
		if want := "https://" + module + "blob/main/" + runbook + "#" + strings.ToLower(a.Alert); a.Annotations["runbook_url"] != want {
			t.Errorf("%s leads to %s, want %s", a.Alert, a.Annotations["runbook_url"], want)
		}
		if s := a.Labels["severity"]; s != "warning" && s != "critical" {
			t.Errorf("%s has the severity %q", a.Alert, s)
		}
		for _, text := range []string{"summary", "description"} {
			if a.Annotations[text] == "" {
				t.Errorf("%s has no %s", a.Alert, text)
			}
		}
	}
	for line := range strings.Lines(section(t, page(t, runbook), "## Alerts")) {
		if heading, ok := strings.CutPrefix(strings.TrimSpace(line), "### "); ok {
			headings = append(headings, heading)
		}
	}
	same(t, "sections of alerts", headings, names)
}

// Each code of the reference has its place in the runbook, once, and a link to where it is explained that
// leads there.
func TestCodesAreInTheRunbook(t *testing.T) {
	reference := page(t, "docs/reference.md")
	runbook := page(t, "docs/guides/3-am.md")
	codes := firstWords(rows(section(t, reference, "## Codes")), 0)
	var placed []string
	for _, row := range rows(runbook) {
		for _, code := range firstWords([][]string{row}, 0) {
			if slices.Contains(placed, code) {
				t.Errorf("%s has two rows", code)
			}
			placed = append(placed, code)
			if len(row) == 2 {
				continue // a reason: their section has the link
			}
			_, anchor, _ := strings.Cut(strings.TrimSuffix(row[2], ")"), "#")
			if !slices.Contains(firstWords(rows(sectionOf(t, reference, anchor)), 0), code) {
				t.Errorf("%s is not explained at #%s of the reference", code, anchor)
			}
		}
	}
	same(t, "codes", placed, codes)
}

// sectionOf is the section of a page that an anchor leads to.
func sectionOf(t *testing.T, text, anchor string) string {
	t.Helper()
	for line := range strings.Lines(text) {
		if heading := strings.TrimSpace(line); strings.HasPrefix(heading, "#") && anchors(heading)[anchor] {
			return section(t, text, heading)
		}
	}
	t.Fatalf("no heading has the anchor #%s", anchor)
	return ""
}
