package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
)

// profile begins to write profiles into a directory, unless that is empty.
func profile(dir string) (finish func() error, err error) {
	if dir == "" {
		return func() error { return nil }, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	cpu, err := os.Create(filepath.Join(dir, "cpu.pprof"))
	if err != nil {
		return nil, err
	}
	runtime.SetBlockProfileRate(10_000)
	runtime.SetMutexProfileFraction(5)
	if err := pprof.StartCPUProfile(cpu); err != nil {
		return nil, err
	}
	return func() error {
		pprof.StopCPUProfile()
		errs := []error{cpu.Close()}
		for _, kind := range []string{"block", "mutex", "heap", "goroutine"} {
			f, err := os.Create(filepath.Join(dir, kind+".pprof"))
			if err != nil {
				return err
			}
			errs = append(errs, pprof.Lookup(kind).WriteTo(f, 0), f.Close())
		}
		return errors.Join(errs...)
	}, nil
}

// withStorage makes a configuration use the storage that counts.
func withStorage(config []byte, root string) ([]byte, error) {
	var c map[string]any
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, err
	}
	c["storage"] = map[string]string{"module": "bench", "root": root}
	return json.Marshal(c)
}
