package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// wrongRecord is a way to get a record wrong. `check` calls it by its code.
type wrongRecord struct {
	how, code, about string
	// value is what is published in place of the good value; empty for nothing.
	value func(good string) string
}

var wrongRecords = []wrongRecord{
	{"absent", "absent", "nobody publishes it any more", func(string) string { return "" }},
	{"account", string(record.CodeWrongAccount), "it names another account", func(good string) string { return strings.Replace(good, "accounturi=", "accounturi=x", 1) }},
	{"issuer", string(record.CodeWrongIssuer), "it is for another CA", func(good string) string {
		_, rest, _ := strings.Cut(good, ";")
		return "ca.example;" + rest
	}},
	{"quotes", string(record.CodeMiswritten), "the quotes are part of it", func(good string) string { return `"` + good + `"` }},
	{"cut", string(record.CodeMalformed), "it ends before the semicolon", func(good string) string {
		before, _, _ := strings.Cut(good, ";")
		return before
	}},
	{"policy", string(record.CodePolicyMissing), "without what the wildcard needs", func(good string) string { return strings.TrimSuffix(good, wildcardPolicy) }},
	{"expired", string(record.CodeExpired), "its end has passed", func(good string) string { return good + "; persistUntil=1000000000" }},
	{"foreign", string(record.CodeForeign), "something else is there", func(string) string { return "a text for somebody else" }},
	{"name", "wrong_name", "it is at another name", func(string) string { return "" }},
	{"caa", "caa", "it is right, and a CAA record forbids the CA", func(good string) string { return good }},
}

// wildcardPolicy ends the value of a record that a wildcard needs.
const wildcardPolicy = "; policy=wildcard"

// brokenServer is a way in which a name server is broken.
type brokenServer struct{ how, code, about, mode string }

var brokenServers = []brokenServer{
	{"drop", "ns_unreachable", "it answers nobody", "silent"},
	{"servfail", "ns_servfail", "it answers with an error", "servfail"},
	{"lame", "ns_lame", "it does not know of the zone", "lame"},
	{"refused", "ns_lame", "it refuses to answer", "refused"},
	{"lag", "ns_unreachable", "each answer takes five seconds", "normal"},
	{"stale", "partial", "it keeps the zone that it has", "normal"},
}

// lag is how long a slow server takes.
const lag = 5 * time.Second

func (d *demo) breakIt(args []string) (string, error) {
	what, how := args[0], args[1]
	if servers := d.serversOf(what); len(servers) > 0 {
		i := slices.IndexFunc(brokenServers, func(b brokenServer) bool { return b.how == how })
		if i < 0 {
			return "", fmt.Errorf("a name server cannot break by %q: help lists the ways", how)
		}
		for _, n := range servers {
			d.mendServer(n)
			d.dns.SetMode(n, brokenServers[i].mode)
			if how == "lag" {
				d.dns.SetDelay(n, lag)
			}
			d.records.keep(n, how == "stale")
		}
		return fmt.Sprintf("%s: %s (%s).", d.hosts(servers), brokenServers[i].about, brokenServers[i].code), nil
	}
	name, good, err := d.recordOf(what)
	if err != nil {
		return "", fmt.Errorf("%w; and %s is not a name server", err, what)
	}
	i := slices.IndexFunc(wrongRecords, func(w wrongRecord) bool { return w.how == how })
	if i < 0 {
		return "", fmt.Errorf("a record cannot break by %q: help lists the ways", how)
	}
	wrong := wrongRecords[i]
	d.putRight(name)
	at, value := validationName(name), wrong.value(good)
	told := fmt.Sprintf("The record of %s: %s (%s).", name, wrong.about, wrong.code)
	switch how {
	case "policy":
		if value == good {
			return "", fmt.Errorf("the record of %s has no policy: only that of a wildcard needs one", name)
		}
	case "caa":
		d.dns.SetRR(0, name+`. CAA 0 issue "ca.example"`)
	case "name":
		elsewhere := at + "." + zone
		d.records.set(elsewhere, good)
		told += "\n    " + elsewhere
	}
	if value == "" {
		d.records.set(at)
		return told, nil
	}
	d.records.set(at, value)
	return told + "\n    " + value, nil
}

func (d *demo) mend(args []string) (string, error) {
	if len(args) == 0 {
		for _, n := range d.serversOf("all") {
			d.mendServer(n)
		}
		for _, name := range d.sites() {
			if value, err := d.value(name); err == nil && d.putRight(name) {
				d.records.set(validationName(name), value)
			}
		}
		_, err := d.setCA([]string{"up"})
		return "The name servers and the records that were broken are right again, and the CA answers; an account that it has forgotten stays so.", err
	}
	if servers := d.serversOf(args[0]); len(servers) > 0 {
		for _, n := range servers {
			d.mendServer(n)
		}
		return d.hosts(servers) + ": right again.", nil
	}
	return d.publishRecord(args)
}

// putRight takes away what breakIt has put elsewhere than at the validation name, and reports whether
// the record was broken.
func (d *demo) putRight(name string) bool {
	at := validationName(name)
	d.records.set(at + "." + zone)
	d.dns.ClearName(0, name)
	value, _ := d.value(name)
	has := d.records.at(at)
	return len(has) > 0 && !slices.Equal(has, []string{value})
}

func (d *demo) mendServer(number int) {
	d.dns.SetMode(number, "normal")
	d.dns.SetDelay(number, 0)
	d.records.keep(number, false)
}

// hosts are the names of servers as people write them.
func (d *demo) hosts(servers []int) string {
	var all []string
	for _, n := range servers {
		all = append(all, host(d.dns, n))
	}
	return strings.Join(all, ", ")
}

// validationName is where the record of a site is.
func validationName(name string) string { return record.Label + "." + name }

// serversOf are the name servers that a word names; none if it names none.
func (d *demo) serversOf(word string) []int {
	var all []int
	for i := range d.dns.Servers() {
		if host := host(d.dns, i+1); word == "all" || word == host || strings.HasPrefix(host, word+".") {
			all = append(all, i+1)
		}
	}
	return all
}

// records are those that the owners of the sites have published, also on servers that keep an older zone.
type records struct {
	dns *lab.DNS

	mu     sync.Mutex
	values map[string][]string // by name
	stale  map[int]bool
}

func newRecords(dns *lab.DNS) *records {
	return &records{dns: dns, values: make(map[string][]string), stale: make(map[int]bool)}
}

// set publishes the values of a name on all servers that are not stale.
func (r *records) set(name string, values ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.values[name] = values
	for n := range r.dns.Servers() {
		if !r.stale[n+1] {
			r.dns.SetTXT(n+1, name, values...)
		}
	}
}

// at are the published values of a name.
func (r *records) at(name string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.values[name]
}

// keep has a server keep the zone that it has, or catch up.
func (r *records) keep(server int, stale bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stale[server] && !stale {
		for name, values := range maps.All(r.values) {
			r.dns.SetTXT(server, name, values...)
		}
	}
	r.stale[server] = stale
}
