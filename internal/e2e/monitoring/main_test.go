// Package monitoring tests examples/monitoring: a real Prometheus scrapes a real Caddy, evaluates
// the rules and answers the queries of the dashboard.
package monitoring

import (
	"testing"

	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
