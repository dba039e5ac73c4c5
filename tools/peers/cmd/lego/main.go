// Command lego is a contestant of `go run ./cmd/bench peers`: lego's library. Its module is one
// of its own, and bench builds it with -mod=mod, because not all that the module lego names can
// be had everywhere; what is imported here can.
package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/go-acme/lego/v5/acme"
	"github.com/go-acme/lego/v5/certcrypto"
	"github.com/go-acme/lego/v5/certificate"
	"github.com/go-acme/lego/v5/challenge/dnspersist01"
	"github.com/go-acme/lego/v5/lego"
	"github.com/go-acme/lego/v5/log"
	"github.com/go-acme/lego/v5/registration"
)

// workers is how many certificates are asked for at a time, as in the other contestants.
const workers = 8

type options struct {
	directory, control, resolver, issuer, names string
}

func main() {
	var o options
	version := flag.Bool("version", false, "print lego's version")
	flag.StringVar(&o.directory, "directory", "", "the CA's directory; LEGO_CA_CERTIFICATES has its roots")
	flag.StringVar(&o.control, "control", "", "the URL of the lab's process")
	flag.StringVar(&o.resolver, "resolver", "", "the recursive name server")
	flag.StringVar(&o.issuer, "issuer", "", "the CA's issuer domain name")
	flag.StringVar(&o.names, "names", "", "the names, with commas between them")
	flag.Parse()
	if *version {
		fmt.Println(legoVersion())
		return
	}
	log.SetDefault(slog.New(slog.DiscardHandler))
	if err := run(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func legoVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == "github.com/go-acme/lego/v5" {
				return m.Version
			}
		}
	}
	return "unknown"
}

// user implements registration.User.
type user struct {
	key     crypto.Signer
	account *acme.ExtendedAccount
}

func (u *user) GetEmail() string                       { return "" }
func (u *user) GetRegistration() *acme.ExtendedAccount { return u.account }
func (u *user) GetPrivateKey() crypto.Signer           { return u.key }

// run gets a certificate for each name, with lego's defaults but for the question to the
// authoritative servers, which it asks at port 53 only.
func run(ctx context.Context, o options) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	u := &user{key: key}
	config := lego.NewConfig(u)
	config.CADirURL = o.directory
	client, err := lego.NewClient(config)
	if err != nil {
		return err
	}
	if u.account, err = client.Registration.Register(ctx, registration.RegisterOptions{TermsOfServiceAgreed: true}); err != nil {
		return err
	}
	dnspersist01.SetDefaultClient(dnspersist01.NewClient(&dnspersist01.Options{RecursiveNameservers: []string{o.resolver}}))
	if err := client.Challenge.SetDNSPersist01(dnspersist01.DisableAuthoritativeNssPropagationRequirement()); err != nil {
		return err
	}
	names := strings.Split(o.names, ",")
	if err := publish(ctx, o, names, u.account.Location); err != nil {
		return err
	}

	todo := make(chan string, len(names))
	for _, name := range names {
		todo <- name
	}
	close(todo)
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			for name := range todo {
				request := certificate.ObtainRequest{Domains: []string{name}, KeyType: certcrypto.EC256, Bundle: true}
				if _, err := client.Certificate.Obtain(ctx, request); err != nil {
					errs[i] = fmt.Errorf("%s: %w", name, err)
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// publish has the lab publish the records.
func publish(ctx context.Context, o options, names []string, account string) error {
	body, err := json.Marshal(map[string]any{"names": names, "value": o.issuer + "; accounturi=" + account})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, o.control+"/records", bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("publishing records: %s", resp.Status)
	}
	return nil
}
