package main

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// verb is a command of the lab's own; the others are those of `caddy dns-persist`.
type verb struct {
	name, syntax, about string
	min, max            int // arguments
	// isQuestion is set where nothing happens: only who asks is answered.
	isQuestion bool
	run        func(d *demo, args []string) (string, error)
}

func verbs() []verb {
	return []verb{
		{"add", "NAME", "a further site, below " + zone, 1, 1, false, (*demo).addSite},
		{"publish", "NAME|all", "its owner publishes the record that Caddy asks for", 1, 1, false, (*demo).publishRecord},
		{"break", "NAME|SERVER HOW", "break a record, or a name server (ns1, ns2, all)", 2, 2, false, (*demo).breakIt},
		{"mend", "[NAME|SERVER]", "put it right again, or everything", 0, 1, false, (*demo).mend},
		{"ca", strings.Join(slices.Sorted(maps.Keys(caModes)), "|"), "how the CA is", 1, 1, false, (*demo).setCA},
		{"help", "", "this", 0, 0, true, (*demo).help},
		{"quit", "", "end Caddy, the CA and the name servers", 0, 0, false, (*demo).end},
	}
}

// caModes is how the CA can be.
var caModes = map[string]struct {
	about string
	set   func(ca *lab.CA)
}{
	"up":   {"The CA is up", func(*lab.CA) {}},
	"down": {"The CA is down: it hangs up", func(ca *lab.CA) { ca.Inject(lab.Fault{Times: -1, CutBefore: true}) }},
	"slow": {"The CA takes half a minute to validate", func(ca *lab.CA) { ca.SetValidationDelay(30 * time.Second) }},
	"limited": {"The CA takes no new orders (status 429)", func(ca *lab.CA) {
		ca.Inject(lab.Fault{Step: "new-order", Times: -1, Status: http.StatusTooManyRequests, RetryAfter: "20"})
	}},
	"forget": {"The CA has forgotten every account, for good", (*lab.CA).Forget},
}

func (d *demo) setCA(args []string) (string, error) {
	mode, ok := caModes[args[0]]
	if !ok {
		return "", fmt.Errorf("the CA cannot be %q: it reads ca %s", args[0], strings.Join(slices.Sorted(maps.Keys(caModes)), "|"))
	}
	d.ca.ClearFaults()
	d.ca.SetValidationDelay(0)
	mode.set(d.ca)
	return mode.about + ".", nil
}

// siteOf is the site that a word names, also without the zone; empty if it names none.
func (d *demo) siteOf(word string) string {
	word = strings.TrimSuffix(strings.ToLower(word), ".")
	for _, s := range d.sites() {
		if s == word || s == word+"."+zone {
			return s
		}
	}
	return ""
}

// sites are those whose record Caddy has asked for.
func (d *demo) sites() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []string
	for name := range d.wanted {
		all = append(all, strings.TrimPrefix(name, record.Label+"."))
	}
	slices.Sort(all)
	return all
}

// recordOf is the site that a word has to name, with the value of its record.
func (d *demo) recordOf(word string) (name, value string, err error) {
	if name = d.siteOf(word); name == "" {
		return "", "", fmt.Errorf("there is no record of %s: Caddy has asked for those of %s", word, strings.Join(d.sites(), ", "))
	}
	value, err = d.value(name)
	return name, value, err
}

func (d *demo) publishRecord(args []string) (string, error) {
	names := args
	if args[0] == "all" {
		names = d.sites()
	}
	var told []string
	for _, word := range names {
		name, value, err := d.recordOf(word)
		if err != nil {
			return "", err
		}
		d.putRight(name)
		d.records.set(validationName(name), value)
		told = append(told, "The owner of "+name+" publishes the record.")
	}
	return strings.Join(told, "\n"), nil
}

func (d *demo) addSite(args []string) (string, error) {
	name := strings.TrimSuffix(strings.ToLower(args[0]), "."+zone) + "." + zone
	if _, err := record.Normalize(name); err != nil {
		return "", fmt.Errorf("%s cannot be a site: %w", name, err)
	}
	if slices.Contains(d.added, name) || d.siteOf(name) != "" {
		return "", fmt.Errorf("%s is a site already", name)
	}
	block := "\n" + name + " {\n\trespond \"added\"\n}\n"
	if err := d.load(d.config + block); err != nil {
		return "", err
	}
	d.added = append(d.added, name)
	return "Caddy is reloaded, with a site more:\n" + indent(block[1:]), nil
}

func (d *demo) end([]string) (string, error) {
	select {
	case <-d.quit:
	default:
		close(d.quit)
	}
	return "Bye.", nil
}

func (d *demo) help([]string) (string, error) {
	var b strings.Builder
	for _, v := range verbs() {
		fmt.Fprintf(&b, "%s\n        %s\n", strings.TrimSpace(v.name+" "+v.syntax), v.about)
	}
	b.WriteString("check, records, status, account, probe\n        those of `caddy dns-persist`, for this Caddy\n")
	fmt.Fprintf(&b, "\nNames may be without .%s. Ways to break, with what check calls them:\n", zone)
	b.WriteString("\n  a record:\n")
	for _, w := range wrongRecords {
		fmt.Fprintf(&b, "    %-10s%-16s%s\n", w.how, w.code, w.about)
	}
	b.WriteString("\n  a name server:\n")
	for _, s := range brokenServers {
		fmt.Fprintf(&b, "    %-10s%-16s%s\n", s.how, s.code, s.about)
	}
	return b.String(), nil
}

// completed adds to a line what can only follow, up to where several words can.
func (d *demo) completed(line string) string {
	words := strings.Fields(line)
	if len(words) == 0 || strings.HasSuffix(line, " ") {
		words = append(words, "")
	}
	last := words[len(words)-1]
	var found []string
	for _, c := range d.candidates(words[:len(words)-1]) {
		if strings.HasPrefix(c, last) {
			found = append(found, c)
		}
	}
	switch len(found) {
	case 0:
		return line
	case 1:
		return line + strings.TrimPrefix(found[0], last) + " "
	}
	common := found[0]
	for _, f := range found {
		for !strings.HasPrefix(f, common) {
			common = common[:len(common)-1]
		}
	}
	return line + strings.TrimPrefix(common, last)
}

// candidates are the words that can follow others.
func (d *demo) candidates(before []string) []string {
	servers := []string{"all"}
	for i := range d.dns.Servers() {
		servers = append(servers, "ns"+strconv.Itoa(i+1))
	}
	var all []string
	switch {
	case len(before) == 0:
		all = []string{"check", "records", "status", "account", "probe"}
		for _, v := range verbs() {
			all = append(all, v.name)
		}
	case before[0] == "ca":
		all = slices.Collect(maps.Keys(caModes))
	case before[0] == "break" && len(before) == 2 && len(d.serversOf(before[1])) > 0:
		for _, s := range brokenServers {
			all = append(all, s.how)
		}
	case before[0] == "break" && len(before) == 2:
		for _, w := range wrongRecords {
			all = append(all, w.how)
		}
	case before[0] == "break" || before[0] == "mend":
		all = append(servers, d.sites()...)
	case before[0] == "publish":
		all = append(d.sites(), "all")
	default:
		all = d.sites()
	}
	return all
}
