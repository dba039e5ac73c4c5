package commands

import (
	"fmt"
	"strings"
	"testing"

	"github.com/dnspersist/caddy-dnspersist/dnspersist"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// downEnv is an environment with sites at two CAs, one of which is down.
type downEnv struct {
	*env
	down        string // directory URL
	served      string // name at the CA that answers
	lost, sites string // name at the other one, and both sites
}

func newDownEnv(t *testing.T) *downEnv {
	t.Helper()
	e := &downEnv{env: newEnv(t, harness.Options{})}
	port, err := lab.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	e.down = fmt.Sprintf("https://127.0.0.1:%d/dir", port)
	e.served, e.lost = e.Name("served"), e.Name("lost")
	e.sites = e.Global() + e.Site(e.served, e.Block()) + e.Site(e.lost, strings.Replace(e.Block(), e.CA.Directory(), e.down, 1))
	e.configure(e.sites)
	e.Publish(e.served, e.Value(e.Bind(), false))
	return e
}

// tellsOfTheOther checks that commands tell of the CA that answers, and name the other one.
func (e *downEnv) tellsOfTheOther(more ...string) {
	e.T.Helper()
	t := e.T
	with := func(args ...string) []string { return append(args, more...) }
	told := func(r result) {
		t.Helper()
		if !has(r.err, "nothing is known of the CA "+e.down, "left out: "+e.lost) || strings.Count(r.err, "error: ") != 1 {
			t.Errorf("it says %s", r.err)
		}
	}
	r := e.ends(2, with("records", "--format", "json")...)
	told(r)
	reply := decode[dnspersist.RecordsReply](t, r.out)
	if len(reply.Records) != 1 || reply.Records[0].Name != "_validation-persist."+e.served || len(reply.Failed) != 1 || reply.Failed[0].CA != e.down || reply.Failed[0].Identifiers[0] != e.lost {
		t.Errorf("records %+v", reply)
	}
	r = e.ends(2, with("check")...)
	told(r)
	if !has(r.out, "_validation-persist."+e.served+": good") {
		t.Errorf("check: %s", r.out)
	}
	r = e.ends(2, with("probe", "--format", "json")...)
	if reply := decode[dnspersist.ProbeReply](t, r.out); len(reply.CAs) != 1 || len(reply.Failed) != 1 || reply.Failed[0].CA != e.down || !has(r.err, e.down) {
		t.Errorf("probe %+v, %s", reply, r.err)
	}
	// and it is left out where the other one is chosen
	for _, command := range []string{"records", "check"} {
		if r := e.ok(with(command, "--ca", e.CA.Directory())...); strings.Contains(r.err, "error: ") || !strings.Contains(r.out, e.served) {
			t.Errorf("%s at one CA: %s%s", command, r.out, r.err)
		}
	}
	if r := e.ends(1, with("check", e.lost, "--ca", e.CA.Directory())...); !has(r.err, "the certificate of "+e.lost+" is not obtained from the CA") {
		t.Errorf("check at another CA: %s", r.err)
	}
}

// A CA that is down does not hide what is to be told of the others, without a server …
func TestOneCAIsDown(t *testing.T) {
	newDownEnv(t).tellsOfTheOther()
}

// … and with one, through its admin API.
func TestOneCAIsDownOnline(t *testing.T) {
	e := newDownEnv(t)
	e.Load(e.sites)
	e.WaitTrusted(e.served, harness.Soon)
	e.tellsOfTheOther("--address", e.Admin)
}

func TestOneCAIsDownAtRegistration(t *testing.T) {
	e := newDownEnv(t)
	r := e.ends(2, "account", "--register", "--format", "json")
	if reply := decode[dnspersist.AccountReply](t, r.out); len(reply.Accounts) != 1 || reply.Accounts[0].CA != e.CA.Directory() || !has(r.err, "nothing is known of the CA "+e.down) {
		t.Errorf("account --register: %+v, %s", reply, r.err)
	}
	// who asks about the one that is down alone gets its error
	if r := e.ends(1, "check", e.lost); !has(r.err, "error: ", "connection refused") {
		t.Errorf("check of its name: %s", r.err)
	}
}
