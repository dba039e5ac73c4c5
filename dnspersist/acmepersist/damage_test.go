package acmepersist_test

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
)

// forbidden is a storage that may not read one file, until it has written that anew.
type forbidden struct {
	certmagic.Storage
	name    string
	written atomic.Bool
}

func (f *forbidden) Load(ctx context.Context, key string) ([]byte, error) {
	if strings.HasSuffix(key, f.name) && !f.written.Load() {
		return nil, &fs.PathError{Op: "open", Path: key, Err: fs.ErrPermission}
	}
	return f.Storage.Load(ctx, key)
}

func (f *forbidden) Store(ctx context.Context, key string, data []byte) error {
	err := f.Storage.Store(ctx, key, data)
	if err == nil && strings.HasSuffix(key, f.name) {
		f.written.Store(true)
	}
	return err
}

// damages are what may become of a file that holds the text.
func damages(text string) map[string]string {
	return map[string]string{
		"empty": "", "zeros": strings.Repeat("\x00", len(text)), "halved": text[:len(text)/2],
		"null": "null", "empty object": "{}", "list": "[]", "a string": `"x"`, "wrong types": `{"ca":1,"url":[],"name":{},"domains":"x","key":2}`,
		"foreign version": `{"version":7,` + strings.TrimPrefix(strings.TrimSpace(text), "{"),
	}
}

// damaged makes a file damaged in each of the ways, a folder, and unreadable, and calls check with an
// issuer that has just been started.
func (i *issuing) damaged(t *testing.T, rel, text string, ways map[string]string, check func(t *testing.T, what string, iss *acmepersist.Issuer, logs *observer.ObservedLogs)) {
	t.Helper()
	file := i.file(filepath.FromSlash(rel))
	write := func(data string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(file); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(what string, storage func(certmagic.Storage) certmagic.Storage) {
		core, logs := observer.New(zap.WarnLevel)
		cfg := i.another().Config
		cfg.Logger, cfg.Storage = zap.New(core), storage(cfg.Storage)
		iss := acmepersist.New(cfg)
		t.Run(rel+" "+what, func(t *testing.T) { check(t, what, iss, logs) })
	}
	same := func(s certmagic.Storage) certmagic.Storage { return s }
	for what, data := range ways {
		write(data)
		run(what, same)
	}
	if err := os.RemoveAll(file); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(file, "within"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(file, "within", "kept"), []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	run("folder", same)
	write(text)
	run("no permission", func(s certmagic.Storage) certmagic.Storage { return &forbidden{Storage: s, name: rel} })
	write(text)
}

// What can be had again stops no certificate, whatever has become of its file.
func TestDamagedCache(t *testing.T) {
	t.Parallel()
	i := newIssuing(t)
	if err := i.issue(t.Context()); err != nil {
		t.Fatal(err)
	}
	text := func(rel string) string {
		data, err := os.ReadFile(i.file(filepath.FromSlash(rel)))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	names := "names/_validation-persist." + issuedName + ".json"
	accounts := i.ca.Count("new-account")
	for rel, text := range map[string]string{
		"ca.json":                        text("ca.json"),
		names:                            text(names),
		"orders/" + issuedName + ".json": `{"url":"https://ca.test/order/1","account":"https://ca.test/1","names":["` + issuedName + `"],"at":"2026-01-01T00:00:00Z"}`,
	} {
		// all damages are in TestDamagedFiles
		halved := map[string]string{"halved": damages(text)["halved"]}
		i.damaged(t, rel, text, halved, func(t *testing.T, what string, iss *acmepersist.Issuer, logs *observer.ObservedLogs) {
			i.Issuer = iss
			if all, err := iss.Wanted(t.Context(), []string{issuedName}); err != nil || len(all) != 1 {
				t.Errorf("the record that is wanted: %v, %v", all, err)
			}
			if err := i.issue(t.Context()); err != nil {
				t.Fatalf("no certificate: %v", err)
			}
			if err := iss.LookAtNames(t.Context(), 0); err != nil {
				t.Errorf("no daily look: %v", err)
			}
			warned := logs.FilterMessageSnippet("a file in storage cannot be read")
			if warned.Len() != 1 {
				t.Errorf("%d warnings about the file, want 1: %v", warned.Len(), logs.All())
			} else if key := warned.All()[0].ContextMap()["storage_key"].(string); !strings.HasSuffix(key, rel) {
				t.Errorf("the warning names %s", key)
			}
			switch what {
			case "no permission":
			case "folder":
				if data, err := os.ReadFile(i.file("damaged", filepath.FromSlash(rel), "within", "kept")); err != nil || string(data) != "kept" {
					t.Errorf("what was in the folder is gone: %v", err)
				}
			default:
				if data, err := os.ReadFile(i.file("damaged", filepath.FromSlash(rel))); err != nil || string(data) != halved[what] {
					t.Errorf("the damaged file was not set aside: %v", err)
				}
			}
		})
	}
	if n := i.ca.Count("new-account"); n != accounts {
		t.Errorf("%d accounts were asked for", n-accounts)
	}
}

// A stray file in a folder, such as a write that was cut short leaves, is nobody's.
func TestStrayFile(t *testing.T) {
	t.Parallel()
	i := newIssuing(t)
	if err := i.issue(t.Context()); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(i.file("names", "_validation-persist."+issuedName+".json"))
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"1234567890": nil, "2293309854": bytes.ReplaceAll(whole, []byte(issuedName), []byte("stray.example.test"))} {
		if err := os.WriteFile(i.file("names", name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if seen, err := i.SeenIdentifiers(t.Context()); err != nil || len(seen) != 1 || seen[0] != issuedName {
		t.Errorf("names that were seen: %v, %v", seen, err)
	}
	if err := i.LookAtNames(t.Context(), 0); err != nil {
		t.Errorf("no daily look: %v", err)
	}
}

// Attempts that may have been made are taken for made: one more, and the next one hours later.
func TestLostAttempts(t *testing.T) {
	t.Parallel()
	i := newIssuing(t)
	if err := i.issue(t.Context()); err != nil {
		t.Fatal(err)
	}
	i.ca.MutateAuthz(func(map[string]any) { i.dns.SetMode(0, "servfail") }) // the CA's resolver fails, our servers do not
	if err := os.WriteFile(i.file("names", "_validation-persist."+issuedName+".json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	i.Issuer = i.another()
	i.refuse("ca_disagrees")
	s := i.state()
	if len(s.Attempts) != 5 {
		t.Fatalf("%d attempts are noted, want those that may have been, and one", len(s.Attempts))
	}
	i.refuse("asked again after")
	i.ca.MutateAuthz(nil)
	i.dns.SetMode(0, "normal")
	validated := i.ca.Count("challenge")
	i.Issuer = i.another()
	i.refuse(s.Attempts[4].Add(6 * time.Hour).UTC().Format("2006-01-02T15:04"))
	if n := i.ca.Count("challenge"); n != validated {
		t.Errorf("the CA was asked %d times more", n-validated)
	}
}

// The account is precious: an error names the file and what to do, it is left as it is, and no other
// account is made.
func TestDamagedAccount(t *testing.T) {
	t.Parallel()
	i := newIssuing(t)
	file := i.file("account.json")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	accounts := i.ca.Count("new-account")
	i.damaged(t, "account.json", string(text), damages(string(text)), func(t *testing.T, what string, iss *acmepersist.Issuer, _ *observer.ObservedLogs) {
		before, _ := os.ReadFile(file)
		i.Issuer = iss
		todo := "restore it from a backup"
		if what == "no permission" {
			todo = "run this as the user that Caddy runs as"
		}
		i.refuse("account.json", todo)
		if _, err := iss.ExportAccount(t.Context()); err == nil || !strings.Contains(err.Error(), "account.json") {
			t.Errorf("exporting it: %v", err)
		}
		if after, _ := os.ReadFile(file); !bytes.Equal(before, after) {
			t.Errorf("the file was changed from %q to %q", before, after)
		}
	})
	if n := i.ca.Count("new-account"); n != accounts {
		t.Errorf("%d accounts were asked for", n-accounts)
	}
	i.Issuer = i.another()
	if err := i.issue(t.Context()); err != nil {
		t.Errorf("after it was restored: %v", err)
	}
}
