package propagation

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// A target's function that panics at one server's values must neither end the process nor
// have the gate opened without that server.
func TestAcceptPanics(t *testing.T) {
	t.Parallel()
	for _, mode := range []Mode{ModeAuthoritative, ModeRecursive} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := newMemNet(t)
				odd := strings.Replace(withRecord, "acct/1", "odd", 1)
				n.publish(t, "192.0.2.1")
				n.add("192.0.2.2", t, odd)
				n.servers["192.0.2.53:53"].load(t, withRecord)
				n.add("192.0.2.54", t, odd).recursive = true
				core, logs := observer.New(zap.ErrorLevel)
				resolvers := []string{"192.0.2.53"}
				if mode == ModeRecursive {
					resolvers = append(resolvers, "192.0.2.54")
				}
				c := NewChecker(Config{Mode: mode, Resolvers: resolvers, Exchanger: n, Logger: zap.New(core)})
				panics := target
				panics.Accept = func(values []string) (bool, string) {
					if good, _ := accept(values); good {
						return true, ""
					}
					panic("odd")
				}
				s := NewScheduler(SchedulerConfig{})
				defer s.Close()
				s.Watch("k", c, panics, nil, nil)
				time.Sleep(time.Hour)
				rep := report(s, "k")
				if rep.Status != StatusPartial || !strings.Contains(rep.Reason, "internal error") {
					t.Errorf("%s", rep.Summary())
				}
				if logs.Len() == 0 {
					t.Error("nothing is logged")
				}
			})
		})
	}
}
