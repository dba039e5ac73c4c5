//go:build unix

package rollover

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/internal/beside"
)

const (
	// childEnv carries what a process that is to be killed has to know.
	childEnv = "DNS_PERSIST_ROLLOVER_CHILD"
	ready    = "ready"
	// trials is the number of kills of each kind, slots how many are under way at a time.
	trials, slots = 25, 4
	// slowest is how long the CA keeps a request, and its answer, at most; window is how
	// long a process lives at most.
	slowest, window = 12 * time.Millisecond, 110 * time.Millisecond
)

// victim is a process that is to be killed.
type victim struct {
	CA, Roots, Storage string
	Roll               bool
}

// TestMain lets the test binary be such a process.
func TestMain(m *testing.M) {
	if text := os.Getenv(childEnv); text != "" {
		if err := runVictim(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(beside.Run(m))
}

func runVictim(text string) error {
	var v victim
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(v.Roots))
	iss := acmepersist.New(acmepersist.Config{
		CA: v.CA, Storage: &certmagic.FileStorage{Path: v.Storage},
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}},
	})
	fmt.Println(ready)
	var err error
	if v.Roll {
		_, err = iss.RollKey(context.Background())
	} else {
		_, err = iss.Account(context.Background())
	}
	return err
}

// slowCA is the world's CA under an address of its own: it takes its time before it acts
// and before it answers, and acts also when the client is gone.
type slowCA struct {
	*httptest.Server
	slow  atomic.Bool
	roots string
}

func (w *world) slowCA(t *testing.T) *slowCA {
	t.Helper()
	s := &slowCA{}
	pause := func() {
		if s.slow.Load() {
			time.Sleep(rand.N(slowest))
		}
	}
	origin := strings.TrimSuffix(w.ca.Directory(), "/dir")
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		pause()
		req, err := http.NewRequestWithContext(context.WithoutCancel(r.Context()), r.Method, origin+r.URL.Path, bytes.NewReader(body))
		if err != nil {
			return
		}
		req.Host, req.Header = r.Host, r.Header
		resp, err := w.ca.HTTPClient().Transport.RoundTrip(req)
		if err != nil {
			return
		}
		defer resp.Body.Close()
		pause()
		for name, values := range resp.Header {
			rw.Header()[name] = values
		}
		rw.WriteHeader(resp.StatusCode)
		_, _ = io.Copy(rw, resp.Body)
	}))
	t.Cleanup(s.Close)
	s.roots = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	return s
}

// trial is one process that is killed, with a storage of its own.
type trial struct {
	*world
	t  *testing.T
	ca *slowCA
}

func (tr *trial) issuer() *acmepersist.Issuer {
	return acmepersist.New(acmepersist.Config{
		CA: tr.ca.URL + "/dir", Storage: &certmagic.FileStorage{Path: tr.dir}, Transport: tr.ca.Client().Transport,
	})
}

func (tr *trial) binding() map[string]any {
	return members(tr.t, filepath.Join(tr.dir, "dns_persist", certmagic.StorageKeys.Safe(acmepersist.IssuerKey(tr.ca.URL+"/dir")), "account.json"))
}

// accounts are those that were registered in this trial.
func (tr *trial) accounts() (list []string) {
	for _, a := range tr.world.ca.Accounts() {
		if strings.HasPrefix(a, tr.ca.URL+"/") {
			list = append(list, a)
		}
	}
	return list
}

// kill starts the process and kills it after a random time.
func (tr *trial) kill(roll bool) error {
	text, err := json.Marshal(victim{CA: tr.ca.URL + "/dir", Roots: tr.ca.roots, Storage: tr.dir, Roll: roll})
	if err != nil {
		return err
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	time.Sleep(rand.N(window))
	if killErr := cmd.Process.Signal(syscall.SIGKILL); killErr != nil && err == nil && strings.TrimSpace(line) != ready {
		err = killErr
	}
	_ = cmd.Wait()
	// the next one would wait ten seconds for the dead one's lock
	return errors.Join(err, os.RemoveAll(filepath.Join(tr.dir, "locks")))
}

// killMany runs the trials, a few at a time, and counts where the processes died.
func killMany(t *testing.T, one func(*trial) string) {
	w := newWorld(t, "01")
	var mu sync.Mutex
	died := make(map[string]int)
	turn := make(chan struct{}, slots)
	var wg sync.WaitGroup
	for range trials {
		tr := &trial{world: w.elsewhere(), t: t, ca: w.slowCA(t)}
		wg.Go(func() {
			turn <- struct{}{}
			defer func() { <-turn }()
			where := one(tr)
			mu.Lock()
			died[where]++
			mu.Unlock()
		})
	}
	wg.Wait()
	t.Logf("died: %v", died)
}

// check looks whether the account can be used and is the trial's only one.
func (tr *trial) check(url, where string) {
	account, err := tr.issuer().Account(tr.t.Context())
	if err != nil || url != "" && account.URL != url {
		tr.t.Errorf("%s: an ordinary session has %+v, %v; want %s", where, account, err, url)
		return
	}
	state, err := tr.issuer().AccountStatus(tr.t.Context())
	if err != nil || state.Status != "valid" || state.URL != account.URL {
		tr.t.Errorf("%s: the state is %+v, %v", where, state, err)
	}
	if all := tr.accounts(); len(all) != 1 || all[0] != account.URL {
		tr.t.Errorf("%s: the CA has the accounts %v, want %s", where, all, account.URL)
	}
}

// Processes that roll the key over are killed at random times. The account is never lost.
func TestKilledRollovers(t *testing.T) {
	t.Parallel()
	killMany(t, func(tr *trial) string {
		account, err := tr.issuer().Account(tr.t.Context())
		if err != nil {
			tr.t.Error(err)
			return "early"
		}
		old, _ := tr.binding()["key"].(string)
		tr.ca.slow.Store(true)
		if err := tr.kill(true); err != nil {
			tr.t.Error(err)
		}
		tr.ca.slow.Store(false)
		b := tr.binding()
		where := "before anything was stored"
		switch {
		case b["rolled_at"] != nil:
			where = "after all"
		case b["next_key"] != nil && tr.world.ca.Thumbprint(account.URL) != account.Thumbprint:
			where = "when the CA had changed the key"
		case b["next_key"] != nil:
			where = "when the next key was stored"
		}
		tr.check(account.URL, where)
		r, err := tr.issuer().RollKey(tr.t.Context())
		if err != nil || r.URL != account.URL || r.NewThumbprint != tr.world.ca.Thumbprint(account.URL) {
			tr.t.Errorf("%s: rolled %+v, %v", where, r, err)
		}
		tr.check(account.URL, where)
		if b := tr.binding(); b["key"] == old || b["next_key"] != nil || b["thumbprint"] != r.NewThumbprint {
			tr.t.Errorf("%s: the binding has thumbprint %v, want %s and nothing pending", where, b["thumbprint"], r.NewThumbprint)
		}
		return where
	})
}

// Processes that bind an account for the first time are killed at random times. The CA gets
// one account, and its key is in storage.
func TestKilledBindings(t *testing.T) {
	t.Parallel()
	killMany(t, func(tr *trial) string {
		tr.ca.slow.Store(true)
		if err := tr.kill(false); err != nil {
			tr.t.Error(err)
		}
		tr.ca.slow.Store(false)
		b := tr.binding()
		where := "before anything was stored"
		switch {
		case b["url"] != nil:
			where = "after all"
		case b != nil && len(tr.accounts()) > 0:
			where = "when the CA had registered it"
		case b != nil:
			where = "when the key was stored"
		}
		url, _ := b["url"].(string)
		tr.check(url, where)
		if state, _, err := tr.issuer().KnownAccount(tr.t.Context()); err != nil || state.Thumbprint != tr.world.ca.Thumbprint(state.URL) {
			tr.t.Errorf("%s: the CA does not know the stored key: %+v, %v", where, state, err)
		}
		return where
	})
}
