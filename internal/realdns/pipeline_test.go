//go:build unix

package realdns

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// buildCaddy builds cmd/caddy, as a user has it.
func buildCaddy(t *testing.T) string {
	t.Helper()
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(bin, "caddy"), "../../cmd/caddy")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
}

// The pipeline of examples/ publishes at a BIND with a key that may add TXT records at
// validation names only, beside a record of somebody else. Its second run changes nothing.
func TestPipeline(t *testing.T) {
	Program(t, "nsupdate", "bind9-dnsutils")
	sh := Program(t, "sh", "dash")
	const zone = "example.test"
	names := []string{"www.example.test", "*.www.example.test", "blog.example.test"}
	var policy strings.Builder
	for _, n := range names {
		fmt.Fprintf(&policy, "grant %s name %s.%s. TXT; ", Key, record.Label, record.Base(n))
	}
	foreign := `other.example; accounturi=https://other.example/1`
	bind := BIND(t, Zone{Origin: zone, Policy: policy.String(), Text: fmt.Sprintf(
		"@ NS ns1\nns1 A 127.0.0.1\n_validation-persist.www 300 TXT %s\n", record.Quote(foreign))})
	ca, err := lab.NewCA(lab.CAConfig{Resolver: bind.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	defer ca.Close()

	dir := t.TempDir()
	file := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	// where Caddy runs
	home := acmepersist.New(acmepersist.Config{CA: ca.Directory(), Storage: fileStorage(filepath.Join(dir, "server")), Transport: ca.HTTPClient().Transport})
	account, err := home.Account(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	exported, err := home.ExportAccount(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	caddyfile := file("Caddyfile", fmt.Sprintf(`{
	admin off
	storage file_system %q
}
%s {
	dns_persist {
		dir %s
		trusted_roots %q
		resolvers %s
		check recursive
	}
}
`, filepath.Join(dir, "pipeline"), strings.Join(names, ", "), ca.Directory(), ca.RootsFile(), bind.Addr()))
	key := file("update.key", fmt.Sprintf("key %q { algorithm hmac-sha256; secret %q; };\n", Key, KeySecret))

	script, err := filepath.Abs("../../examples/pipeline/records.sh")
	if err != nil {
		t.Fatal(err)
	}
	bin := buildCaddy(t)
	run := func() string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, sh, script)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "HOME="+dir, "CADDYFILE="+caddyfile,
			"ACCOUNT_FILE="+file("account.json", string(exported)), "NSUPDATE_KEY="+key,
			fmt.Sprintf("DNS_SERVER=127.0.0.1 %d", bind.Port), "TIMEOUT=30s")
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			t.Fatalf("the pipeline: %v\n%s", err, out.String())
		}
		if strings.Contains(out.String(), "PRIVATE KEY") {
			t.Error("the pipeline shows the account's key")
		}
		return out.String()
	}
	serial := func() uint32 {
		t.Helper()
		answer, err := bind.Query(zone, dns.TypeSOA)
		if err != nil {
			t.Fatal(err)
		}
		return answer.Answer[0].(*dns.SOA).Serial
	}

	before := serial()
	run()
	if serial() == before {
		t.Error("the first run has changed nothing")
	}
	wild := record.Value{IssuerDomainName: lab.DefaultIssuerName, AccountURI: account.URL, Wildcard: true}.String()
	plain := record.Value{IssuerDomainName: lab.DefaultIssuerName, AccountURI: account.URL}.String()
	www, ttl := bind.Values("_validation-persist.www.example.test")
	if want := []string{foreign, wild}; !slices.Equal(www, want) || ttl != 300 {
		t.Errorf("www has %q with TTL %d, want %q with 300", www, ttl, want)
	}
	if blog, _ := bind.Values("_validation-persist.blog.example.test"); !slices.Equal(blog, []string{plain}) {
		t.Errorf("blog has %q, want %q", blog, plain)
	}

	after := serial()
	out := run()
	if now := serial(); now != after {
		t.Errorf("the second run has changed the zone: serial %d, was %d\n%s", now, after, out)
	}
	if n := len(ca.Accounts()); n != 1 {
		t.Errorf("%d accounts at the CA", n)
	}
	if n := len(ca.Orders()); n != 0 {
		t.Errorf("%d orders", n)
	}
}

func fileStorage(path string) certmagic.Storage { return &certmagic.FileStorage{Path: path} }
