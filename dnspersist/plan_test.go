package dnspersist

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// openApps opens the apps of a configuration that no server runs.
func openApps(t *testing.T, apps string) *Offline {
	t.Helper()
	dir, err := json.Marshal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	off, err := Open([]byte(`{"storage":{"module":"file_system","root":` + string(dir) + `},"apps":` + apps + `}`))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := off.Close(); err != nil {
			t.Error(err)
		}
	})
	return off
}

// selfSigned is a certificate for names, and its key.
func selfSigned(t *testing.T, names ...string) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: names, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

// asJSON is v in a configuration.
func asJSON(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// The plan of a configuration that no server runs is that of one that Caddy has loaded.
func TestPlans(t *testing.T) {
	const (
		ours = `"issuers":[{"module":"dns_persist"}]`
		all  = `{"automation":{"policies":[{` + ours + `}]}}`
	)
	site := func(hosts, more string) string {
		return `{"servers":{"a":{"listen":[":8443"],"routes":[{"match":[{"host":[` + hosts + `]}]}]` + more + `}}}`
	}
	write := func(file string, data ...[]byte) string {
		path := filepath.Join(t.TempDir(), file)
		if err := os.WriteFile(path, slices.Concat(data...), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	loaded := func(names ...string) string {
		cert, key := selfSigned(t, names...)
		return asJSON(t, map[string]string{"certificate": write("cert.pem", cert), "key": write("key.pem", key)})
	}
	inline := func(names ...string) string {
		cert, key := selfSigned(t, names...)
		return asJSON(t, map[string]string{"certificate": string(cert), "key": string(key)})
	}
	folder := func(names ...string) string {
		cert, key := selfSigned(t, names...)
		return asJSON(t, filepath.Dir(write("both.pem", key, cert)))
	}
	for name, test := range map[string]struct {
		tls, http string
		want      []string
	}{
		"names beyond ASCII": {
			`{"certificates":{"automate":["bücher.example"]},"automation":{"policies":[
				{"subjects":["münchen.example","bücher.example","*.straße.example"],` + ours + `}]}}`,
			site(`"münchen.example","a.straße.example","ÖL.example"`, ""),
			[]string{"a.xn--strae-oqa.example", "xn--bcher-kva.example", "xn--mnchen-3ya.example"},
		},
		"names for no public CA": {
			`{"certificates":{"automate":["x.internal","localhost"]},"automation":{"policies":[
				{"subjects":["named.internal","*.local","a.test"],` + ours + `},{` + ours + `}]}}`,
			site(`"good.example","localhost","app.internal","named.internal","box.local","a.test","*.test","b.test","host.tail.ts.net","*.*.example","box.home.arpa"`, ""),
			[]string{"good.example", "named.internal", "x.internal"}, // *.test serves a.test
		},
		"a wildcard behind what is named": {
			`{"automation":{"policies":[{"subjects":["a.test"],` + ours + `},{` + ours + `}]}}`,
			site(`"a.test","*.test","b.test","good.example"`, ""),
			[]string{"good.example"}, // the wildcard covers a.test
		},
		"named names for no public CA": {
			`{"automation":{"policies":[{"subjects":["a.ts.net","localhost"],` + ours + `}]}}`,
			site(`"localhost","a.ts.net","b.ts.net","b.localhost"`, ""),
			[]string{"a.ts.net", "localhost"},
		},
		"loaded certificates": {
			`{"certificates":{"load_files":[` + loaded("file.example", "*.wild.example") + `],"load_folders":[` + folder("folder.example") + `],"load_pem":[` + inline("pem.example") + `]},"automation":{"policies":[{` + ours + `}]}}`,
			site(`"file.example","a.wild.example","folder.example","pem.example","other.example","wild.example"`, ""),
			[]string{"other.example", "wild.example"},
		},
		"loaded certificates that do not count": {
			`{"certificates":{"load_files":[` + loaded("file.example") + `]},"automation":{"policies":[{` + ours + `}]}}`,
			site(`"file.example","other.example"`, `,"automatic_https":{"ignore_loaded_certificates":true}`),
			[]string{"file.example", "other.example"},
		},
		"names beyond ASCII for all": {all, site(`"München.EXAMPLE","*.München.example","A.münchen.example"`, ""), []string{"*.xn--mnchen-3ya.example", "xn--mnchen-3ya.example"}},
	} {
		t.Run(name, func(t *testing.T) {
			apps := `{"tls":` + test.tls + `,"http":` + test.http + `}`
			if got := openApps(t, apps).Managed(); !slices.Equal(got, test.want) {
				t.Errorf("without a server: %q, want %q", got, test.want)
			}
			a, _ := provisionedApp(t, apps)
			if got := a.operator().Managed(); !slices.Equal(got, test.want) {
				t.Errorf("loaded: %q, want %q", got, test.want)
			}
		})
	}
}

// A name is found however it is written.
func TestNamesBeyondASCII(t *testing.T) {
	off := openApps(t, `{"tls":{"automation":{"policies":[{"subjects":["münchen.example"],"issuers":[{"module":"dns_persist"}]}]}}}`)
	for _, name := range []string{"münchen.example", "MÜNCHEN.example", "xn--mnchen-3ya.example"} {
		if _, err := off.For("", name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Names that can never be validated are left out of all, and nothing fails for the others.
func TestUnsupportedNamesAreLeftOut(t *testing.T) {
	long := strings.Repeat(strings.Repeat("a", 58)+".", 4) + "example"
	apps := `{"tls":{"automation":{"policies":[
		{"subjects":["good.example","*.*.bad.example","` + long + `"],"issuers":[{"module":"dns_persist"}]},
		{"subjects":["*.exact.example","exact.example"],"issuers":[{"module":"dns_persist","policy":"exact"}]}]}},
		"http":{"servers":{"a":{"listen":[":8443"],"routes":[{"match":[{"host":["good.example","*.*.bad.example","` + long + `","*.exact.example","exact.example"]}]}]}}}}`
	off := openApps(t, apps)
	if all := off.Unsupported(); len(all) != 3 {
		t.Errorf("left out are %v, want three", all)
	}
	for _, name := range []string{"*.*.bad.example", long} {
		if _, _, err := off.Checks(t.Context(), "", []string{"good.example", name}); err == nil {
			t.Errorf("%s was given and is left out without a word", name)
		}
	}
}
