package parking

import (
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// An announcement says what to add before the record, asks for it where a wildcard's CNAME is only
// in its place, and follows the owner's.
func TestAnnouncementSaysWhatToAddFirst(t *testing.T) {
	const name = "_validation-persist.nas.home.test"
	servers := func(target string, fromWildcard bool) []propagation.ServerReport {
		return []propagation.ServerReport{{Name: name, Alias: target, FromWildcard: fromWildcard, Verdict: propagation.VerdictNo}}
	}
	for what, c := range map[string]struct {
		report      propagation.Report
		name, first string
	}{
		"wildcard": {propagation.Report{Name: name, Shadows: "first add this", Servers: servers("box.dyn.test.", true)}, name, "first add this"},
		"set":      {propagation.Report{Name: name, Servers: servers("v.home.test.", false)}, "v.home.test", ""},
		"none":     {propagation.Report{Name: name}, name, ""},
	} {
		core, logs := observer.New(zap.WarnLevel)
		hold := &acmepersist.Hold{Watch: &acmepersist.Watch{Report: c.report}}
		entryOfLog{record: acmepersist.Record{Name: name, Value: "ca.example"}, hold: hold}.write(zap.New(core))
		if logs.Len() != 1 {
			t.Fatalf("%s: %d lines", what, logs.Len())
		}
		fields := logs.All()[0].ContextMap()
		first, _ := fields["first"].(string)
		if fields["name"] != c.name || first != c.first {
			t.Errorf("%s: %v", what, fields)
		}
	}
}
