package command

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// Servers that show the same are in one line; the address of one is there only where somebody has to
// look after it.
func TestAnswersOfServers(t *testing.T) {
	server := func(name, host, addr string, verdict propagation.Verdict, reason string) propagation.ServerReport {
		return propagation.ServerReport{Name: name, Host: host, Addr: addr, Verdict: verdict, Reason: reason}
	}
	c := acmepersist.Checked{Wanted: acmepersist.Wanted{Name: "_v.example.com"}}
	c.Report.Servers = []propagation.ServerReport{
		server("_v.example.com", "ns1", "192.0.2.1:53", propagation.VerdictNo, "the policy is missing"),
		server("_v.example.com", "ns1", "[2001:db8::1]:53", propagation.VerdictNo, "the policy is missing"),
		server("_v.example.com", "ns2", "192.0.2.2:53", propagation.VerdictNo, "the policy is missing"),
		server("_v.example.com", "ns3", "192.0.2.3:53", propagation.VerdictNo, "the name does not exist"),
		server("_v.example.com", "ns3", "[2001:db8::3]:53", propagation.VerdictYes, ""),
		server("_v.example.com", "ns4", "192.0.2.4:53", propagation.VerdictSilent, "no answer"),
		server("elsewhere.example", "ns1", "192.0.2.1:53", propagation.VerdictYes, ""),
	}
	var got []string
	for _, a := range answersOf(c, []string{"the policy is missing"}) {
		got = append(got, strings.Join(a.hosts, ", ")+a.text)
	}
	want := []string{
		"ns1, ns2: no",
		"ns3 (192.0.2.3:53): no: the name does not exist",
		"ns3 ([2001:db8::3]:53): yes",
		"ns4 (192.0.2.4:53): silent: no answer",
		"ns1 for elsewhere.example: yes",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A look is news only if a person has to know: the times, serials and round trips of DNS change with
// each one.
func TestNewsOfAWait(t *testing.T) {
	w := &waiting{states: make(map[string]acmepersist.State), seen: make(map[string]string)}
	look := func(state acmepersist.State, do string, values ...string) acmepersist.Checked {
		c := acmepersist.Checked{Wanted: acmepersist.Wanted{Name: "_v.example.com"}, State: state, Do: do}
		for _, v := range values {
			c.Published = append(c.Published, acmepersist.ValueVerdict{Value: v, Code: "malformed"})
		}
		return c
	}
	for i, step := range []struct {
		c    acmepersist.Checked
		want bool
	}{
		{look(acmepersist.StateMissing, "publish"), true},
		{look(acmepersist.StateMissing, "publish"), false},
		{look(acmepersist.StateMissing, "move the record"), true},
		{look(acmepersist.StateWrong, "replace", "a"), true},
		{look(acmepersist.StateWrong, "replace", "b"), true},
		{look(acmepersist.StatePartial, "missing on ns1, serial 5", "b"), true},
		{look(acmepersist.StatePartial, "missing on ns1, serial 6", "b"), false},
		{look(acmepersist.StateGood, "", "b"), true},
	} {
		if got := w.isNews(step.c); got != step.want {
			t.Errorf("look %d is news: %t", i, got)
		}
	}
	for i := range 30 {
		w.isNews(acmepersist.Checked{Wanted: acmepersist.Wanted{Name: fmt.Sprint(i)}, State: acmepersist.StateMissing})
	}
	if got := w.count(); got != "1 good, 30 missing" {
		t.Errorf("the counts are %s", got)
	}
}
