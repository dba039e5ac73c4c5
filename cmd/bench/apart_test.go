package main

import (
	"testing"
	"time"
)

func TestALabInAProcessOfItsOwn(t *testing.T) {
	a, err := startApart(apartOptions{Zones: []string{"example.test"}})
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	if err := a.bind(t.TempDir(), []string{"n0.example.test"}); err != nil {
		t.Fatal(err)
	}
	if counted, err := a.tallies(); err != nil || counted.Requests["new-account"] != 1 || counted.CPU <= 0 {
		t.Errorf("%+v, %v", counted, err)
	}
	if err := a.slow(slowness{Finalize: time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	if err := a.reset(); err != nil {
		t.Fatal(err)
	}
	if counted, err := a.await(1, time.Millisecond); err == nil || counted.Requests["new-account"] != 0 {
		t.Errorf("%+v, %v: a certificate without an order, or no reset", counted, err)
	}
}
