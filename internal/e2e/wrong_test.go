package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

// The running server names what is published in place of the record, once for each change,
// and finds the record in the wrong places where people put it.
func TestWrongRecordsAreNamedInTheLog(t *testing.T) {
	e := harness.New(t, harness.Options{Tuning: func(v *tuning.Values) { v.DiagnoseAfter = 2 * time.Second }})
	account := e.Bind()
	good := e.Value(account, false)
	quoted := func(s string) string { return `"` + s + `"` }
	const zone = "example.test"
	cases := []struct {
		label  string
		value  string
		at     func(name string) string // nil: the validation name
		reason string                   // in found, or in misplaced
		do     string
	}{
		{"account", strings.Replace(good, account, account+"x", 1), nil, "wrong_account: ", "replace the value"},
		{"quotes", quoted(good), nil, "miswritten: the quotes are part of the value", "replace the value"},
		{"curly", "\u201c" + good + "\u201d", nil, "miswritten: curly quotes", "replace the value"},
		{"line", "_validation-persist 3600 IN TXT " + quoted(good), nil, "miswritten: a whole line of a zone file", "replace the value"},
		{"cut", harness.IssuerName, nil, "malformed: nothing is behind the issuer domain name", "replace the value"},
		{"semicolon", strings.Replace(good, "; ", "", 1), nil, "miswritten: the semicolon after the issuer", "replace the value"},
		{"other", "ca.example; accounturi=https://ca.example/1", nil, "wrong_issuer: it is for another issuer: ca.example", "beside what is published"},
		{"doubled", good, func(name string) string { return "_validation-persist." + name + "." + zone }, "the zone's name was appended twice; move it", ""},
		{"bare", good, func(name string) string { return name }, "before it is missing; move it", ""},
		{"typo", good, func(name string) string { return "_validation_persist." + name }, "underscore in place of its hyphen; move it", ""},
		{"www", good, func(name string) string { return "_validation-persist.www." + name }, "that is the name for www.", ""},
		{"dns01", good, func(name string) string { return "_acme-challenge." + name }, "dns-01; move it", ""},
	}
	names := []string{e.Name("star")}
	for _, c := range cases {
		names = append(names, e.Name(c.label))
	}
	e.Load(e.Global() + e.Site(strings.Join(names[1:], ", "), e.Block()) + e.Site("*."+names[0], e.Block()))
	e.Eventually(harness.Soon, "the records to be asked for", func() error {
		return harness.Want(len(e.Logs("publish this TXT record once")), len(names))
	})
	if n := len(e.Logs("what DNS shows of a record has changed")); n > 0 {
		t.Errorf("%d lines say at the first look that something has changed", n)
	}
	for i, c := range cases {
		at := "_validation-persist." + names[i+1]
		if c.at != nil {
			at = c.at(names[i+1])
		}
		e.DNS.SetTXT(0, at, c.value)
	}
	e.Publish(names[0], good) // without the policy

	// said lists the entries of one name.
	said := func(message, field, name string) (all []string) {
		for _, l := range e.Logs(message) {
			if l["name"] == "_validation-persist."+name {
				all = append(all, fmt.Sprint(l[field], " ", l["do"]))
			}
		}
		return all
	}
	const wrong, misplaced = "and it is not the one that the CA wants", "found at another name than the validation name"
	for i, c := range cases {
		message, field := wrong, "found"
		if c.at != nil {
			message, field = misplaced, "misplaced"
		}
		e.Eventually(harness.Soon, c.label+" to be named", func() error {
			all := said(message, field, names[i+1])
			if len(all) == 0 || !strings.Contains(all[0], c.reason) || !strings.Contains(all[0], c.do) {
				return fmt.Errorf("%s: %q, want %q and %q", c.label, all, c.reason, c.do)
			}
			return nil
		})
	}
	e.Eventually(harness.Soon, "the missing policy to be named", func() error {
		all := said(wrong, "found", names[0])
		if len(all) != 1 || !strings.Contains(all[0], "policy_missing: policy=wildcard is missing") {
			return fmt.Errorf("%q", all)
		}
		return nil
	})
	// the record in its place ends it
	for i := range cases {
		e.Publish(names[i+1], good)
	}
	e.WaitTrusted(names[1], harness.Soon)
	for i, c := range cases {
		if n := len(said(wrong, "found", names[i+1])) + len(said(misplaced, "misplaced", names[i+1])); n != 1 {
			t.Errorf("%s was named %d times", c.label, n)
		}
	}
}
