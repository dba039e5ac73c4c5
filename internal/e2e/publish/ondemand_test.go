package publish

import (
	"bufio"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
)

// onDemandSite is a configuration that serves whatever the permission lets it.
func onDemandSite(e *harness.Env, permission string, words ...string) string {
	return e.Global("on_demand_tls {\n\t\task "+permission+"\n\t}") +
		"https:// {\n\ttls {\n\t\ton_demand\n\t\tissuer dns_persist " + e.Block(words...) + "\n\t}\n\trespond \"hi\"\n}\n"
}

// permitAll is a permission that says yes to every name.
func permitAll(t testing.TB) string {
	t.Helper()
	permission := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(permission.Close)
	return permission.URL
}

// Tenants of a platform: the first visit writes nothing, for anybody can open a connection. The record
// is written once the tenant has set its CNAME, whatever the visits, also by a slow provider.
func TestOnDemandTenants(t *testing.T) {
	e, a := newEnv(t, options(0))
	zone := "certs." + e.Name("platform")
	e.DNS.AddZone(zone)
	e.Load(onDemandSite(e, permitAll(t), a.block(), "delegate_to "+zone))

	quick, slow, ready := e.Name("quick"), e.Name("slow"), e.Name("ready")
	target := func(name string) string { return record.DelegationLabel(name) + "." + zone }
	visit := func(name string) {
		t.Helper()
		if _, err := e.Trusted(name); err == nil {
			t.Errorf("%s has a certificate before its CNAME", name)
		}
	}
	visit(quick)
	if want := delegated(e, quick); want != target(quick) {
		t.Errorf("the CNAME leads to %s, want %s", want, target(quick))
	}
	if got := a.at(target(quick)); len(got) != 0 {
		t.Errorf("a visit has written %q", got)
	}
	if files := storedNames(t, e); len(files) != 0 {
		t.Errorf("a visit has left files: %q", files)
	}
	alias(e, quick, target(quick)) // no further visit is needed for the record
	e.Eventually(harness.Soon, "the record of "+quick, func() error { return harness.Want(len(a.at(target(quick))), 1) })
	e.WaitTrusted(quick, harness.Soon)

	alias(e, ready, target(ready))
	e.WaitTrusted(ready, harness.Soon)

	a.lag = 15 * time.Second
	alias(e, slow, target(slow))
	visit(slow)
	e.Eventually(harness.Soon, "the handshake to be let go before the write is seen", func() error {
		for _, l := range e.Logs("could not get certificate from issuer") {
			if l["identifier"] == slow && strings.Contains(fmt.Sprint(l["error"]), "longer than a TLS handshake can wait, and goes on in the background") {
				return nil
			}
		}
		return fmt.Errorf("no entry")
	})
	e.WaitTrusted(slow, harness.Soon)
	for _, n := range []string{quick, slow, ready} {
		if n := a.count("append", target(n)); n != 1 {
			t.Errorf("%d writes, want 1", n)
		}
	}
	if n := len(e.Logs("the record could not be published")); n != 0 {
		t.Errorf("a slow write is said to have failed %d times", n)
	}
	if n := len(e.CA.FailedValidations()); n != 0 {
		t.Errorf("%d failed validations", n)
	}
}

// storedNames lists what storage has of single names, of ours.
func storedNames(t testing.TB, e *harness.Env) (files []string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(e.Storage, "dns_persist"), func(path string, d fs.DirEntry, err error) error {
		// the first name of all teaches what the CA offers, by an order that is kept for it
		if err == nil && !d.IsDir() && strings.Contains(d.Name(), "test") && filepath.Base(filepath.Dir(path)) != "orders" {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// loud counts the octets of the log above level DEBUG.
func loud(t testing.TB, e *harness.Env) (octets int) {
	t.Helper()
	f, err := os.Open(e.LogFile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if !strings.Contains(lines.Text(), `"level":"debug"`) {
			octets += len(lines.Text()) + 1
		}
	}
	return octets
}

// A client that opens connections for names which the permission lets it, and which nobody has set
// anything for, makes no write and no file, and no more watches than the bound. An honest name among them is
// served as soon as its owner has done their part. DNSPERSIST_FLOOD is how many names there are.
func TestOnDemandFlood(t *testing.T) {
	flood := 150
	if n, err := strconv.Atoi(os.Getenv("DNSPERSIST_FLOOD")); err == nil {
		flood = n
	}
	e, a := newEnv(t, options(0))
	zone := "certs." + e.Name("platform")
	e.DNS.AddZone(zone)
	first := e.Name("first")
	alias(e, first, record.DelegationLabel(first)+"."+zone)
	e.Load(onDemandSite(e, permitAll(t), a.block(), "delegate_to "+zone))
	e.WaitTrusted(first, harness.Soon)
	before, octets, heap := len(storedNames(t, e)), loud(t, e), heapNow()

	honest := e.Name("honest")
	names := make(chan string)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for n := range names {
				_, _ = e.Trusted(n)
			}
		})
	}
	began := time.Now()
	_, _ = e.Trusted(honest)
	for i := range flood {
		names <- e.Name(fmt.Sprintf("f%d", i))
	}
	close(names)
	wg.Wait()
	took := time.Since(began)
	files, logged, grown := len(storedNames(t, e))-before, loud(t, e)-octets, heapNow()-heap
	alias(e, honest, record.DelegationLabel(honest)+"."+zone)
	began = time.Now()
	e.WaitTrusted(honest, 3*time.Minute)
	a.mu.Lock()
	defer a.mu.Unlock()
	t.Logf("%d names in %s: %d KiB of heap, %d files of ours, %d writes, %d KiB of log above DEBUG; the honest name was served after %s",
		flood, took.Round(time.Second), grown/1024, files, len(a.writes)-2, logged/1024, time.Since(began).Round(100*time.Millisecond))
	if files != 0 {
		t.Errorf("%d files for names of which no record was seen", files)
	}
	if len(a.writes) != 2 {
		t.Errorf("%d writes, want those of the 2 names whose CNAME is set", len(a.writes))
	}
}

func heapNow() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
