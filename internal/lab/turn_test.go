package lab

import (
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Pebble has one request at a time, reading ones included.
func TestOneRequestAtATime(t *testing.T) {
	ca, err := NewCA(CAConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer ca.Close()
	var inside, most, all atomic.Int32
	pebble := ca.pebble.handler
	ca.pebble.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n := inside.Add(1); n > most.Load() {
			most.Store(n)
		}
		defer inside.Add(-1)
		all.Add(1)
		time.Sleep(5 * time.Millisecond) // long enough for others to come in
		pebble.ServeHTTP(w, r)
	})
	client := ca.HTTPClient()
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			// the answers of most are errors, given by Pebble
			path := []string{"/dir", "/order-plz", "/my-order/1", "/authZ/1", "/chalZ/1", "/finalize-order/1"}[i%6]
			method := http.MethodPost
			if path == "/dir" {
				method = http.MethodGet
			}
			req, err := http.NewRequestWithContext(t.Context(), method, ca.url+path, nil)
			if err != nil {
				t.Error(err)
				return
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
		})
	}
	wg.Wait()
	if most.Load() != 1 || all.Load() != 24 {
		t.Errorf("Pebble had %d of %d requests at a time, want one of 24", most.Load(), all.Load())
	}
}
