package command

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/operator"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// hostileWorld is DNS in which each of two servers of tenant.test says what it likes, beside
// zones of an operator and of another tenant.
type hostileWorld struct {
	// says is what each server of tenant.test answers at a name, lines of a zone file without
	// the owner; names that are missing do not exist.
	says [2]map[string][]string
}

const (
	tenantName   = "_validation-persist.tenant.test."
	operatorName = "_validation-persist.operator.test."
	strangeValue = "ca.example; accounturi=https://ca.example/acct/666; policy=wildcard"
)

// hosts are the addresses of the zones' servers.
var hostileHosts = map[string][]string{
	"tenant.test.": {"192.0.2.1", "192.0.2.2"}, "operator.test.": {"192.0.2.3"}, "other.test.": {"192.0.2.4"},
}

func hostileZone(name string) string {
	for zone := range hostileHosts {
		if dns.IsSubDomain(zone, name) {
			return zone
		}
	}
	return ""
}

func (w *hostileWorld) Exchange(_ context.Context, _, addr string, q *dns.Msg) (*dns.Msg, error) {
	m := new(dns.Msg).SetReply(q)
	question := q.Question[0]
	name := dns.CanonicalName(question.Name)
	zone := hostileZone(name)
	soa := fmt.Sprintf("%s 60 SOA ns1.%s h.%s 1 1 1 1 60", zone, zone, zone)
	if addr == "192.0.2.53:53" {
		m.RecursionAvailable = true
		if zone == "" {
			m.Rcode = dns.RcodeNameError
			m.Ns = []dns.RR{rrOf(". 60 SOA a.root. x.root. 1 1 1 1 60")}
			return m, nil
		}
		for i, ip := range hostileHosts[zone] {
			host := fmt.Sprintf("ns%d.%s", i+1, zone)
			switch {
			case question.Qtype == dns.TypeNS && name == zone:
				m.Answer = append(m.Answer, rrOf(zone+" 60 NS "+host))
			case question.Qtype == dns.TypeA && name == host:
				m.Answer = append(m.Answer, rrOf(host+" 60 A "+ip))
			}
		}
		if len(m.Answer) == 0 {
			m.Ns = []dns.RR{rrOf(soa)}
		}
		return m, nil
	}
	m.Authoritative = true
	i := slices.IndexFunc(hostileHosts[zone], func(ip string) bool { return addr == ip+":53" })
	if i < 0 {
		m.Rcode = dns.RcodeRefused
		return m, nil
	}
	var lines []string
	switch {
	case zone == "tenant.test." && w.says[i] == nil:
		m.Rcode = dns.RcodeServerFailure
		return m, nil
	case zone == "tenant.test.":
		var exact bool
		lines, exact = w.says[i][name]
		_, below := w.says[i][name[strings.Index(name, ".")+1:]] // a wildcard ends at what exists
		if !exact && !below {
			lines = w.says[i]["*"]
		}
	case name == operatorName:
		lines = []string{`TXT "operator's own"`}
	}
	for _, line := range lines {
		if rr := rrOf(name + " 60 " + line); rr.Header().Rrtype == question.Qtype || rr.Header().Rrtype == dns.TypeCNAME {
			m.Answer = append(m.Answer, rr)
		}
	}
	if len(m.Answer) == 0 {
		m.Ns = []dns.RR{rrOf(soa)}
		if len(lines) == 0 {
			m.Rcode = dns.RcodeNameError
		}
	}
	return m, nil
}

func rrOf(text string) dns.RR {
	rr, err := dns.NewRR(text)
	if err != nil {
		panic(text + ": " + err.Error())
	}
	return rr
}

// newHostileWorld picks what the servers say.
func newHostileWorld(seed uint64) *hostileWorld {
	dice := rand.New(rand.NewPCG(seed, 1))
	names := []string{tenantName, "inside.tenant.test.", "deeper.tenant.test."}
	targets := append(slices.Clone(names), operatorName, "_dmarc.operator.test.", "_validation-persist.other.test.", "nowhere.invalid.")
	any := func() string {
		switch dice.IntN(4) {
		case 0, 1:
			return "CNAME " + targets[dice.IntN(len(targets))]
		case 2:
			return `TXT "` + strangeValue + `"`
		}
		return "TXT harmless"
	}
	w := new(hostileWorld)
	for i := range w.says {
		if dice.IntN(8) == 0 {
			continue // it fails
		}
		w.says[i] = make(map[string][]string)
		for _, n := range append(slices.Clone(names), "*") {
			if i > 0 && dice.IntN(2) == 0 && w.says[0] != nil {
				if same := w.says[0][n]; same != nil {
					w.says[i][n] = same
				}
				continue
			}
			if dice.IntN(3) > 0 {
				w.says[i][n] = []string{any()}
			}
		}
	}
	return w
}

// putOutHostile is what records puts out for tenant.test in a world.
func putOutHostile(t *testing.T, w *hostileWorld, format string, flags ...string) (out, reported string, err error) {
	t.Helper()
	cmd := recordsCommand()
	if err := cmd.Flags().Parse(flags); err != nil {
		t.Fatal(err)
	}
	var o, e strings.Builder
	r := &recordsRun{run: &run{Context: t.Context(), cmd: cmd, out: &o, err: &e}, format: format}
	if err := cmd.Flags().Parse([]string{"--issuer", "ca.example", "--account-url", "https://ca.example/acct/1"}); err != nil {
		t.Fatal(err)
	}
	sets, err := r.madeSets([]string{"tenant.test"})
	if err != nil {
		t.Fatal(err)
	}
	err = r.readBare(propagation.NewChecker(propagation.Config{Exchanger: w, Resolvers: []string{"192.0.2.53"}}), sets)
	if err != nil {
		t.Fatal(err)
	}
	err = r.putOut(sets)
	return o.String(), e.String(), err
}

// Whatever a tenant's servers say, no output for a tool has a name outside the tenant's zone, and a
// value of theirs only where both servers have it at the end of one and the same alias.
func TestRecordsHaveNothingOfStrangers(t *testing.T) {
	followed, leftOut := 0, 0
	for seed := range uint64(400) {
		w := newHostileWorld(seed)
		for _, format := range recordFormats() {
			out, reported, err := putOutHostile(t, w, format)
			if err != nil {
				if out != "" {
					t.Errorf("seed %d, %s: %q beside %v", seed, format, out, err)
				}
				leftOut++
				continue
			}
			if format == "table" {
				continue // it says what is wrong, to a person
			}
			if format == "json" {
				var reply operator.RecordsReply
				if err := json.Unmarshal([]byte(out), &reply); err != nil {
					t.Fatal(err)
				}
				for i := range reply.Records {
					if d := reply.Records[i].DNS; d != nil {
						if d.LeftOut != "" && (len(d.Values) > 0 || len(d.Add) > 0 || d.Alias != "") {
							t.Errorf("seed %d: left out, and yet %+v", seed, d)
						}
						d.LeftOut, d.Error = "", "" // reported to a person
					}
				}
				again, err := json.Marshal(reply)
				if err != nil {
					t.Fatal(err)
				}
				out = string(again)
			}
			for _, theirs := range []string{"operator", "other.test", "invalid"} {
				if strings.Contains(out, theirs) {
					t.Errorf("seed %d: %s has the name or value of others:\n%s\n%s\n%v", seed, format, out, reported, w.says)
				}
			}
			if strings.Contains(out, "is an alias of this name") || strings.Contains(out, `"alias":`) {
				followed++
			}
			if strings.Contains(out, "acct/666") && w.says[0] != nil && w.says[1] != nil {
				place, ok := w.agreed()
				if !ok || !strings.Contains(out, strings.TrimSuffix(place, ".tenant.test.")) {
					t.Errorf("seed %d: %s has a value that is not at the end of an agreed alias:\n%s\n%v", seed, format, out, w.says)
				}
			}
		}
	}
	if followed == 0 || leftOut == 0 {
		t.Errorf("%d outputs follow an alias, %d are refused: the worlds are too tame", followed, leftOut)
	}
}

// agreed is where the CNAMEs end that both servers show, ok if they do.
func (w *hostileWorld) agreed() (place string, ok bool) {
	place = tenantName
	for range 5 {
		var links [2]string
		for i := range links {
			if lines := w.says[i][place]; len(lines) > 0 {
				links[i], _ = strings.CutPrefix(lines[0], "CNAME ")
				if links[i] == lines[0] {
					links[i] = ""
				}
			}
		}
		if links[0] != links[1] {
			return "", false
		}
		if links[0] == "" {
			return place, true
		}
		place = links[0]
	}
	return "", false
}

// An alias into another zone is left out with a warning, and followed if that is asked for, with what
// the servers there have.
func TestAliasIntoAnotherZoneIsLeftOut(t *testing.T) {
	w := new(hostileWorld)
	for i := range w.says {
		w.says[i] = map[string][]string{tenantName: {"CNAME " + operatorName}}
	}
	out, reported, err := putOutHostile(t, w, "nsupdate")
	if err != nil || strings.Contains(out, "update") || !strings.Contains(reported, "it is an alias (CNAME) of _validation-persist.operator.test") {
		t.Errorf("%v: %s%s", err, out, reported)
	}
	if out, _, err := putOutHostile(t, w, "route53"); err == nil || out != "" {
		t.Errorf("all is left out of a format that replaces: %s", out)
	}
	out, _, err = putOutHostile(t, w, "route53", "--follow-aliases")
	if err != nil || !strings.Contains(out, operatorName) || !strings.Contains(out, "operator's own") || !strings.Contains(out, "acct/1") {
		t.Errorf("asked for: %v: %s", err, out)
	}
}

// One server shows a CNAME into the operator's zone, the other a value of the tenant's choice: no
// output puts that value at that name.
func TestMixedAliasIsAnError(t *testing.T) {
	w := new(hostileWorld)
	w.says[0] = map[string][]string{tenantName: {"CNAME " + operatorName}}
	w.says[1] = map[string][]string{tenantName: {`TXT "` + strangeValue + `"`}}
	for _, format := range recordFormats() {
		for _, flags := range [][]string{nil, {"--follow-aliases"}} {
			out, reported, err := putOutHostile(t, w, format, flags...)
			replaces := slices.Contains([]string{"route53", "octodns", "terraform"}, format)
			if (err != nil) != replaces || strings.Contains(out, "acct/666") || format != "table" && format != "json" && strings.Contains(out, "operator") {
				t.Errorf("%s: %v: %s", format, err, out)
			}
			if !strings.Contains(reported, "do not agree") {
				t.Errorf("%s: not reported: %s", format, reported)
			}
		}
	}
}
