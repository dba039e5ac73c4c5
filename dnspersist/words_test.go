package dnspersist

import (
	"reflect"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// good has arguments that each word takes.
var good = map[string]string{
	"dir": "https://ca.example/directory", "email": "ops@example.com", "profile": "shortlived", "timeout": "5m",
	"account_key": "{env.KEY}", "eab": "kid mac", "trusted_roots": "a.pem b.pem", "lifetime": "90d",
	"account_url": "https://ca.example/acct/1", "account_uri": "urn:acct:1", "on_account_lost": "fail",
	"resolvers": "192.0.2.1 dns.example:53", "allow_private_ns": "", "private_networks": "198.51.100.0/24 2001:db8::1", "check": "none", "propagation_timeout": "90s", "propagation_delay": "10s",
	"policy": "exact", "dialect": "hashed", "issuer_domain_name": "ca.example", "rate_limit": "20 10s", "max_parallel_orders": "16",
	"publish": "once", "dns_ttl": "5m", "persist_for": "400d", "allow_shadowing": "",
	"delegate_to": "certs.example.net", "dns_challenge_override_domain": "certs.example.net",
}

func unmarshalBlock(lines ...string) error {
	return newIssuer().UnmarshalCaddyfile(caddyfile.NewTestDispenser("dns_persist {\n\t" + strings.Join(lines, "\n\t") + "\n}"))
}

func wantLine(t *testing.T, err error, line string, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want %q", parts)
		return
	}
	for _, part := range append(parts, "at Testfile:"+line) {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("got the error %v, want %q in it", err, part)
		}
	}
}

// Every word is refused without arguments, with too many, empty ones, doubled, and with
// a block, and the error names the word and its line.
func TestEveryWord(t *testing.T) {
	for word, spec := range words {
		t.Run(word, func(t *testing.T) {
			args, ok := good[word]
			if !ok {
				t.Fatal("the test has no arguments for it")
			}
			if err := unmarshalBlock(word + " " + args); err != nil {
				t.Fatal(err)
			}
			if spec.syntax == "" {
				wantLine(t, unmarshalBlock(word+" more"), "2", word)
			} else {
				wantLine(t, unmarshalBlock(word), "2", word, spec.syntax)
				wantLine(t, unmarshalBlock(word+strings.Repeat(` ""`, spec.min)), "2", word, spec.syntax)
			}
			wantLine(t, unmarshalBlock(word+" "+args, word+" "+args), "3", word)
			wantLine(t, unmarshalBlock(word+" "+args+" {", "x", "}"), "2")
			if spec.max > 0 {
				wantLine(t, unmarshalBlock(word+" "+args+" more"), "2", word, spec.syntax)
			}
		})
	}
}

func TestEveryRefusedWord(t *testing.T) {
	for word, why := range refused {
		wantLine(t, unmarshalBlock(word), "2", word, why, "remove")
		wantLine(t, unmarshalBlock("check none", word+" x y"), "3", word, why)
	}
}

// A placeholder is left to Validate where the field is expanded, and refused where not.
func TestPlaceholders(t *testing.T) {
	expanded := map[string]bool{
		"dir": true, "email": true, "account_key": true, "account_url": true, "account_uri": true, "issuer_domain_name": true,
	}
	for word, spec := range words {
		if spec.max != 1 || word == "profile" { // a profile is any text
			continue
		}
		if err := unmarshalBlock(word + " {env.X}"); (err == nil) != expanded[word] {
			t.Errorf("%s {env.X}: got %v", word, err)
		}
	}
}

// Each word of the issuer in the global option is an error that shows the cert_issuer to write, and what
// it shows reads as what was meant.
func TestEveryWordInTheGlobalOption(t *testing.T) {
	blocks := map[string]string{
		"preferred_chains": "preferred_chains {\n\troot_common_name \"Root One\" `Root \"Two\"`\n}",
		"dns":              "dns",
	}
	for word := range words {
		blocks[word] = word + " " + good[word]
	}
	delete(blocks, "private_networks") // the app has it too
	for word, block := range blocks {
		err := new(App).UnmarshalCaddyfile(caddyfile.NewTestDispenser("dns_persist {\n" + block + "\n}"))
		wantLine(t, err, "1", "and not those of the issuer ("+word+"): for all sites write\n\n\tcert_issuer dns_persist {\n\t\t"+word)
		if err == nil || strings.Contains(err.Error(), hidden) {
			continue
		}
		_, shown, _ := strings.Cut(err.Error(), "\n\n\tcert_issuer ")
		shown, _, _ = strings.Cut(shown, "\n\nin its place")
		got, want := newIssuer(), newIssuer()
		got.UseGlobalDNS(Issuer{})
		want.UseGlobalDNS(Issuer{})
		if err := got.UnmarshalCaddyfile(caddyfile.NewTestDispenser(shown)); err != nil {
			t.Errorf("%s: %v in\n%s", word, err, shown)
		}
		if err := want.UnmarshalCaddyfile(caddyfile.NewTestDispenser("dns_persist {\n" + block + "\n}")); err != nil {
			t.Error(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: what is shown means something else:\n%s", word, shown)
		}
	}
}

// An option in the block around its own is an error that says where it belongs.
func TestOptionsOneBlockTooHigh(t *testing.T) {
	for option, block := range map[string]string{"max_waiting 3": "on_demand", "forget_after 24h": "on_demand", "per_name": "metrics"} {
		err := new(App).UnmarshalCaddyfile(caddyfile.NewTestDispenser("dns_persist {\n" + option + "\n}"))
		wantLine(t, err, "2", "belongs into the block "+block)
	}
}

// What is suggested for a word that the global option does not know is what can be written there, or says where.
func TestSuggestionsInTheGlobalOption(t *testing.T) {
	for word, want := range map[string]string{
		"metrix": "did you mean metrics?",
		"ca":     "the CA is the option dir of cert_issuer dns_persist",
		"emial":  "did you mean email? That is an option of cert_issuer dns_persist",
	} {
		err := new(App).UnmarshalCaddyfile(caddyfile.NewTestDispenser("dns_persist {\n" + word + " x\n}"))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "eab") {
			t.Errorf("%s: %v, want %q", word, err, want)
		}
	}
}

// What may be a secret is not shown, but placeholders are.
func TestSecretsInTheGlobalOption(t *testing.T) {
	for block, shown := range map[string]string{
		"account_key hush":      "account_key <yours>\n",
		"account_key {env.KEY}": "account_key {env.KEY}\n",
		"eab kid hush":          "eab kid <yours>\n",
		"dns some hush {env.X}": "dns some <yours> {env.X}\n",
		"dns some {\n\ttoken hush\n\tmore {\n\t\tkey hush\n\t}\n}": "dns some {\n\t\t\ttoken <yours>\n\t\t\tmore {\n\t\t\t\tkey <yours>\n\t\t\t}\n",
	} {
		err := new(App).UnmarshalCaddyfile(caddyfile.NewTestDispenser("dns_persist {\n" + block + "\n}"))
		wantLine(t, err, "1", "\t\t"+shown)
		if err != nil && strings.Contains(err.Error(), "hush") {
			t.Errorf("a secret is shown: %v", err)
		}
	}
}
