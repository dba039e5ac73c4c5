package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// apartRun is the command with which this program starts the lab in a process of its own, so
// that what a contestant uses of the CPU is the contestant's alone. It reads what it is to be as
// JSON from its arguments, prints where it is as JSON, and ends with its standard input.
const apartRun = "lab-run"

// apartOptions is what a lab in a process of its own is like.
type apartOptions struct {
	// Zones are the zones of the name servers.
	Zones []string `json:"zones"`
	// Resolver is what the CA asks. Default: the lab's own name servers.
	Resolver string `json:"resolver,omitempty"`
}

// apart is a lab in a process of its own: the CA, two name servers and their resolver. Its
// fields can be handed on to further processes.
type apart struct {
	// Control is the URL where it is told what to do.
	Control string `json:"control"`
	// Directory is the CA's, Roots a file with what its endpoint is to be trusted by.
	Directory string `json:"directory"`
	Roots     string `json:"roots"`
	// IssuanceRoots are those of certificates, in PEM.
	IssuanceRoots []byte `json:"issuance_roots"`
	// Resolver is the recursive name server, Servers is where the others really are.
	Resolver string            `json:"resolver"`
	Servers  map[string]string `json:"servers"`

	cmd   *exec.Cmd
	stdin io.Closer
	// stderr is read when the process has ended.
	stderr bytes.Buffer
}

// published is TXT records: of all names, at their validation names, the same value.
type published struct {
	Names []string `json:"names"`
	Value string   `json:"value"`
}

// slowness is how a CA takes its time; see lab.CA.
type slowness struct {
	Validation time.Duration `json:"validation"`
	Finalize   time.Duration `json:"finalize"`
	RetryAfter string        `json:"retry_after"`
}

// tallies is what a lab has seen since it was started, or since Reset.
type tallies struct {
	// Issued is when the first certificate of each name was issued.
	Issued map[string]time.Time `json:"issued"`
	// Requests are those to the CA, by step; Orders the new orders that it took.
	Requests map[string]int `json:"requests"`
	Orders   int            `json:"orders"`
	// Failed are the failed validations, FirstFailure the CA's sentence about the first.
	Failed       int    `json:"failed"`
	FirstFailure string `json:"first_failure"`
	// Queries to the name servers, the CA's included.
	Queries int `json:"queries"`
	// CPU is what the CA and the name servers have used.
	CPU time.Duration `json:"cpu"`
}

// startApart starts a lab in a process of its own.
func startApart(o apartOptions) (*apart, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	options, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	a := &apart{cmd: exec.Command(self, apartRun, "--options", string(options))}
	a.cmd.Env = append(os.Environ(), selfEnv+"=1")
	a.cmd.Stderr = &a.stderr
	if a.stdin, err = a.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := a.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := a.cmd.Start(); err != nil {
		return nil, err
	}
	if err := json.NewDecoder(stdout).Decode(a); err != nil {
		a.close()
		return nil, fmt.Errorf("starting the lab in a process of its own: %w\n%s", err, a.stderr.Bytes())
	}
	return a, nil
}

// close ends the process.
func (a *apart) close() {
	a.stdin.Close()
	_ = a.cmd.Wait()
}

// transport trusts the CA's endpoint.
func (a *apart) transport() (*http.Transport, error) {
	pem, err := os.ReadFile(a.Roots)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	return t, nil
}

// bind registers an account in a folder that is a storage, and publishes records for it.
func (a *apart) bind(storage string, names []string) error {
	transport, err := a.transport()
	if err != nil {
		return err
	}
	defer transport.CloseIdleConnections()
	iss := acmepersist.New(acmepersist.Config{CA: a.Directory, Storage: &certmagic.FileStorage{Path: storage}, Transport: transport})
	account, err := iss.Account(context.Background())
	if err != nil {
		return fmt.Errorf("binding an account: %w", err)
	}
	return a.publish(names, record.Value{IssuerDomainName: lab.DefaultIssuerName, AccountURI: account.URL}.String())
}

// publish replaces the records of names by one value.
func (a *apart) publish(names []string, value string) error {
	return a.call("records", published{names, value}, nil)
}

// slow makes the CA slow from now on.
func (a *apart) slow(s slowness) error { return a.call("slow", s, nil) }

// reset begins to count anew.
func (a *apart) reset() error { return a.call("reset", nil, nil) }

// tallies returns what there was until now.
func (a *apart) tallies() (t tallies, err error) {
	return t, a.call("tallies", nil, &t)
}

// await waits until so many names have a certificate.
func (a *apart) await(names int, patience time.Duration) (t tallies, err error) {
	for deadline := time.Now().Add(patience); ; {
		// the process answers as soon as there are so many, or after a second
		if err := a.call(fmt.Sprintf("await?names=%d", names), nil, &t); err != nil {
			return t, err
		}
		if len(t.Issued) >= names {
			return t, nil
		}
		if time.Now().After(deadline) {
			return t, fmt.Errorf("%d of %d names have certificates after %s, %d validations have failed", len(t.Issued), names, patience, t.Failed)
		}
	}
}

func (a *apart) call(what string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	resp, err := http.Post(a.Control+"/"+what, "application/json", bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("the lab's process: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the lab's process: %s: %s", what, answer)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer, out)
}

// apartMain is the process.
func apartMain(args []string, out, complaints io.Writer) error {
	flags := flag.NewFlagSet(apartRun, flag.ContinueOnError)
	options := flags.String("options", "{}", "what the lab is like, as `JSON`")
	if err := parse(flags, args, complaints); err != nil {
		return err
	}
	var o apartOptions
	if err := json.Unmarshal([]byte(*options), &o); err != nil {
		return err
	}
	return serveApart(o, os.Stdin, out)
}

// host is the lab within its process.
type host struct {
	ca  *lab.CA
	dns *lab.DNS

	mu      sync.Mutex
	issued  map[string]time.Time
	came    chan struct{} // closed and replaced with every certificate
	since   time.Time     // of the last reset
	used    time.Duration // CPU until then
	queries int           // until then
}

// serveApart is a lab until its input ends.
func serveApart(o apartOptions, in io.Reader, out io.Writer) error {
	dns, err := lab.NewDNS(2)
	if err != nil {
		return err
	}
	defer dns.Close()
	for _, zone := range o.Zones {
		dns.AddZone(zone)
	}
	dns.SetPick("worst")
	resolver := o.Resolver
	if resolver == "" {
		resolver = dns.Resolver()
	}
	ca, err := lab.NewCA(lab.CAConfig{Resolver: resolver})
	if err != nil {
		return err
	}
	defer ca.Close()
	h := &host{ca: ca, dns: dns, issued: make(map[string]time.Time), came: make(chan struct{})}
	ca.OnEvent(h.event)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: h.mux(), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(listener) }()
	defer server.Close()
	where := &apart{
		Control: "http://" + listener.Addr().String(), Directory: ca.Directory(), Roots: ca.RootsFile(),
		IssuanceRoots: ca.IssuanceRootsPEM(), Resolver: dns.Resolver(), Servers: make(map[string]string),
	}
	for i := range dns.Servers() {
		where.Servers[dns.Address(i+1)+":53"] = dns.RealAddr(i + 1)
	}
	if err := json.NewEncoder(out).Encode(where); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, in)
	return err
}

// event notes when names got their certificates.
func (h *host) event(e lab.Event) {
	if e.Kind != "certificate" {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for name := range strings.FieldsSeq(e.Identifier) {
		if _, had := h.issued[name]; !had {
			h.issued[name] = e.Time
		}
	}
	close(h.came)
	h.came = make(chan struct{})
}

func (h *host) mux() *http.ServeMux {
	mux := http.NewServeMux()
	handle := func(what string, do func(*http.Request) (any, error)) {
		mux.HandleFunc("POST /"+what, func(w http.ResponseWriter, r *http.Request) {
			answer, err := do(r)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			_ = json.NewEncoder(w).Encode(answer)
		})
	}
	handle("records", func(r *http.Request) (any, error) {
		var p published
		if err := json.NewDecoder(r.Body).Decode(&p); err != nil {
			return nil, err
		}
		for _, name := range p.Names {
			h.dns.SetTXT(0, record.Label+"."+record.Base(name), p.Value)
		}
		return nil, nil
	})
	handle("slow", func(r *http.Request) (any, error) {
		var s slowness
		if err := json.NewDecoder(r.Body).Decode(&s); err != nil {
			return nil, err
		}
		h.ca.SetValidationDelay(s.Validation)
		h.ca.SetFinalizeDelay(s.Finalize)
		h.ca.SetRetryAfter(s.RetryAfter)
		return nil, nil
	})
	handle("reset", func(*http.Request) (any, error) {
		h.mu.Lock()
		defer h.mu.Unlock()
		clear(h.issued)
		h.since, h.used, h.queries = time.Now(), cpuTime(), len(h.dns.Queries())
		return nil, nil
	})
	handle("tallies", func(*http.Request) (any, error) { return h.tallies(), nil })
	handle("await", func(r *http.Request) (any, error) {
		var names int
		if _, err := fmt.Sscan(r.FormValue("names"), &names); err != nil || names < 1 {
			return nil, errors.New("await needs a number of names")
		}
		h.await(r.Context(), names)
		return h.tallies(), nil
	})
	return mux
}

// await waits until so many names have certificates, for a second at most.
func (h *host) await(ctx context.Context, names int) {
	enough := time.After(time.Second)
	for {
		h.mu.Lock()
		n, came := len(h.issued), h.came
		h.mu.Unlock()
		if n >= names {
			return
		}
		select {
		case <-came:
		case <-enough:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (h *host) tallies() tallies {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := tallies{Issued: maps.Clone(h.issued), Requests: make(map[string]int), Queries: len(h.dns.Queries()) - h.queries, CPU: cpuTime() - h.used}
	for _, r := range h.ca.Requests() {
		if !r.Time.Before(h.since) {
			t.Requests[r.Step]++
		}
	}
	for _, o := range h.ca.Orders() {
		if !o.Time.Before(h.since) {
			t.Orders++
		}
	}
	for _, f := range h.ca.FailedValidations() {
		if f.Time.Before(h.since) {
			continue
		}
		if t.Failed++; t.Failed == 1 {
			t.FirstFailure = f.Identifier + ": " + f.Detail
		}
	}
	return t
}
