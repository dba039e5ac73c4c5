package mishaps

import (
	"testing"

	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
