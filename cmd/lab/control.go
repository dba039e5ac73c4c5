package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	// folders is what the folders of labs are called, in the system's for temporary files, and socket
	// the control socket in them.
	folders = "dns-persist-lab-"
	socket  = "control.sock"
	// socketVariable names the control socket of the lab to command, where several run.
	socketVariable = "DNS_PERSIST_LAB"
	// longestCommand is more than any command takes.
	longestCommand = 4096
	// exitStatus is the header with the exit status of a command of `caddy dns-persist`.
	exitStatus = "Exit-Status"
)

// control takes commands at the control socket until it is closed.
func (d *demo) control(ctx context.Context) (io.Closer, error) {
	listener, err := net.Listen("unix", filepath.Join(d.dir, socket))
	if err != nil {
		return nil, fmt.Errorf("listening for `cmd/lab ctl`: %w", err)
	}
	server := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		line, err := io.ReadAll(io.LimitReader(r.Body, longestCommand))
		if err != nil {
			return
		}
		answer, err := d.command(ctx, string(line))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if answer.isStory {
			d.say("(ctl) %s", answer.text)
		}
		if answer.isStory {
			answer.text = folded("", "", answer.text)
		}
		w.Header().Set(exitStatus, strconv.Itoa(answer.status))
		fmt.Fprint(w, answer.text)
	})}
	go func() { _ = server.Serve(listener) }()
	return server, nil
}

// order has a lab that runs obey a command, and writes its answer.
func order(ctx context.Context, line string, out io.Writer) error {
	path, err := findSocket()
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://lab/", strings.NewReader(line))
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("no lab answers at %s: %w", path, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("reading the lab's answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(strings.TrimSpace(string(answer)))
	}
	if _, err := out.Write(answer); err != nil {
		return err
	}
	if status, err := strconv.Atoi(resp.Header.Get(exitStatus)); err == nil && status != 0 {
		return statusError(status)
	}
	return nil
}

// statusError is a command of `caddy dns-persist` that has ended with this exit status, and has said why.
type statusError int

func (s statusError) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// findSocket is the control socket of the lab that runs, or of the one that the environment names.
func findSocket() (string, error) {
	if path := os.Getenv(socketVariable); path != "" {
		return path, nil
	}
	all, err := filepath.Glob(filepath.Join(os.TempDir(), folders+"*", socket))
	if err != nil {
		return "", fmt.Errorf("looking for a lab: %w", err)
	}
	var alive []string
	for _, path := range all {
		// one that was killed has left its socket behind
		if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
			conn.Close()
			alive = append(alive, path)
		}
	}
	switch len(alive) {
	case 0:
		return "", errors.New("no lab takes commands: start one with `go run ./cmd/lab --play`, and wait until it says so")
	case 1:
		return alive[0], nil
	}
	return "", fmt.Errorf("several labs run: set %s to the control socket of the one that is meant:\n    %s", socketVariable, strings.Join(alive, "\n    "))
}
