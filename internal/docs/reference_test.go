package docs

import (
	"encoding/json"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	_ "github.com/dnspersist/caddy-dnspersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
)

// The table of options has every word of the directive with its JSON key, and no other.
func TestOptions(t *testing.T) {
	table := rows(section(t, page(t, "docs/reference.md"), "## Options"))
	same(t, "words of the Caddyfile", firstWords(table, 0), syntax(t, "UnmarshalCaddyfile sets up the issuer", 4))

	keys := jsonKeys(reflect.TypeFor[dnspersist.Issuer](), "")
	var shown []string
	for _, m := range firstWords(table, 1) {
		shown = append(shown, m)
		if !slices.Contains(keys, m) && !slices.Contains(jsonKeys(reflect.TypeFor[dnspersist.RateLimit](), ""), m) {
			t.Errorf("the JSON has no key %s", m)
		}
	}
	// those of the embedded ACME issuer belong to other challenges, or are in the table
	for _, key := range ownKeys() {
		if !slices.Contains(shown, key) {
			t.Errorf("the JSON key %s is not in the table", key)
		}
	}
}

// The table of the app's options has each of them, and no other.
func TestAppOptions(t *testing.T) {
	shown := firstWords(rows(section(t, page(t, "docs/reference.md"), "## Options of the app")), 0)
	same(t, "words of the Caddyfile", shown, syntax(t, "UnmarshalCaddyfile reads the global option", 4))
	same(t, "JSON keys", shown, jsonKeys(reflect.TypeFor[dnspersist.App](), ""))
}

// The table of bounds for names on demand has each of them, and no other.
func TestOnDemandOptions(t *testing.T) {
	table := rows(section(t, page(t, "docs/reference.md"), "## On-demand TLS"))
	shown := firstWords(table, 0)
	words := slices.DeleteFunc(syntax(t, "UnmarshalCaddyfile reads the global option", 8), func(word string) bool {
		return slices.Contains(jsonKeys(reflect.TypeFor[dnspersist.Metrics](), ""), word)
	})
	same(t, "words of the Caddyfile", shown, words)
	same(t, "JSON keys", shown, jsonKeys(reflect.TypeFor[dnspersist.OnDemand](), ""))
}

// same reports what one list has and the other has not.
func same(t *testing.T, what string, documented, real []string) {
	t.Helper()
	if len(real) < 2 {
		t.Errorf("%s: only %q were found in the code", what, real)
	}
	for _, word := range real {
		if !slices.Contains(documented, word) {
			t.Errorf("%s: %s is not documented", what, word)
		}
	}
	for _, word := range documented {
		if !slices.Contains(real, word) {
			t.Errorf("%s: %s is documented and does not exist", what, word)
		}
	}
}

// syntax returns the words at a depth of the syntax in a doc comment.
func syntax(t *testing.T, comment string, depth int) []string {
	t.Helper()
	for _, source := range sources(t, "dnspersist", isProduct) {
		_, after, found := strings.Cut(source, "\n// "+comment)
		if !found {
			continue
		}
		comment, _, _ := strings.Cut(after, "\nfunc ")
		var all []string
		for _, m := range regexp.MustCompile(`(?m)^//\t {`+string(rune('0'+depth))+`}([a-z_]+)`).FindAllStringSubmatch(comment, -1) {
			all = append(all, m[1])
		}
		return all
	}
	t.Fatalf("no doc comment begins with %q", comment)
	return nil
}

// jsonKeys returns the keys of a type; those of the object dns have it before them.
func jsonKeys(typ reflect.Type, prefix string) []string {
	var all []string
	for i := range typ.NumField() {
		f := typ.Field(i)
		if f.Anonymous {
			all = append(all, jsonKeys(f.Type.Elem(), prefix)...)
			continue
		}
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case key == "" || key == "-":
		case f.Type == reflect.TypeFor[*dnspersist.DNS]():
			all = append(all, jsonKeys(f.Type.Elem(), key+".")...)
		default:
			all = append(all, prefix+key)
		}
	}
	return all
}

// ownKeys are the keys of the issuer that are not those of the embedded one.
func ownKeys() []string {
	typ := reflect.TypeFor[dnspersist.Issuer]()
	embedded, _ := typ.FieldByName("ACMEIssuer")
	inherited := jsonKeys(embedded.Type.Elem(), "")
	return slices.DeleteFunc(jsonKeys(typ, ""), func(key string) bool {
		return slices.Contains(inherited, key) || key == "exclusive" // read from stored configurations only
	})
}

// Every code that programs may rely on is explained, with what to do, and no other.
func TestCodes(t *testing.T) {
	var codes []string
	constant := regexp.MustCompile(`Code[A-Za-z0-9]+ +(?:(?:propagation|ask)\.)?Code += "([a-z0-9_]+)"`)
	for _, source := range sources(t, "dnspersist", isProduct) {
		for _, m := range constant.FindAllStringSubmatch(source, -1) {
			codes = append(codes, m[1])
		}
	}
	if len(codes) < 40 {
		t.Errorf("only %d codes were found", len(codes))
	}
	codes = append(append(codes, reasons(t)...), "ca_disagrees") // which begins the text of an error
	table := rows(section(t, page(t, "docs/reference.md"), "## Codes"))
	var shown []string
	for _, row := range table {
		if len(row) != 3 || row[1] == "" || row[2] == "" {
			t.Errorf("not a code, what it means and what to do: %q", row)
			continue
		}
		shown = append(shown, firstWords([][]string{row}, 0)...)
	}
	same(t, "codes", shown, codes)
}

// reasons are those for which a domain waits.
func reasons(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, source := range sources(t, "dnspersist/acmepersist", isProduct) {
		for _, m := range regexp.MustCompile(`\tReason[A-Za-z]+ +Reason += "([a-z_]+)"`).FindAllStringSubmatch(source, -1) {
			all = append(all, m[1])
		}
	}
	return all
}

// The list that metrics and the admin API go by has every reason.
func TestReasonsAreListed(t *testing.T) {
	var listed []string
	for _, r := range acmepersist.Reasons {
		listed = append(listed, string(r))
	}
	same(t, "reasons", listed, reasons(t))
}

// The life of a name in the design has each reason to wait, and what decide says is what it can say.
func TestLifeOfAName(t *testing.T) {
	life := section(t, page(t, "docs/design.md"), "## The life of a name")
	picture, text, _ := strings.Cut(life, "\nAny step")
	var drawn []string
	for _, word := range regexp.MustCompile(`[a-z]+(?:_[a-z]+)*`).FindAllString(picture, -1) {
		if slices.Contains(reasons(t), word) || strings.Contains(word, "_") {
			drawn = append(drawn, word)
		}
	}
	same(t, "reasons", drawn, reasons(t))

	var actions, described []string
	core := ""
	for _, source := range sources(t, "dnspersist/acmepersist", isProduct) {
		core += source
		for _, m := range regexp.MustCompile(`\tdo[A-Z][A-Za-z]* +action += "([^"]+)"`).FindAllStringSubmatch(source, -1) {
			actions = append(actions, m[1])
		}
	}
	for _, row := range rows(text) {
		step := regexp.MustCompile(" \\(`([A-Za-z]+)`\\)") // the method that makes it
		for _, m := range step.FindAllStringSubmatch(row[0], -1) {
			if !strings.Contains(core, ") "+m[1]+"(") {
				t.Errorf("there is no method %s", m[1])
			}
		}
		for _, action := range strings.Split(quoted.ReplaceAllString(step.ReplaceAllString(row[0], ""), ""), ",") {
			action, _, _ = strings.Cut(action, ":")
			if action = strings.TrimSpace(action); action != "" && !slices.Contains(described, action) {
				described = append(described, action)
			}
		}
	}
	same(t, "steps", described, actions)
}

// The entries of the log that the reference lists are those that the code writes, and so are
// their fields.
func TestLogEntries(t *testing.T) {
	var source strings.Builder
	for _, text := range sources(t, "dnspersist", isProduct) {
		source.WriteString(text)
	}
	all := source.String()
	entries := 0
	for _, row := range rows(section(t, page(t, "docs/reference.md"), "## Log")) {
		words := quoted.FindAllStringSubmatch(row[0], -1)
		if len(row) == 3 {
			entries++
			if len(words) != 1 || !strings.Contains(all, `"`+words[0][1]+`"`) {
				t.Errorf("nothing logs %q", row[0])
				continue
			}
			level := regexp.MustCompile(`\.(Info|Warn|Error)\(\s*"` + regexp.QuoteMeta(words[0][1]) + `"`).FindStringSubmatch(all)
			if level != nil && !strings.EqualFold(level[1], row[1]) {
				t.Errorf("%q is logged at level %s", row[0], level[1])
			}
			continue
		}
		for _, m := range words {
			if !regexp.MustCompile(`zap\.\w+\("` + m[1] + `"`).MatchString(all) {
				t.Errorf("no entry has the field %s", m[1])
			}
		}
	}
	if entries < 15 {
		t.Errorf("only %d entries", entries)
	}
}

// The metrics of the reference are those of the code, with their labels and the values of these.
func TestMetrics(t *testing.T) {
	var metrics, values []string
	definition := regexp.MustCompile(`(?m)= (?:gauge|counter)\("([a-z_]+)", "[^"]+"((?:, "[a-z]+")*)\)$`)
	result := regexp.MustCompile(`(?:Event|Outcome|Operation)[A-Za-z]+: "([a-z_]+)"`)
	for _, source := range sources(t, "dnspersist/internal/metrics", isProduct) {
		for _, m := range definition.FindAllStringSubmatch(source, -1) {
			metrics = append(metrics, m[1]+"{"+strings.ReplaceAll(strings.Trim(m[2], `, "`), `", "`, ",")+"}")
		}
		for _, m := range result.FindAllStringSubmatch(source, -1) {
			values = append(values, m[1])
		}
	}
	var shown []string
	text := section(t, page(t, "docs/reference.md"), "## Metrics")
	for _, row := range rows(text) {
		if strings.Contains(row[0], "{") {
			shown = append(shown, strings.Trim(row[0], "`"))
		}
	}
	same(t, "metrics", shown, metrics)
	if len(values) < 15 {
		t.Errorf("only the results %q were found", values)
	}
	for _, source := range sources(t, "dnspersist/internal/parking", isProduct) {
		for _, m := range regexp.MustCompile(`Phase[A-Z][a-z]+ Phase = "([a-z]+)"`).FindAllStringSubmatch(source, -1) {
			values = append(values, m[1])
		}
	}
	for _, v := range values {
		if !strings.Contains(text, "`"+v+"`") {
			t.Errorf("the value %s of a label is not explained", v)
		}
	}
}

// Whole phrases that pages quote are those of the code: entries of the log, texts of errors.
func TestQuotedPhrases(t *testing.T) {
	var source strings.Builder
	for _, text := range sources(t, "dnspersist", isProduct) {
		source.WriteString(text)
	}
	all := source.String()
	phrase := regexp.MustCompile("`([A-Za-z][A-Za-z0-9,;:?' -]*)`")
	for _, name := range pages(t) {
		for _, m := range phrase.FindAllStringSubmatch(page(t, name), -1) {
			if len(strings.Fields(m[1])) > 4 && !strings.HasPrefix(m[1], "caddy dns-persist") && !strings.HasPrefix(m[1], "go ") && !strings.Contains(all, m[1]) {
				t.Errorf("%s quotes %q, which the code does not say", name, m[1])
			}
		}
	}
}

// Every command has a section in the reference with its flags, and what is documented exists.
func TestCommands(t *testing.T) {
	text := section(t, page(t, "docs/reference.md"), "## Commands")
	tree := commands(t)
	var shown []string
	for _, m := range regexp.MustCompile(`(?m)^### (.*)$`).FindAllStringSubmatch(text, -1) {
		shown = append(shown, m[1])
	}
	var names []string
	for name := range tree {
		names = append(names, name)
	}
	same(t, "commands", shown, names)

	common := []string{"config", "adapter", "address", "ca", "format", "help"}
	flag, usage := regexp.MustCompile("--([a-z-]+)"), regexp.MustCompile("(?m)^ +(?:-., )?--([a-z-]+)")
	for _, name := range shown {
		cmd := tree[name]
		if cmd == nil {
			continue
		}
		of := section(t, text, "### "+name)
		if !strings.Contains(of, "    caddy dns-persist "+name) {
			t.Errorf("%s has no example", name)
		}
		for _, m := range usage.FindAllStringSubmatch(cmd.Flags().FlagUsages(), -1) {
			if !slices.Contains(common, m[1]) && !regexp.MustCompile("--"+m[1]+`\b`).MatchString(of) {
				t.Errorf("%s: the flag --%s is not documented", name, m[1])
			}
		}
		for _, m := range flag.FindAllStringSubmatch(of, -1) {
			if cmd.Flags().Lookup(m[1]) == nil {
				t.Errorf("%s has no flag --%s", name, m[1])
			}
		}
	}
	// other pages name commands too
	for _, name := range pages(t) {
		for _, m := range regexp.MustCompile("caddy dns-persist (account [a-z]+|[a-z]+)").FindAllStringSubmatch(page(t, name), -1) {
			command, _, _ := strings.Cut(m[1], " ")
			if tree[m[1]] == nil && tree[command] == nil {
				t.Errorf("%s: there is no command %s", name, m[1])
			}
		}
	}
}

// commands returns the commands that do something, by their names.
func commands(t *testing.T) map[string]*cobra.Command {
	t.Helper()
	registered, ok := caddycmd.Commands()["dns-persist"]
	if !ok {
		t.Fatal("dns-persist is not registered")
	}
	top := &cobra.Command{Use: "dns-persist"}
	registered.CobraFunc(top)
	all := make(map[string]*cobra.Command)
	var collect func(cmd *cobra.Command, prefix string)
	collect = func(cmd *cobra.Command, prefix string) {
		for _, sub := range cmd.Commands() {
			all[prefix+sub.Name()] = sub
			collect(sub, prefix+sub.Name()+" ")
		}
	}
	collect(top, "")
	return all
}

// The guide to the admin API has each of its paths, and no other.
func TestAdminPaths(t *testing.T) {
	guide := page(t, "docs/guides/admin-api.md")
	var real, shown []string
	for _, route := range new(dnspersist.AdminAPI).Routes() {
		real = append(real, strings.TrimSuffix(route.Pattern, "/"))
	}
	for _, m := range regexp.MustCompile("`(?:GET|POST) (/dns_persist[a-z/]*)").FindAllStringSubmatch(guide, -1) {
		shown = append(shown, strings.TrimSuffix(m[1], "/"))
	}
	same(t, "paths", shown, real)
}

// The guide to events has each of them and each key of their data, and no other.
func TestEvents(t *testing.T) {
	guide, code := page(t, "docs/guides/events.md"), page(t, "dnspersist/internal/events/data.go")
	words := func(text, pattern string) (all []string) {
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
			all = append(all, m[1])
		}
		return all
	}
	same(t, "events", firstWords(rows(section(t, guide, "## The events")), 0), words(code, `= "(dns_persist_[a-z_]+)"`))
	_, record, _ := strings.Cut(page(t, "dnspersist/internal/site/site.go"), ") LogFields(")
	record, _, _ = strings.Cut(record, "\n}\n")
	same(t, "keys of data", firstWords(rows(section(t, guide, "## The data")), 0),
		append(words(code, `d\["([a-z_]+)"\]`), words(record, `zap\.\w+\("([a-z_]+)"`)...))
}

// JSON in the docs is JSON.
func TestJSONIsJSON(t *testing.T) {
	for _, name := range pages(t) {
		for _, m := range regexp.MustCompile("(?s)```json\n(.*?)\n```").FindAllStringSubmatch(page(t, name), -1) {
			if !json.Valid([]byte(m[1])) {
				t.Errorf("%s: not JSON:\n%s", name, m[1])
			}
		}
	}
}

// What is publicly known of CAs is the same in the README and in what `probe` shows.
func TestKnownCAs(t *testing.T) {
	var shown [][]string
	for _, row := range rows(section(t, page(t, "README.md"), "## Does my CA offer it?")) {
		if !strings.HasPrefix(row[0], "Pebble") { // which has no address of its own
			answer, _, _ := strings.Cut(strings.Trim(row[1], "*"), ",")
			shown = append(shown, []string{row[0], answer, row[2]})
		}
	}
	var known [][]string
	for _, ca := range acmepersist.KnownCAs() {
		known = append(known, []string{ca.Name, ca.Offered, ca.Seen})
	}
	if !reflect.DeepEqual(shown, known) {
		t.Errorf("the README has %q, and `probe` %q", shown, known)
	}
}
