package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// playground takes commands, typed and through the control socket, until somebody has had enough.
func (d *demo) playground(ctx context.Context, in io.Reader) error {
	server, err := d.control(ctx)
	if err != nil {
		return err
	}
	defer server.Close()
	lines, end, err := d.lines(in)
	if err != nil {
		return err
	}
	defer end()
	d.greet()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.quit:
			return nil
		case line, ok := <-lines:
			if !ok {
				lines = nil // what was piped is at its end, and Caddy goes on
				continue
			}
			answer, err := d.command(ctx, line)
			switch {
			case err != nil:
				d.print("lab: " + folded("", "     ", err.Error()))
			case answer.isStory:
				d.say("%s", answer.text)
			case answer.text != "":
				d.print(answer.text)
			}
		}
	}
}

// greet shows what can be done.
func (d *demo) greet() {
	const command = "           go run ./cmd/"
	d.say("It is yours now, and Caddy goes on serving and renewing. Type help for the commands, here or in another terminal:\n"+
		command+"lab ctl help\n"+
		"Ask the running Caddy in another terminal, or type what is behind dns-persist here:\n"+
		command+"caddy dns-persist status --address %s\n"+
		command+"caddy dns-persist check --address %[1]s\n"+
		command+"caddy dns-persist records --address %[1]s\n"+
		"           curl http://%[1]s/dns_persist/names\n"+
		"Where several labs run, this one is meant by %s=%s. Type quit or press Ctrl-C to end.",
		d.admin, socketVariable, filepath.Join(d.dir, socket))
}

// lines are those that are typed. A terminal shows them below what happens meanwhile; end puts it back to
// what it was.
func (d *demo) lines(in io.Reader) (lines <-chan string, end func(), err error) {
	read := make(chan string)
	f, isFile := in.(*os.File)
	if !isFile || !term.IsTerminal(int(f.Fd())) {
		scanner := bufio.NewScanner(in)
		go func() {
			defer close(read)
			for scanner.Scan() {
				read <- scanner.Text()
			}
		}()
		return read, func() {}, nil
	}
	before, err := term.MakeRaw(int(f.Fd()))
	if err != nil {
		return nil, nil, fmt.Errorf("reading from the terminal: %w", err)
	}
	terminal := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{f, d.out}, "lab> ")
	terminal.AutoCompleteCallback = func(line string, pos int, key rune) (string, int, bool) {
		if key != '\t' {
			return "", 0, false
		}
		line = d.completed(line[:pos]) + line[pos:]
		return line, len(line), true
	}
	plain := d.out
	d.to(terminal)
	go func() {
		for {
			line, err := terminal.ReadLine()
			if err != nil { // Ctrl-C or Ctrl-D
				line = "quit"
			}
			read <- line
			if err != nil {
				return
			}
		}
	}()
	return read, func() {
		d.to(plain)
		_ = term.Restore(int(f.Fd()), before)
		fmt.Fprintln(plain)
	}, nil
}

// answer is what comes of a command: a part of the story, or what somebody asked for.
type answer struct {
	text    string
	isStory bool
	// status is the exit status of a command of `caddy dns-persist`.
	status int
}

// command obeys a line.
func (d *demo) command(ctx context.Context, line string) (answer, error) {
	d.commands.Lock() // one at a time, whoever gives them
	defer d.commands.Unlock()
	words := strings.Fields(line)
	if len(words) > 0 && (words[0] == "--help" || words[0] == "-h") {
		words[0] = "help"
	}
	if len(words) == 0 {
		return answer{}, nil
	}
	for _, v := range verbs() {
		if v.name == words[0] {
			if n := len(words) - 1; n < v.min || n > v.max {
				return answer{}, fmt.Errorf("it reads: %s %s", v.name, v.syntax)
			}
			text, err := v.run(d, words[1:])
			return answer{text: text, isStory: !v.isQuestion}, err
		}
	}
	cmd := &cobra.Command{Use: "dns-persist"}
	caddycmd.Commands()["dns-persist"].CobraFunc(cmd)
	if found, _, err := cmd.Find(words); err != nil || found == cmd {
		return answer{}, fmt.Errorf("there is no command %s: help lists them", words[0])
	}
	return d.ask(ctx, cmd, words)
}

// ask runs a command of `caddy dns-persist` on the Caddy of the lab.
func (d *demo) ask(ctx context.Context, cmd *cobra.Command, words []string) (answer, error) {
	for _, flag := range []string{"--wait", "--watch"} {
		if slices.Contains(words, flag) {
			return answer{}, fmt.Errorf("%s takes its time, give it a terminal of its own:\n    go run ./cmd/caddy dns-persist %s --address %s", flag, strings.Join(words, " "), d.admin)
		}
	}
	args := words[:1:1]
	for _, word := range words[1:] {
		name, value, err := d.recordOf(word)
		if err != nil {
			args = append(args, word)
			continue
		}
		args = append(args, name)
		if strings.HasSuffix(value, wildcardPolicy) {
			args = append(args, "*."+name)
		}
	}
	var out page
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetIn(strings.NewReader(""))
	cmd.SetArgs(append(args, "--address", d.admin))
	status := 0
	if err := cmd.ExecuteContext(ctx); err != nil { // it has reported what went wrong
		status = 1
		if err.Error() == "exiting with status 2" { // Caddy's error for it is not exported
			status = 2
		}
	}
	return answer{text: out.String(), status: status}, nil
}

// page is the output of a command, in lines that fit.
type page struct{ bytes.Buffer }

// Columns is what the commands ask for.
func (*page) Columns() int { return columns }
