package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/filestorage" // the storage of the configuration

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

// operatorEnv makes this program a caddy: it names a file with the lab's servers.
const operatorEnv = "DNS_PERSIST_BENCH_CADDY"

// beCaddy runs `caddy` if this process was started for that.
func beCaddy() error {
	file := os.Getenv(operatorEnv)
	if file == "" {
		return nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var servers map[string]string
	if err := json.Unmarshal(data, &servers); err != nil {
		return err
	}
	tuning.Set(tuning.Values{Exchanger: lab.Redirected{Servers: servers}})
	caddycmd.Main()
	os.Exit(0)
	return nil
}

// operator measures `caddy dns-persist records` and `check` for many names in one zone, of
// which half have their record.
func operator(args []string, out, complaints io.Writer) error {
	flags := flag.NewFlagSet("operator", flag.ContinueOnError)
	names := flags.Int("names", 10000, "how many names the configuration manages")
	dns := flags.Bool("dns", true, "also measure what reads DNS, 500 questions a second to each server")
	delegate := flags.Bool("delegate", false, "delegate the names by CNAMEs to labels below a name of our own")
	if err := parse(flags, args, complaints); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench-operator")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	servers, err := lab.NewDNS(2)
	if err != nil {
		return err
	}
	defer servers.Close()
	servers.AddZone("example.test")
	ca, err := lab.NewCA(lab.CAConfig{Resolver: servers.Resolver()})
	if err != nil {
		return err
	}
	defer ca.Close()

	addrs := make(map[string]string)
	for i := range servers.Servers() {
		addrs[servers.Address(i+1)+":53"] = servers.RealAddr(i + 1)
	}
	data, err := json.Marshal(addrs)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "servers.json"), data, 0o600); err != nil {
		return err
	}
	var sites []string
	for i := range *names {
		sites = append(sites, fmt.Sprintf("site%05d.example.test", i))
	}
	data, err = json.Marshal(operatorConfig(filepath.Join(dir, "storage"), ca, servers, sites, *delegate))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "caddy.json"), data, 0o600); err != nil {
		return err
	}
	run := func(args ...string) (string, cost, error) { return callCaddy(dir, args...) }
	if _, _, err := run("account", "--register"); err != nil {
		return err
	}
	answer, _, err := run("account", "--json")
	if err != nil {
		return err
	}
	var account struct {
		Accounts []acmepersist.Account `json:"accounts"`
	}
	if err := json.Unmarshal([]byte(answer), &account); err != nil {
		return err
	}
	value := record.Value{IssuerDomainName: "pebble.letsencrypt.org", AccountURI: account.Accounts[0].URL}.String()
	for _, n := range sites[:len(sites)/2] {
		at := record.Label + "." + n
		if *delegate {
			target := record.DelegationLabel(n) + "." + delegated
			servers.SetRR(0, fmt.Sprintf("%s. 60 IN CNAME %s.", at, target))
			at = target
		}
		servers.SetTXT(0, at, value)
	}

	heading(out)
	what := "half of them with a record"
	if *delegate {
		what = "all delegated, half of them with a CNAME and a record at its target"
	}
	t := newTable(fmt.Sprintf("%d names in one configuration and one zone, %s", *names, what),
		"command", "time", "most memory, MiB", "DNS questions", "output, bytes")
	for _, args := range [][]string{
		{"records", "--format", "json"},
		{"records", "--format", "zone"},
		{"records", "--format", "route53"},
		{"records", "--format", "nsupdate"},
		{"check", "--format", "json"},
	} {
		if f := args[len(args)-1]; !*dns && (args[0] == "check" || f == "route53" || f == "nsupdate") {
			continue
		}
		before := len(servers.Queries())
		said, spent, err := run(args...)
		if err != nil {
			fmt.Fprintf(complaints, "%v\n", err)
		}
		t.row(strings.Join(args, " "), spent.time, spent.memory, len(servers.Queries())-before, len(said))
	}
	t.print(out)
	return nil
}

// delegated is below what names are delegated.
const delegated = "certs.example.test"

// operatorConfig is Caddy's JSON for names in one policy.
func operatorConfig(storage string, ca *lab.CA, servers *lab.DNS, names []string, delegate bool) map[string]any {
	dns := map[string]any{"resolvers": []string{servers.Resolver()}}
	if delegate {
		dns["delegate_to"] = delegated
	}
	return map[string]any{
		"admin":   map[string]any{"disabled": true},
		"storage": map[string]any{"module": "file_system", "root": storage},
		"apps": map[string]any{"tls": map[string]any{
			"certificates": map[string]any{"automate": names},
			"automation": map[string]any{"policies": []any{map[string]any{
				"issuers": []any{map[string]any{
					"module": "dns_persist", "ca": ca.Directory(), "trusted_roots_pem_files": []string{ca.RootsFile()},
					"dns": dns,
				}},
			}}},
		}},
	}
}

// cost is what a process has cost.
type cost struct {
	time   time.Duration
	memory float64 // MiB, 0 where the system does not tell
}

// callCaddy runs one command as a process of its own.
func callCaddy(dir string, args ...string) (string, cost, error) {
	self, err := os.Executable()
	if err != nil {
		return "", cost{}, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), fleetLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, self, append(append([]string{"dns-persist"}, args...), "--config", filepath.Join(dir, "caddy.json"))...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), operatorEnv+"="+filepath.Join(dir, "servers.json"))
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	began := time.Now()
	err = cmd.Run()
	spent := cost{time.Since(began), mostMemory(cmd.ProcessState)}
	if cmd.ProcessState.ExitCode() == 2 {
		err = nil // not all names are well, as it should be
	}
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, said.String())
	}
	return out.String(), spent, err
}
