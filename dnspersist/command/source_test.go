package command

import (
	"strings"
	"testing"
)

func TestNamesMeant(t *testing.T) {
	for arg, want := range map[string]string{
		"https://a.example/": "give a.example", "a.example:443": "give a.example", "http://a.example:80/x?y": "give a.example", "a.example/": "give a.example",
	} {
		_, err := (&run{args: []string{arg}}).names()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", arg, err)
		}
	}
	if names, err := (&run{args: []string{"_validation-persist.a.example"}}).names(); err != nil || names[0] != "a.example" {
		t.Errorf("%q, %v", names, err)
	}
}

func TestChoices(t *testing.T) {
	cmd := recordsCommand()
	if err := cmd.Flags().Parse([]string{"--format", "zone", "--only", "TXT"}); err != nil {
		t.Fatal(err)
	}
	if err := (&run{cmd: cmd}).checkChoices(); err != nil {
		t.Error(err)
	}
	if err := cmd.Flags().Parse([]string{"--dns", "maybe", "--only", "A"}); err != nil {
		t.Fatal(err)
	}
	err := (&run{cmd: cmd}).checkChoices()
	if err == nil || err.Error() != "--dns maybe is unknown: use auto, always or never\n--only A is unknown: use TXT or CNAME" {
		t.Error(err)
	}
}
