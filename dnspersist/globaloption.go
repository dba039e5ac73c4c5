package dnspersist

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/operator"
)

// appWords lists the words of the global option dns_persist, and onDemandWords those of its block
// on_demand, both in the order of the documentation.
const (
	appWords      = "on_demand, private_networks, metrics"
	onDemandWords = "max_waiting, max_waiting_per_domain, forget_after, writes_per_hour, remove_after, max_records"
)

// mostNames is more than anybody has names, and fits into an int of every machine.
const mostNames = 1_000_000_000

// UnmarshalCaddyfile reads the global option. Syntax:
//
//	dns_persist {
//	    on_demand {
//	        max_waiting <names>
//	        max_waiting_per_domain <names>
//	        forget_after <duration>
//	        writes_per_hour <records>
//	        max_records <names>
//	        remove_after <duration>
//	    }
//	    private_networks <ranges...>
//	    metrics {
//	        per_name
//	    }
//	}
//
// These are the options of the app. One of the issuer is an error that shows the cert_issuer to write.
func (a *App) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	if err := checkBelongs(d); err != nil {
		return err
	}
	d.Reset()
	d.Next() // dns_persist
	seen := make(map[string]bool)
	for d.NextBlock(0) {
		word := d.Val()
		if seen[word] {
			return d.Errf("%s is given twice", word)
		}
		seen[word] = true
		var err error
		switch word {
		case "on_demand":
			a.OnDemand = new(OnDemand)
			err = a.OnDemand.unmarshal(d)
		case "metrics":
			a.Metrics = new(Metrics)
			err = a.Metrics.unmarshal(d)
		case "private_networks":
			if a.PrivateNetworks = d.RemainingArgs(); len(a.PrivateNetworks) == 0 {
				return d.Errf("wrong argument count for private_networks: it reads private_networks <ranges...>")
			}
			if _, invalid := prefixes(a.PrivateNetworks); invalid != nil {
				err = d.Errf("private_networks: %w", invalid)
			}
		default: // checkBelongs knows all words: this is a block behind one that takes none
			err = d.Errf("unexpected %s: private_networks takes no block", word)
		}
		if err != nil {
			return err
		}
	}
	if len(seen) == 0 {
		return d.Errf("the global option dns_persist sets nothing: its block takes %s; for certificates of all sites write cert_issuer dns_persist in its place", appWords)
	}
	return nil
}

func (o *OnDemand) unmarshal(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.Errf("on_demand takes a block and no argument, such as on_demand { forget_after 24h }")
	}
	fields := map[string]any{
		"max_waiting": &o.MaxWaiting, "max_waiting_per_domain": &o.MaxWaitingPerDomain, "forget_after": &o.ForgetAfter,
		"writes_per_hour": &o.WritesPerHour, "max_records": &o.MaxRecords, "remove_after": &o.RemoveAfter,
	}
	seen := make(map[string]bool)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		word := d.Val()
		field, known := fields[word]
		switch {
		case seen[word]:
			return d.Errf("%s is given twice", word)
		case !known:
			return d.Errf("unrecognized option '%s' of on_demand: it is not one of %s", word, onDemandWords)
		}
		seen[word] = true
		args := d.RemainingArgs()
		if len(args) != 1 {
			return d.Errf("%s takes one argument, there are %d", word, len(args))
		}
		var err error
		switch field := field.(type) {
		case *caddy.Duration:
			if *field, err = parseDuration(args[0]); err != nil {
				return d.Errf("%s: %w", word, err)
			}
		case *int:
			if *field, err = strconv.Atoi(args[0]); err != nil || *field < 1 || *field > mostNames {
				return d.Errf("%s: %q is not a whole number from 1 to %d", word, args[0], mostNames)
			}
		}
		if word == "remove_after" && o.RemoveAfter < leastRemoveAfter {
			return d.Errf("remove_after: %w", errRemoveAfter)
		}
	}
	if len(seen) == 0 {
		return d.Errf("on_demand sets nothing: its block takes %s", onDemandWords)
	}
	return nil
}

// checkBelongs refuses what does not belong into the global option, and shows where an option of the
// issuer is to be written: everybody tries it here.
func checkBelongs(d *caddyfile.Dispenser) error {
	d.Next() // dns_persist
	var foreign []string
	issuer, app := &written{indent: "\t"}, &written{indent: "\t"}
	issuer.text.WriteString("\tcert_issuer dns_persist")
	app.text.WriteString("\tdns_persist")
	for d.NextArg() {
		foreign = append(foreign, "its argument "+d.Val())
		issuer.text.WriteString(" " + quoted(d.Val()))
	}
	ofApp, ofIssuer := strings.Split(appWords, ", "), strings.Split(allWords, ", ")
	for d.NextBlock(0) {
		word := d.Val()
		why, isRefused := refused[word]
		switch {
		case slices.Contains(ofApp, word):
			app.add(d)
		case slices.Contains(ofIssuer, word):
			foreign = append(foreign, word)
			issuer.add(d)
		case isRefused:
			return d.Errf("%s %s", word, why)
		case slices.Contains(strings.Split(onDemandWords, ", "), word):
			return d.Errf("%s belongs into the block on_demand of the global dns_persist: write on_demand { %[1]s ... }", word)
		case word == "per_name":
			return d.Errf("per_name belongs into the block metrics of the global dns_persist: write metrics { per_name }")
		default:
			if word == "ca" { // the key of the JSON
				return d.Errf("unrecognized option 'ca' of the global dns_persist: the CA is the option dir of cert_issuer dns_persist, or its argument")
			}
			if near := operator.Near(word, ofApp); near != "" {
				return d.Errf("unrecognized option '%s' of the global dns_persist: did you mean %s?", word, near)
			}
			if near := operator.Near(word, ofIssuer); near != "" {
				return d.Errf("unrecognized option '%s' of the global dns_persist: did you mean %s? That is an option of cert_issuer dns_persist, and belongs into its block", word, near)
			}
			return d.Errf("unrecognized option '%s' of the global dns_persist: it is not one of %s", word, appWords)
		}
	}
	if len(foreign) == 0 {
		return nil
	}
	place := issuer.end()
	if app.hasBlock {
		place += "\n" + app.end()
	}
	note := ""
	if issuer.hides {
		note = "; " + hidden + " is what you wrote, which may be a secret"
	}
	d.Reset()
	d.Next()
	return d.Errf("the global option dns_persist holds the options of the app (%s), and not those of the issuer (%s): for all sites write\n\n%s\n\nin its place, or add it to the cert_issuer dns_persist that you have%s",
		appWords, strings.Join(foreign, ", "), place, note)
}

// written is what a Caddyfile says, as it is written.
type written struct {
	text            strings.Builder
	indent          string
	hasBlock, hides bool
}

// hidden is shown in place of what may be a secret.
const hidden = "<yours>"

// secretFrom is which argument of an option may be the first secret. What is in the block of a provider is
// one in any case.
var secretFrom = map[string]int{"account_key": 0, "eab": 1, "dns": 1}

// add adds the line that the dispenser is at to the block, with a block of its own.
func (w *written) add(d *caddyfile.Dispenser) {
	if !w.hasBlock {
		w.text.WriteString(" {\n")
		w.hasBlock = true
	}
	shown, has := secretFrom[d.Val()]
	if !has {
		shown = math.MaxInt
	}
	w.line(d, w.indent+"\t", shown)
}

// line adds a line, of whose arguments so many are shown at least.
func (w *written) line(d *caddyfile.Dispenser, indent string, shown int) {
	isProvider := d.Val() == "dns"
	w.text.WriteString(indent + quoted(d.Val()))
	for n := 0; d.NextArg(); n++ {
		arg := d.Val()
		if n >= shown && !(strings.HasPrefix(arg, "{") && strings.HasSuffix(arg, "}")) {
			arg, w.hides = hidden, true
		}
		w.text.WriteString(" " + quoted(arg))
	}
	if isProvider {
		shown = 0
	}
	hasBlock := false
	for nesting := d.Nesting(); d.NextBlock(nesting); hasBlock = true {
		if !hasBlock {
			w.text.WriteString(" {\n")
		}
		w.line(d, indent+"\t", shown)
	}
	if hasBlock {
		w.text.WriteString(indent + "}")
	}
	w.text.WriteString("\n")
}

// end ends the block, and returns all.
func (w *written) end() string {
	if w.hasBlock {
		w.text.WriteString(w.indent + "}")
	}
	return w.text.String()
}

// quoted writes a token as a Caddyfile has it.
func quoted(token string) string {
	isBare := token != "" && token != "{" && token != "}" && !strings.HasPrefix(token, "#") && !strings.HasPrefix(token, "<<") &&
		!strings.ContainsAny(token, " \t\r\n\"`")
	switch {
	case isBare:
		return token
	case !strings.Contains(token, "`"):
		return "`" + token + "`"
	}
	return `"` + strings.ReplaceAll(token, `"`, `\"`) + `"`
}

// Interface guard
var _ caddyfile.Unmarshaler = (*App)(nil)
