package dnspersist

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
)

func init() { caddy.RegisterModule(slowApp{}) }

// slowApp is an app that takes long to be provisioned and to start.
type slowApp struct{}

func (slowApp) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "dns_persist_slow", New: func() caddy.Module { return new(slowApp) }}
}

func (*slowApp) Provision(caddy.Context) error {
	time.Sleep(30 * time.Millisecond)
	return nil
}

func (*slowApp) Start() error {
	time.Sleep(30 * time.Millisecond)
	return nil
}

func (*slowApp) Stop() error { return nil }

// While configurations are loaded the admin API answers, or says when to ask again; it touches nothing
// that is not provisioned. The race detector sees the rest.
func TestAdminAPIDuringReloads(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	dir, err := json.Marshal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	config := func(n int) []byte {
		return fmt.Appendf(nil, `{"admin":{"listen":%q,"config":{"persist":false}},"storage":{"module":"file_system","root":%s},
			"logging":{"logs":{"default":{"level":"PANIC"}}},"apps":{"dns_persist_slow":{},"dns_persist":{},
			"http":{"servers":{"s%d":{"listen":["127.0.0.1:0"],"automatic_https":{"disable":true}}}},
			"tls":{"automation":{"policies":[{"subjects":["a%d.example.com"],"issuers":[{"module":"dns_persist","ca":"https://127.0.0.1:1/dir"}]}]}}}}`,
			address, dir, n, n)
	}
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})

	var wg sync.WaitGroup
	done := make(chan struct{})
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	var mu sync.Mutex
	answers := make(map[string]int)
	ask := func(path string) {
		resp, err := client.Get("http://" + address + "/dns_persist/" + path)
		if err != nil {
			return // the listener is replaced as well
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return
		}
		answer := fmt.Sprint(resp.StatusCode, " ", resp.Header.Get("Retry-After"))
		if resp.StatusCode != http.StatusOK {
			var problem struct{ Error string }
			if err := json.Unmarshal(body, &problem); err != nil || problem.Error == "" {
				answer += " without an error in JSON"
			}
		}
		mu.Lock()
		defer mu.Unlock()
		answers[answer]++
	}
	for _, path := range []string{"", "", "records"} {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					ask(path)
				}
			}
		})
	}
	for n := range 10 {
		if err := caddy.Load(config(n), true); err != nil {
			t.Error(err)
			break
		}
	}
	close(done)
	wg.Wait()
	t.Log(answers)
	for answer := range answers {
		if answer != "200 " && answer != "503 1" {
			t.Errorf("an answer is %q", answer)
		}
	}
	if answers["200 "] == 0 || answers["503 1"] == 0 {
		t.Errorf("the answers are %v, want some of either kind", answers)
	}
}

// What changes an account or makes an order exists within the process of a command only.
func TestMountedRoutes(t *testing.T) {
	var got []string
	for _, route := range new(AdminAPI).Routes() {
		got = append(got, route.Pattern)
	}
	slices.Sort(got)
	want := []string{
		"/dns_persist", "/dns_persist/", "/dns_persist/account", "/dns_persist/check", "/dns_persist/health", "/dns_persist/names", "/dns_persist/probe",
		"/dns_persist/records", "/dns_persist/records/",
	}
	if !slices.Equal(got, want) {
		t.Errorf("mounted are %q, want %q", got, want)
	}
}

// hangingStorage does not answer until the context ends.
type hangingStorage struct {
	certmagic.Storage
	asked atomic.Int32
}

func (s *hangingStorage) Store(ctx context.Context, _ string, _ []byte) error {
	s.asked.Add(1)
	<-ctx.Done()
	return ctx.Err()
}

// A storage that hangs is told within seconds, to all who ask meanwhile, and is tried by one of them.
func TestHealthDoesNotWaitForAStorageThatHangs(t *testing.T) {
	a, o := newOwner(t, aloneApps)
	storage := new(hangingStorage)
	cfg := *o.iss.rt.config()
	cfg.Storage = storage
	o.iss.SetConfig(&cfg)
	began := time.Now()
	var asking sync.WaitGroup
	for range 20 {
		asking.Go(func() {
			if err := a.vitals(t.Context()).Storage; err == nil || !strings.Contains(err.Error(), "not answered within") {
				t.Errorf("it is %v", err)
			}
		})
	}
	asking.Wait()
	if took := time.Since(began); took > 3*storageAnswers {
		t.Errorf("that took %s", took)
	}
	began = time.Now()
	if a.vitals(t.Context()).Storage == nil || time.Since(began) > time.Second {
		t.Errorf("the next one has waited %s", time.Since(began))
	}
	if n := storage.asked.Load(); n != 1 {
		t.Errorf("the storage was tried %d times", n)
	}
	if err := a.Stop(); err != nil || time.Since(began) > 10*time.Second {
		t.Errorf("the configuration does not end: %v", err)
	}
}

// Whoever asks for the health has the storage tried, once a minute at most.
func TestHealthTriesTheStorage(t *testing.T) {
	a, o := newOwner(t, aloneApps)
	if v := a.vitals(t.Context()); v.Storage != nil || len(v.CAs) != 1 || v.CAs[0].IsAccountLost || !v.CAs[0].DownSince.IsZero() {
		t.Errorf("the vitals are %+v", v)
	}
	cfg := *o.iss.rt.config()
	cfg.Storage = &certmagic.FileStorage{Path: "/dev/null/nowhere"}
	o.iss.SetConfig(&cfg)
	if err := a.vitals(t.Context()).Storage; err != nil {
		t.Errorf("it is tried again at once: %v", err)
	}
	a.storageTried.at = time.Now().Add(-2 * storageFresh)
	if err := a.vitals(t.Context()).Storage; err == nil || !strings.Contains(err.Error(), "/dev/null/nowhere cannot be used") {
		t.Errorf("it is %v", err)
	}
	seen := a.shared.metrics.CA(o.iss.CA, o.account())
	seen.Happened(acmepersist.EventAccountLost)
	seen.Happened(acmepersist.EventCADown)
	since := seen.DownSince()
	seen.Happened(acmepersist.EventCADown)
	if v := a.vitals(t.Context()).CAs[0]; !v.IsAccountLost || v.DownSince.IsZero() || !v.DownSince.Equal(since) {
		t.Errorf("the vitals of the CA are %+v", v)
	}
	seen.Happened(acmepersist.EventAccountUsable)
	seen.Happened(acmepersist.EventCAAnswered)
	if v := a.vitals(t.Context()).CAs[0]; v.IsAccountLost || !v.DownSince.IsZero() {
		t.Errorf("the vitals of the CA are %+v", v)
	}
}
