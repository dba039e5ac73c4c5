package dnspersist

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"

	"github.com/caddyserver/caddy/v2"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
)

// newTransport makes the issuer's own connections to the CA, over the configured
// proxy and with the configured roots. The embedded issuer's cannot be reached.
func (iss *Issuer) newTransport(ctx caddy.Context) (*http.Transport, error) {
	transport := acmepersist.NewTransport()
	if len(iss.NetworkProxyRaw) > 0 {
		// loading a module clears its raw form, which the embedded issuer needs again
		raw := iss.NetworkProxyRaw
		mod, err := ctx.LoadModule(iss.ACMEIssuer, "NetworkProxyRaw")
		iss.NetworkProxyRaw = raw
		if err != nil {
			return nil, fmt.Errorf("loading network_proxy module: %w", err)
		}
		producer, ok := mod.(caddy.ProxyFuncProducer)
		if !ok {
			return nil, fmt.Errorf("network_proxy module %T makes no proxy function", mod)
		}
		transport.Proxy = producer.ProxyFunc()
	}
	return transport, trust(transport, iss.TrustedRootsPEMFiles)
}

// trust has the transport trust the roots of files, if there are any, and no others.
func trust(transport *http.Transport, files []string) error {
	if len(files) == 0 {
		return nil
	}
	pool := x509.NewCertPool()
	for _, file := range files {
		pem, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("loading trusted root '%s': %w", file, err)
		}
		if !pool.AppendCertsFromPEM(pem) {
			return fmt.Errorf("loading trusted root '%s': there is no PEM certificate in it", file)
		}
	}
	transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	return nil
}

// fingerprint identifies the configuration of the issuer, secrets included, without
// showing them.
func fingerprint(iss *Issuer) string {
	data, err := json.Marshal(iss)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:12])
}
