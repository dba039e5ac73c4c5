package main

import (
	"os"
	"testing"

	"github.com/dnspersist/caddy-dnspersist/internal/beside"
)

// TestMain gives each test a process: they run Caddy.
func TestMain(m *testing.M) { os.Exit(beside.Run(m)) }
