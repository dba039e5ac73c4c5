package rollover

import (
	"bytes"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

func (w *world) importing(data []byte, change ...func(*acmepersist.Config)) (acmepersist.ImportResult, error) {
	return w.issuer(change...).ImportAccount(w.t.Context(), data)
}

func (w *world) mustImport(data []byte, outcome string, change ...func(*acmepersist.Config)) acmepersist.ImportResult {
	w.t.Helper()
	r, err := w.importing(data, change...)
	if err != nil {
		w.t.Fatal(err)
	}
	if r.Outcome != outcome {
		w.t.Errorf("the import says %q, want %q", r.Outcome, outcome)
	}
	return r
}

// put writes an exported account to storage as it is.
func (w *world) put(data []byte) {
	w.t.Helper()
	storage := &certmagic.FileStorage{Path: w.dir}
	if err := storage.Store(w.t.Context(), path.Join("dns_persist", filepath.Base(w.folder()), "account.json"), data); err != nil {
		w.t.Fatal(err)
	}
}

// assertFiles checks what is in our folder beside locks.
func (w *world) assertFiles(n int) {
	w.t.Helper()
	if files, _ := filepath.Glob(filepath.Join(w.folder(), "*")); len(files) != n {
		w.t.Errorf("files in storage: %v, want %d", files, n)
	}
}

// An account moves to another storage with all that is known of it.
func TestExportAndImport(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "02")
	_, err := w.issuer().ExportAccount(t.Context())
	refused(t, err, "no ACME account", "account import")
	if _, found, err := w.issuer().KnownAccount(t.Context()); found || err != nil {
		t.Errorf("known before there is one: %v, %v", found, err)
	}
	if len(w.ca.Requests()) != 0 {
		t.Error("the CA was asked")
	}
	account := w.bind()
	w.roll(w.issuer())
	data := w.export()
	if !bytes.Contains(data, []byte(`"format": "dns-persist-account-v1"`)) {
		t.Errorf("the export has no format")
	}
	other := w.elsewhere()
	r := other.mustImport(data, acmepersist.ImportNew)
	if r.URL != account || r.StorageKey == "" || len(r.EarlierThumbprints) != 1 {
		t.Errorf("imported %+v", r)
	}
	other.assertGood(account)
	if again := other.export(); !bytes.Equal(again, data) {
		t.Error("an export of the import differs")
	}
	before, _ := os.Stat(other.file())
	other.mustImport(data, acmepersist.ImportAlready)
	if after, _ := os.Stat(other.file()); !os.SameFile(before, after) || !after.ModTime().Equal(before.ModTime()) {
		t.Error("the file was written again")
	}
	s := other.site(other.issuer(), "moved")
	s.publish(s.value(account, true))
	s.obtain(t.Context())

	known, found, err := other.issuer().KnownAccount(t.Context())
	if err != nil || !found || known.URL != account || known.Status != "" || known.RolledAt.IsZero() {
		t.Errorf("known %+v, %v, %v", known, found, err)
	}
}

// Of two keys of one account the latest counts, whatever is imported where.
func TestImportOlderAndNewer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "01")
	account := w.bind()
	first := w.export()
	other := w.elsewhere()
	other.mustImport(first, acmepersist.ImportNew)
	running := other.issuer(func(c *acmepersist.Config) { c.ReloadAccount = time.Hour })
	s := other.site(running, "behind")
	s.publish(s.value(account, false))
	s.obtain(t.Context())

	w.roll(w.issuer())
	_, err := w.importing(first)
	refused(t, err, "former key", account, "nothing was changed")
	_, err = w.elsewhere().importing(first)
	refused(t, err, account, "may have been changed")
	second := w.export()
	other.mustImport(second, acmepersist.ImportNewer)
	other.assertGood(account)
	s.renew(t.Context()) // the running process notices

	// keys that know nothing of each other: the CA knows which is good
	w.roll(w.issuer())
	third := change(t, w.export(), func(m map[string]any) { delete(m, "earlier_thumbprints") })
	r := other.mustImport(third, acmepersist.ImportNewer)
	if len(r.EarlierThumbprints) != 2 {
		t.Errorf("the earlier thumbprints are %v", r.EarlierThumbprints)
	}
	other.assertGood(account)
}

// A backup that was taken while a rollover was pending is good whatever became of it.
func TestImportOfPendingRollover(t *testing.T) {
	t.Parallel()
	for _, atCA := range []bool{true, false} {
		w := newWorld(t, "01")
		account := w.bind()
		before := w.export()
		w.cutShort(atCA)
		data := w.export()
		if !bytes.Contains(data, []byte(`"next_key"`)) {
			t.Fatal("the export lacks the next key")
		}
		other := w.elsewhere()
		other.mustImport(data, acmepersist.ImportNew)
		if atCA != (other.text("next_key") == "") {
			t.Errorf("at the CA %v: the import has a next key: %v", atCA, other.text("next_key") != "")
		}
		// the backup of before, into the storage that has it pending
		third := w.elsewhere()
		third.put(data)
		if atCA {
			_, err := third.importing(before)
			refused(t, err, "former key")
		} else {
			third.mustImport(before, acmepersist.ImportAlready)
		}
		other.roll(other.issuer())
		other.assertGood(account)
	}
}

func TestImportRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "01")
	account := w.bind()
	data := w.export()
	with := func(name string, value any) []byte {
		return change(t, data, func(m map[string]any) { m[name] = value })
	}
	foreign := newWorld(t, "01")
	foreign.bind()
	for name, tt := range map[string]struct {
		data []byte
		want []string
	}{
		"not JSON":          {[]byte(w.text("key")), []string{"not an exported account"}},
		"no format":         {[]byte("{}"), []string{"not an exported account"}},
		"a later format":    {with("format", "dns-persist-account-v2"), []string{"dns-persist-account-v2", "reads"}},
		"another CA":        {foreign.export(), []string{foreign.ca.Directory(), w.ca.Directory()}},
		"no key":            {with("key", ""), []string{account, "not a PEM-encoded private key"}},
		"a damaged key":     {with("key", strings.ReplaceAll(w.text("key"), "M", "N")), []string{account, "not a PEM-encoded private key"}},
		"another key":       {with("key", foreign.text("key")), []string{account, "do not belong together"}},
		"a wrong member":    {with("bound_at", w.text("key")), []string{"damaged"}},
		"key of wrong type": {with("key", []string{w.text("key")}), []string{"damaged"}},
		"no URL":            {with("url", ""), []string{"not an account URL"}},
		"another URL":       {with("url", account+"0"), []string{account + "0", "the CA names the account of this key"}},
		"a damaged next":    {with("next_key", "x"), []string{"next key"}},
	} {
		other := w.elsewhere()
		_, err := other.importing(tt.data)
		t.Run(name, func(t *testing.T) { refused(t, err, tt.want...) })
		other.assertFiles(0)
	}
	_, err := w.elsewhere().importing(data, func(c *acmepersist.Config) { c.AccountURL = account + "9" })
	refused(t, err, "account_url", account, account+"9")
	_, err = w.elsewhere().importing(data, func(c *acmepersist.Config) { c.AccountKeyPEM = foreign.text("key") })
	refused(t, err, "account_key pins", account)
	if n := len(w.ca.Accounts()); n != 1 {
		t.Errorf("%d accounts", n)
	}
}

// Another account is never overwritten; account_url chooses.
func TestImportBesideAnother(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "01")
	account := w.bind()
	data := w.export()
	other := w.elsewhere()
	second := other.bind()
	before, _ := os.ReadFile(other.file())
	_, err := other.importing(data)
	refused(t, err, account, second, "account_url", "remove")
	byURL := func(c *acmepersist.Config) { c.AccountURL = account }
	other.mustImport(data, acmepersist.ImportNew, byURL)
	other.mustImport(data, acmepersist.ImportAlready, byURL)
	if after, _ := os.ReadFile(other.file()); !bytes.Equal(before, after) {
		t.Error("the other account's file has changed")
	}
	for _, tt := range []struct {
		want   string
		change func(*acmepersist.Config)
	}{{account, byURL}, {second, func(*acmepersist.Config) {}}} {
		if r := other.roll(other.issuer(tt.change)); r.URL != tt.want {
			t.Errorf("rolled %+v, want %s", r, tt.want)
		}
		if a, err := other.issuer(tt.change).Account(t.Context()); err != nil || a.URL != tt.want || a.Thumbprint != w.ca.Thumbprint(tt.want) {
			t.Errorf("bound %+v, %v", a, err)
		}
	}
}

// A pinned key's account is imported to its own file; a registration that was cut short
// gives way, with its key kept.
func TestImportToOtherPlaces(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "01")
	account := w.bind()
	data := w.export()
	pinned := func(c *acmepersist.Config) { c.AccountKeyPEM = w.text("key") }
	other := w.elsewhere()
	other.mustImport(data, acmepersist.ImportNew, pinned)
	other.mustImport(data, acmepersist.ImportAlready, pinned)
	other.mustImport(data, acmepersist.ImportNew) // without the pin the file is another
	other.mustImport(data, acmepersist.ImportAlready)
	other.assertGood(account)

	third := w.elsewhere()
	third.ca.Inject(lab.Fault{Step: "new-account", Status: 400, Type: acme.ProblemTypeNamespace + "invalidContact", Detail: "no"})
	if _, err := third.issuer().Account(t.Context()); err == nil {
		t.Fatal("registered")
	}
	_, err := third.issuer().ExportAccount(t.Context())
	refused(t, err, "cut short")
	begun := third.text("thumbprint")
	third.mustImport(data, acmepersist.ImportNew)
	third.assertGood(account)
	if members(t, filepath.Join(third.folder(), "lost", begun+".json")) == nil {
		t.Error("the key of the registration is gone")
	}
}
