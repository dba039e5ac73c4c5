//go:build unix && long

package monitoring

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// testDashboard evaluates each query of the dashboard: in a world where all goes wrong each panel has something to show.
func testDashboard(t *testing.T, p *prometheus) {
	data, err := os.ReadFile(examples + "dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
		Templating struct {
			List []struct {
				Name string
				Type string
			}
		}
	}
	if err := json.Unmarshal(data, &dashboard); err != nil {
		t.Fatal(err)
	}
	variables := []string{"$__rate_interval", "20s"}
	for _, v := range dashboard.Templating.List {
		if v.Type == "query" {
			variables = append(variables, "$"+v.Name, ".*") // all
		}
	}
	n := 0
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			expr := strings.NewReplacer(variables...).Replace(target.Expr)
			found, err := p.query(expr)
			switch {
			case err != nil:
				t.Errorf("%s: %v", panel.Title, err)
			case len(found) == 0:
				t.Errorf("%s: nothing comes of %s", panel.Title, expr)
			}
			n++
		}
	}
	if n < 20 {
		t.Errorf("only %d queries", n)
	}
}
