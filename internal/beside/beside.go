// Package beside runs the tests of a package beside each other, each in a process of its own:
// for tests that wait most of the time, and that need a process for themselves, since Caddy's
// configuration is global.
package beside

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// aloneEnv is set in a process that has one test to run.
const aloneEnv = "DNS_PERSIST_TEST_ALONE"

// perCPU is how many tests are under way for each CPU: they wait most of the time.
const perCPU = 8

// passedOn are the flags of the testing package that mean the same to each of several
// processes. With any other one, such as those for profiles, all tests run in this process.
var passedOn = []string{
	"test.run", "test.skip", "test.v", "test.count", "test.timeout", "test.short", "test.parallel",
	"test.paniconexit0", "test.testlogfile", "test.failfast", "test.fullpath",
}

// Run is m.Run for a TestMain: it runs the tests, and returns the exit status.
func Run(m *testing.M) int {
	flag.Parse()
	separate := os.Getenv(aloneEnv) == "" && testing.CoverMode() == ""
	flag.Visit(func(f *flag.Flag) { separate = separate && slices.Contains(passedOn, f.Name) })
	if !separate {
		return m.Run()
	}
	top, below, _ := strings.Cut(value("test.run"), "/")
	names, err := list(top)
	if err != nil {
		fmt.Println(err)
		return 2
	}
	if len(names) < 2 {
		return m.Run()
	}
	if below != "" {
		below = "/" + below
	}
	if !all(names, below) {
		fmt.Println("FAIL")
		return 1
	}
	fmt.Println("PASS")
	return 0
}

func value(name string) string { return flag.Lookup(name).Value.String() }

// list returns the tests that a pattern matches.
func list(pattern string) ([]string, error) {
	if pattern == "" {
		pattern = "."
	}
	cmd := exec.Command(os.Args[0], "-test.list", pattern)
	cmd.Env, cmd.Stderr = append(os.Environ(), aloneEnv+"=1"), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("listing the tests: %w", err)
	}
	return regexp.MustCompile(`(?m)^(Test|Fuzz|Example)\w*$`).FindAllString(string(out), -1), nil
}

// all runs the tests and reports whether they pass.
func all(names []string, below string) bool {
	var deadline time.Time
	if limit, err := time.ParseDuration(value("test.timeout")); err == nil && limit > 0 {
		deadline = time.Now().Add(limit)
	}
	slots := make(chan struct{}, perCPU*runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	var mu sync.Mutex // of what is written, and ok
	ok := true
	for _, name := range names {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			out, err := alone(name, below, deadline)
			mu.Lock()
			defer mu.Unlock()
			os.Stdout.Write(out)
			if err != nil {
				ok = false
				fmt.Printf("the process of %s: %v\n", name, err)
			}
		})
	}
	wg.Wait()
	return ok
}

// alone runs one test, and returns what it wrote but the last line, which says PASS or FAIL
// once more.
func alone(name, below string, deadline time.Time) ([]byte, error) {
	args := append(slices.Clone(os.Args[1:]), "-test.run=^"+name+"$"+below, "-test.testlogfile=")
	if !deadline.IsZero() {
		args = append(args, "-test.timeout="+max(time.Until(deadline), time.Second).String())
	}
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), aloneEnv+"=1")
	out, err := cmd.CombinedOutput()
	for _, last := range []string{"PASS\n", "FAIL\n", "\x16"} {
		out = bytes.TrimSuffix(out, []byte(last))
	}
	return out, err
}
