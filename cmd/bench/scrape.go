package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"

	_ "github.com/caddyserver/caddy/v2/modules/metrics" // what is scraped

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

// ours begins the names of our metrics.
const ours = "caddy_dns_persist_"

// scrape measures /metrics of a real Caddy of which all names wait for their record, or have a certificate, and
// the memory of these.
func scrape(args []string, out, complaints io.Writer) error {
	flags := flag.NewFlagSet("scrape", flag.ContinueOnError)
	names := flags.Int("names", 10_000, "how many names wait")
	scrapes := flags.Int("scrapes", 20, "how often is scraped")
	served := flags.Bool("served", false, "each name has a certificate, and none waits")
	if err := parse(flags, args, complaints); err != nil {
		return err
	}
	s, err := newSite()
	if err != nil {
		return err
	}
	defer s.close()
	defer tuning.Set(tuning.Values{Exchanger: s.dns.Exchanger()})()
	if _, err := s.bind(); err != nil {
		return err
	}
	port, err := lab.FreePort()
	if err != nil {
		return err
	}
	admin := fmt.Sprintf("127.0.0.1:%d", port)
	all := make([]string, *names)
	for i := range all {
		all[i] = fmt.Sprintf("n%d.%s", i, fleetZone)
	}
	config, err := s.config(admin, all)
	if err != nil {
		return err
	}
	what, ready := "wait for their records", s.looksAt
	if *served {
		what, ready = "have a certificate", func(names int) bool {
			text, _ := get("http://" + admin + "/metrics")
			return strings.Contains(text, fmt.Sprintf(`phase="served",reason="",source="configuration"} %d`, names))
		}
		if err := s.store(all); err != nil {
			return err
		}
	}
	before := heapInUse()
	if err := caddy.Load(config, true); err != nil {
		return err
	}
	defer func() { _ = caddy.Stop() }()
	for deadline := time.Now().Add(fleetLimit); !ready(*names); time.Sleep(time.Second) {
		if time.Now().After(deadline) {
			return fmt.Errorf("not all names %s within %s", what, fleetLimit)
		}
	}
	time.Sleep(10 * time.Second) // nothing is under way by then
	waiting := heapInUse()
	heading(out)
	text, took, err := repeat("http://"+admin+"/metrics", *scrapes)
	if err != nil {
		return err
	}
	_, page, err := repeat("http://"+admin+"/dns_persist/names", *scrapes)
	if err != nil {
		return err
	}
	_, thousand, err := repeat("http://"+admin+"/dns_persist/names?limit=1000", *scrapes)
	if err != nil {
		return err
	}
	_, health, err := repeat("http://"+admin+"/dns_persist/health", *scrapes)
	if err != nil {
		return err
	}
	series := 0
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, ours) {
			series++
		}
	}
	t := newTable(fmt.Sprintf("A whole Caddy with %d names that %s", *names, what), "what", "measured")
	t.row("memory per name, bytes", (int64(waiting)-int64(before))/int64(*names))
	t.row("memory per name after the scrapes, bytes", (int64(heapInUse())-int64(before))/int64(*names))
	t.row("/metrics, the quickest", took[0])
	t.row("/metrics, the median", took[len(took)/2])
	t.row("/dns_persist/names, 100 of them, the median", page[len(page)/2])
	t.row("/dns_persist/names, 1,000 of them, the median", thousand[len(thousand)/2])
	t.row("/dns_persist/health, the median", health[len(health)/2])
	t.row("series of ours", series)
	t.row("octets of /metrics", len(text))
	t.print(out)
	return nil
}

// repeat gets a page again and again, and returns how long that took, sorted.
func repeat(url string, times int) (text string, took []time.Duration, err error) {
	for range times {
		began := time.Now()
		if text, err = get(url); err != nil {
			return "", nil, err
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return text, took, nil
}

// looksAt reports whether so many names were looked for.
func (s *site) looksAt(names int) bool {
	seen := make(map[string]bool)
	for _, q := range s.dns.Queries() {
		if strings.HasPrefix(q.Name, record.Label) {
			seen[q.Name] = true
		}
	}
	return len(seen) >= names
}

// store stores a certificate for each name, as CertMagic does.
func (s *site) store(names []string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	private, err := certmagic.PEMEncodePrivateKey(key)
	if err != nil {
		return err
	}
	storage, issuer, now := &certmagic.FileStorage{Path: s.storage()}, acmepersist.IssuerKey(s.ca.Directory()), time.Now()
	for i, name := range names {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 1)), DNSNames: []string{name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(90 * 24 * time.Hour),
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			return err
		}
		meta, err := json.Marshal(certmagic.CertificateResource{SANs: []string{name}})
		if err != nil {
			return err
		}
		for file, data := range map[string][]byte{
			certmagic.StorageKeys.SiteCert(issuer, name):       pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
			certmagic.StorageKeys.SitePrivateKey(issuer, name): private,
			certmagic.StorageKeys.SiteMeta(issuer, name):       meta,
		} {
			if err := storage.Store(context.Background(), file, data); err != nil {
				return err
			}
		}
	}
	return nil
}

func get(url string) (string, error) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", url, resp.Status)
	}
	return string(text), err
}
