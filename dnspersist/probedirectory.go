package dnspersist

import (
	"context"
	"fmt"
	"os"

	"github.com/caddyserver/certmagic"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
)

// ProbeDirectory tells what the directory of any CA says of the challenge, without a
// configuration. Without root files the system's roots are trusted.
func ProbeDirectory(ctx context.Context, directory string, rootFiles []string) (acmepersist.Probe, error) {
	if err := checkDirectoryURL(directory); err != nil {
		return acmepersist.Probe{}, err
	}
	transport := acmepersist.NewTransport()
	defer transport.CloseIdleConnections()
	if err := trust(transport, rootFiles); err != nil {
		return acmepersist.Probe{}, err
	}
	// nothing is known of the CA, and nothing is to be kept
	dir, err := os.MkdirTemp("", "dns-persist-probe")
	if err != nil {
		return acmepersist.Probe{}, fmt.Errorf("probing %s: %w", directory, err)
	}
	defer os.RemoveAll(dir)
	return acmepersist.New(acmepersist.Config{
		CA: directory, Transport: transport, Storage: &certmagic.FileStorage{Path: dir},
		UserAgent: "caddy-dnspersist " + certmagic.UserAgent,
	}).Probe(ctx)
}
