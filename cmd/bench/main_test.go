package main

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestMain lets the test's binary be the processes that the program starts of itself.
func TestMain(m *testing.M) {
	if os.Getenv(selfEnv) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestWrongCommandLinesAreRefused(t *testing.T) {
	for _, line := range []string{
		"", "nothing", "record --names 1", "record x", "waiting --names 0", "waiting --names 5 --zones 6",
		"waiting --duration 1ms", "fleet --sites 3 --without 3", "fleet --runs 0",
		"site --runs 0", "site --validation 0s", "hostile --good 0", "hostile --after 0s",
		"peers --names 0", "peers --rounds 0", "peers --load -1", "peers --only nobody",
	} {
		if err := run(strings.Fields(line), io.Discard, io.Discard); err == nil {
			t.Errorf("%q: no error", line)
		}
	}
	if err := run([]string{"fleet", "--help"}, io.Discard, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("--help: %v", err)
	}
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	tab := newTable("Title", "what", "x")
	tab.row("µs", 1500*time.Nanosecond)
	tab.row("a number", 12.34)
	tab.print(&b)
	want := "Title\n\nwhat           x\n--------  ------\nµs        1.5 µs\na number    12.3\n\n"
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestQuantile(t *testing.T) {
	all := []time.Duration{3, 1, 2, 4}
	if quantile(all, 0) != 1 || quantile(all, 0.5) != 3 || quantile(all, 1) != 4 || quantile(nil, 1) != 0 {
		t.Errorf("quantiles of %v", all)
	}
}

func TestFirstMinuteInASmallWorld(t *testing.T) {
	var b bytes.Buffer
	err := run([]string{"waiting", "--names", "20", "--duration", "1s", "--later", "0"}, &b, io.Discard)
	if err != nil || !strings.Contains(b.String(), "memory per name") {
		t.Errorf("%v\n%s", err, b.String())
	}
}

func TestPublishedRecordsAreNoticed(t *testing.T) {
	for _, zones := range []int{1, 30} {
		synctest.Test(t, func(t *testing.T) {
			loads, noticed := newTable("", ""), newTable("", "")
			o := waitingOptions{names: 30, zones: zones, beside: 2, later: 2 * time.Minute}
			if err := moment(o, o.later, loads, noticed); err != nil {
				t.Fatal(err)
			}
			for _, row := range noticed.rows[1:] {
				if row[1] != row[2] {
					t.Errorf("%d zones: %s of %s names ready: %v", zones, row[2], row[1], row)
				}
			}
			if len(noticed.rows) != 4 || len(loads.rows) != 4 {
				t.Errorf("rows %v and %v", noticed.rows, loads.rows)
			}
		})
	}
}

func TestGoodNamesBesideHostileOnes(t *testing.T) {
	for _, where := range []bool{false, true} {
		c := crowd{kind: "60 KB of text", bad: 2, own: where}
		took, asked, err := c.run(hostileOptions{good: 2, after: 300 * time.Millisecond, settle: time.Millisecond, patience: 20 * time.Second})
		if err != nil || len(took) != 2 || asked == 0 {
			t.Errorf("own domains %v: %v, %d answers of hostile servers, %v", where, took, asked, err)
		}
	}
}

func TestOneSite(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a Caddy and a CA")
	}
	if took, err := runOneSite(20 * time.Millisecond); err != nil || took < 20*time.Millisecond {
		t.Errorf("served after %s: %v", took, err)
	}
}

func TestSmallFleet(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a Caddy and a CA")
	}
	r, err := runFleet(fleetOptions{sites: 6, without: 3})
	if err != nil {
		t.Fatal(err)
	}
	if r.Ops["store certificates"].Count != 9 || r.Last <= 0 || r.Requests["new-order"] < 3 {
		t.Errorf("%+v", r)
	}
}

func TestTwoNamesOfAllPeersThatNeedNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Caddys and CAs")
	}
	var b, complaints bytes.Buffer
	err := run(strings.Fields("peers --names 2 --rounds 1 --load 1 --only caddy"), &b, &complaints)
	if err != nil {
		t.Fatalf("%v\n%s", err, complaints.String())
	}
	for _, line := range []string{"loop                 0      2 ", "caddy                1      2 "} {
		if !strings.Contains(b.String(), "\n"+line) {
			t.Errorf("no line %q in\n%s", line, b.String())
		}
	}
}
