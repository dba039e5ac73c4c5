package lab

import (
	"os"
	"testing"

	"github.com/dnspersist/caddy-dnspersist/internal/beside"
)

func TestMain(m *testing.M) { os.Exit(beside.Run(m)) }
