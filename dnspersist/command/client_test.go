package command

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/filestorage" // the storage of TestAdminSocket

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/operator"
)

// adminAddresses are addresses of admin endpoints, and the listeners for them.
func adminAddresses(t *testing.T) map[string]net.Listener {
	t.Helper()
	dir, err := os.MkdirTemp("", "admin") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	all := make(map[string]net.Listener)
	listen := func(network, address, as string) {
		l, err := new(net.ListenConfig).Listen(t.Context(), network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		if as == "" {
			as = l.Addr().String()
		}
		all[as] = l
	}
	listen("tcp", "127.0.0.1:0", "")
	plain, mode := filepath.Join(dir, "a.sock"), filepath.Join(dir, "b.sock")
	listen("unix", plain, "unix/"+plain)
	listen("unix", mode, "unix/"+mode+"|0660")
	return all
}

// What reaches an admin endpoint is what a command of Caddy's own would send there.
func TestRequestsAreLikeCaddysOwn(t *testing.T) {
	for address, listener := range adminAddresses(t) {
		t.Run(address, func(t *testing.T) {
			type request struct {
				Method, Host, URI, Body string
				Header                  http.Header
			}
			var seen []request
			server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				var body json.RawMessage
				_ = json.NewDecoder(r.Body).Decode(&body)
				r.Header.Del("User-Agent")
				seen = append(seen, request{r.Method, r.Host, r.RequestURI, string(body), r.Header})
				fmt.Fprint(w, "{}")
			})}
			go func() { _ = server.Serve(listener) }()
			defer server.Close()
			a, err := newClient(t.Context(), address)
			if err != nil {
				t.Fatal(err)
			}
			defer a.http.CloseIdleConnections()
			if err := a.call(http.MethodGet, "records?name=a.test", nil, new(operator.RecordsReply)); err != nil {
				t.Fatal(err)
			}
			body := operator.CheckRequest{Names: []string{"a.test"}}
			if err := a.call(http.MethodPost, "check", body, new(operator.CheckReply)); err != nil {
				t.Fatal(err)
			}
			data, err := json.Marshal(body)
			if err != nil {
				t.Fatal(err)
			}
			for _, send := range []func() (*http.Response, error){
				func() (*http.Response, error) {
					return caddycmd.AdminAPIRequest(address, http.MethodGet, "/dns_persist/records?name=a.test", nil, nil)
				},
				func() (*http.Response, error) {
					return caddycmd.AdminAPIRequest(address, http.MethodPost, "/dns_persist/check", nil, strings.NewReader(string(data)))
				},
			} {
				resp, err := send()
				if err != nil {
					t.Fatal(err)
				}
				_ = resp.Body.Close()
			}
			if len(seen) != 4 || !reflect.DeepEqual(seen[:2], seen[2:]) {
				t.Errorf("ours and Caddy's differ:\n%+v", seen)
			}
		})
	}
}

// A socket by number can be dialled by nobody, Caddy's own commands included, and other addresses are
// refused by both.
func TestAddressesLikeCaddysOwn(t *testing.T) {
	for _, address := range []string{"fd/3", "fdgram/3", "localhost:1-3", "localhost:x", "unix//nowhere.sock|0990", "unix//nowhere.sock|0660", "127.0.0.1:1"} {
		_, theirs := caddycmd.AdminAPIRequest(address, http.MethodGet, "/", nil, nil) //nolint:bodyclose // there is none
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		_, err := (&run{Context: ctx}).running(address)
		cancel()
		if (err == nil) != (theirs == nil) || err == nil {
			t.Errorf("%s: %v, and Caddy's own: %v", address, err, theirs)
		}
		if strings.HasPrefix(address, "fd/") && !strings.Contains(err.Error(), "--address") {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// A Caddy whose admin endpoint is a socket answers.
func TestAdminSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "admin")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
		_ = os.RemoveAll(dir)
	})
	for _, listen := range []string{"unix/" + filepath.Join(dir, "a.sock"), "unix/" + filepath.Join(dir, "b.sock") + "|0660"} {
		config, err := json.Marshal(map[string]any{
			"admin":   map[string]any{"listen": listen, "config": map[string]any{"persist": false}},
			"storage": map[string]any{"module": "file_system", "root": dir},
			"logging": map[string]any{"logs": map[string]any{"default": map[string]any{"level": "PANIC"}}},
			"apps":    map[string]any{"dns_persist": struct{}{}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := caddy.Load(config, true); err != nil {
			t.Fatal(err)
		}
		a, err := (&run{Context: t.Context()}).running(listen)
		if err != nil {
			t.Fatalf("%s: %v", listen, err)
		}
		a.http.CloseIdleConnections()
	}
}
