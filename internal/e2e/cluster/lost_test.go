//go:build long && unix

package cluster

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"
	"testing"

	"github.com/caddyserver/certmagic"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
)

// accountKey is where the account is in storage.
func (w *world) accountKey() string {
	return path.Join("dns_persist", certmagic.StorageKeys.Safe(acmepersist.IssuerKey(w.CA.Directory())), "account.json")
}

// storedAccount is the account in storage; empty if there is none.
func (w *world) storedAccount() (url string, file []byte) {
	w.T.Helper()
	st := &storage{client: w.redis.client}
	file, err := st.Load(w.T.Context(), w.accountKey())
	if err != nil {
		return "", nil
	}
	var account struct {
		URL string `json:"url"`
	}
	if err := json.Unmarshal(file, &account); err != nil {
		w.T.Fatal(err)
	}
	return account.URL, file
}

// loseAll has Redis restart without having saved: the locks, the account and the certificates are gone.
func (w *world) loseAll() {
	w.T.Helper()
	w.redis.kill()
	w.redis.start()
	if url, _ := w.storedAccount(); url != "" {
		w.T.Fatalf("the storage still has %s", url)
	}
}

// Redis restarts empty while the nodes run. They serve what they have, put the account back, and go on; one that
// is restarted afterwards has lost its certificates, and no record.
func TestRedisLosesAll(t *testing.T) {
	w := newWorld(t, few, harness.Options{})
	w.bind()
	w.publish(w.names[:few/2])
	w.start()
	w.issued(few / 5)
	w.loseAll()
	w.publish(w.names[few/2:])
	w.serves(2*calm, w.names, w.nodes...)
	w.Eventually(calm, "the account to be put back", func() error {
		if url, _ := w.storedAccount(); url != w.account {
			return fmt.Errorf("in storage is %q", url)
		}
		return nil
	})
	if logged := len(w.nodes[0].Logs("storage lost?")) + len(w.nodes[1].Logs("storage lost?")) + len(w.nodes[2].Logs("storage lost?")); logged == 0 {
		t.Error("nothing is logged")
	}
	w.nodes[0].kill()
	w.nodes[0].start()
	w.serves(2*calm, w.names, w.nodes[0])
	w.assert(few) // what was in the storage is ordered once more
}

// A node that starts with the empty storage before the others have noticed registers an account, for it cannot know
// better. The others' takes its place again, and the node is to be restarted.
func TestNodeStartsWithTheEmptyStorage(t *testing.T) {
	w := newWorld(t, few, harness.Options{})
	w.names = w.names[:20]
	w.bind()
	w.publish(w.names)
	w.start()
	w.serves(calm, w.names, w.nodes...)
	w.nodes[0].kill()
	w.loseAll()
	w.nodes[0].start()
	w.Eventually(2*calm, "the account to be put back", func() error {
		if url, _ := w.storedAccount(); url != w.account {
			return fmt.Errorf("in storage is %q", url)
		}
		return nil
	})
	w.nodes[0].kill()
	w.nodes[0].start()
	w.serves(calm, w.names, w.nodes...)
	if accounts := w.CA.Accounts(); len(accounts) > 2 || accounts[0] != w.account {
		t.Errorf("the CA has the accounts %v", accounts)
	}
	if failed := w.CA.FailedValidations(); len(failed) != 0 {
		t.Errorf("failed validations: %v", failed)
	}
}

// With account_url an empty storage is an error that says what to do, and no account is registered.
func TestAccountURL(t *testing.T) {
	w := newWorld(t, few, harness.Options{})
	w.names = w.names[:20]
	w.bind()
	w.block = w.Block("account_url " + w.account)
	w.publish(w.names)
	_, backup := w.storedAccount()
	if !bytes.Contains(backup, []byte(w.account)) {
		t.Fatalf("no account was bound: %s", backup)
	}
	w.loseAll()
	w.start()
	for i, n := range w.nodes {
		n.Eventually(harness.Soon, fmt.Sprintf("node %d to log what is wrong", i), func() error {
			for _, l := range n.Logs("") {
				if text := fmt.Sprint(l); bytes.Contains([]byte(text), []byte("account_url names it, but its key is not in storage, and no account is registered in its place")) {
					return nil
				}
			}
			return errNotYet
		})
	}
	if accounts, orders := w.CA.Accounts(), w.CA.Orders(); len(accounts) != 1 || len(orders) != 0 {
		t.Errorf("the CA has %d accounts and %d orders, want 1 and none", len(accounts), len(orders))
	}
	st := &storage{client: w.redis.client}
	if err := st.Store(t.Context(), w.accountKey(), backup); err != nil {
		t.Fatal(err)
	}
	for _, n := range w.nodes {
		n.kill()
	}
	w.start()
	w.serves(calm, w.names, w.nodes...)
	w.assert(0)
}
