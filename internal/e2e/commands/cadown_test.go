package commands

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/dnspersist/caddy-dnspersist/dnspersist"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// A CA that is down does not hide what is to be told of the others, without a server and with
// one.
func TestOneCAIsDown(t *testing.T) {
	e := newEnv(t, harness.Options{})
	port, err := lab.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	down := fmt.Sprintf("https://127.0.0.1:%d/dir", port)
	well, lost := e.Name("well"), e.Name("lost")
	e.configure(e.Global() + e.Site(well, e.Block()) + e.Site(lost, strings.Replace(e.Block(), e.CA.Directory(), down, 1)))
	e.Publish(well, e.Value(e.Bind(), false))

	check := func(how string, more ...string) {
		t.Helper()
		with := func(args ...string) []string { return append(args, more...) }
		told := func(r result) {
			t.Helper()
			if !has(r.err, "nothing could be told of the CA "+down, "left out: "+lost) || strings.Count(r.err, "error: ") != 1 {
				t.Errorf("%s: %s", how, r.err)
			}
		}
		r := e.ends(2, with("records", "--format", "json")...)
		told(r)
		reply := decode[dnspersist.RecordsReply](t, r.out)
		if len(reply.Records) != 1 || reply.Records[0].Name != "_validation-persist."+well || len(reply.Failed) != 1 || reply.Failed[0].CA != down || reply.Failed[0].Identifiers[0] != lost {
			t.Errorf("%s: records %+v", how, reply)
		}
		r = e.ends(2, with("check")...)
		told(r)
		if !has(r.out, "_validation-persist."+well+": good") {
			t.Errorf("%s: check: %s", how, r.out)
		}
		r = e.ends(2, with("probe", "--format", "json")...)
		if reply := decode[dnspersist.ProbeReply](t, r.out); len(reply.CAs) != 1 || len(reply.Failed) != 1 || reply.Failed[0].CA != down || !has(r.err, down) {
			t.Errorf("%s: probe %+v, %s", how, reply, r.err)
		}
	}
	check("offline")
	r := e.ends(2, "account", "--register", "--format", "json")
	if reply := decode[dnspersist.AccountReply](t, r.out); len(reply.Accounts) != 1 || reply.Accounts[0].CA != e.CA.Directory() || !has(r.err, "nothing could be told of the CA "+down) {
		t.Errorf("account --register: %+v, %s", reply, r.err)
	}
	// who asks about the one that is down alone gets its error
	if r := e.ends(1, "check", lost); !has(r.err, "error: ", "connection refused") {
		t.Errorf("check of its name: %s", r.err)
	}
	e.Load(e.Global() + e.Site(well, e.Block()) + e.Site(lost, strings.Replace(e.Block(), e.CA.Directory(), down, 1)))
	e.WaitTrusted(well, harness.Soon)
	check("running", "--address", e.Admin)
	for _, path := range []string{"records", "probe"} {
		if status, reply := e.call(http.MethodGet, "/dns_persist/"+path, ""); status != http.StatusOK || !has(reply, `"failed":[{"ca":"`+down) {
			t.Errorf("GET %s: %d %s", path, status, reply)
		}
	}
}
