package differential

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
)

// issuers are this CA's issuer domain names.
var issuers = []string{"pebble.letsencrypt.org", "second-name.lab.test"}

// zone has all names that are ordered.
const zone = "differential.test"

// Placeholders keep a set the same for the same seed: the account's URI, which has a
// port in it, and the time are put in at the last moment.
const (
	accountMark = "{account}"
	nowMark     = "{now" // then the offset in seconds and a brace
)

// testSet is what is published and what is ordered.
type testSet struct {
	index    uint64
	name     string // without "*."
	wildcard bool
	// raw says that Pebble sees the octets themselves, see sees.
	raw bool
	// other puts an address at the validation name, so that it exists without TXT.
	other  bool
	values []value
}

// value is one TXT record.
type value struct {
	text string
	// cuts are fractions of the text at which a new character-string begins, besides
	// every 255 octets.
	cuts []float64
}

// identifier is the name as it is ordered.
func (s testSet) identifier() string {
	if s.wildcard {
		return "*." + s.name
	}
	return s.name
}

// bind puts the account and the time in.
func (s testSet) bind(account string, now time.Time) []string {
	texts := make([]string, 0, len(s.values))
	for _, v := range s.values {
		text := strings.ReplaceAll(v.text, accountMark, account)
		for variant, f := range accountVariants {
			text = strings.ReplaceAll(text, variant, f(account))
		}
		for {
			before, rest, ok := strings.Cut(text, nowMark)
			offset, after, closed := strings.Cut(rest, "}")
			seconds, err := strconv.ParseInt(offset, 10, 32)
			if !ok || !closed || err != nil {
				break
			}
			text = fmt.Sprintf("%s%d%s", before, now.Unix()+seconds, after)
		}
		texts = append(texts, text)
	}
	return texts
}

// accountVariants are URIs that are nearly the account's.
var accountVariants = map[string]func(string) string{
	"{account/}":       func(a string) string { return a + "/" },
	"{account-short}":  func(a string) string { return a[:len(a)-1] },
	"{account-long}":   func(a string) string { return a + "0" },
	"{account-upper}":  strings.ToUpper,
	"{account-scheme}": func(a string) string { return strings.Replace(a, "https:", "HTTPS:", 1) },
	"{account-http}":   func(a string) string { return strings.Replace(a, "https:", "http:", 1) },
	"{account-path}":   func(a string) string { _, path, _ := strings.Cut(a, "//"); return path },
	"{account-query}":  func(a string) string { return a + "?a=b" },
	"{account-escape}": func(a string) string { return strings.Replace(a, "my-account", "my%2Daccount", 1) },
	"{account-other}":  func(string) string { return "https://ca.example/acct/1" },
}

var accountVariantNames = func() []string {
	var names []string
	for name := range accountVariants {
		names = append(names, name)
	}
	slices.Sort(names) // the order of a map would undo the seed
	return names
}()

// generator draws one set.
type generator struct {
	*rand.Rand
	wildcard bool
}

// generate returns a set of a seed: each is drawn on its own, so that one of them can
// be repeated without those before it.
func generate(seed, index uint64) testSet {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, index))}
	s := testSet{index: index, name: g.name(index), wildcard: g.chance(40), raw: g.chance(50), other: g.chance(10)}
	g.wildcard = s.wildcard
	for range pick(g, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3, 4, 6) {
		s.values = append(s.values, g.value())
	}
	if len(s.values) > 0 && g.chance(5) {
		s.values = append(s.values, s.values[0])
	}
	if len(s.values) > 0 && g.chance(4) { // one value as two records
		first := &s.values[0]
		i := int(g.Float64() * float64(len(first.text)))
		s.values = append(s.values, value{text: first.text[i:]})
		first.text = first.text[:i]
	}
	return s
}

func (g *generator) chance(percent int) bool { return g.IntN(100) < percent }

func pick[T any](g *generator, options ...T) T { return options[g.IntN(len(options))] }

// name returns a name of its own for each index.
func (g *generator) name(index uint64) string {
	const first, inner = "abcdefghijklmnopqrstuvwxyz0123456789", "abcdefghijklmnopqrstuvwxyz0123456789---"
	label := func(length int) string {
		var b strings.Builder
		for i := range length {
			alphabet := inner
			if i == 0 || i == length-1 {
				alphabet = first
			}
			b.WriteByte(alphabet[g.IntN(len(alphabet))])
		}
		return b.String()
	}
	name := "n" + strconv.FormatUint(index, 36) + "." + zone
	for range pick(g, 0, 0, 1, 1, 2, 5) {
		l := label(pick(g, 1, 2, 5, 12, 30, 63))
		if l[0] == 'x' || len(l)+1+len(name) > 233 { // no broken A-labels
			continue
		}
		name = l + "." + name
	}
	return name
}

// value draws one value: of this CA, well formed or with a few flaws, or of others.
func (g *generator) value() value {
	var text string
	switch n := g.IntN(100); {
	case n < 14:
		text = g.foreign()
	case n < 42:
		text = g.ours().render(g)
	default:
		r := g.ours()
		for range pick(g, 1, 1, 1, 2) {
			flaws[g.IntN(len(flaws))](g, &r)
		}
		text = r.render(g)
		if g.chance(25) {
			text = g.mutate(text)
		}
	}
	v := value{text: text}
	if g.chance(20) {
		for range 1 + g.IntN(4) {
			v.cuts = append(v.cuts, g.Float64())
		}
		slices.Sort(v.cuts)
	}
	return v
}

// mutate changes a few octets.
func (g *generator) mutate(text string) string {
	const likely = ";; ==\t\"\\\x00\x7f\x80\xff\xc3\xa9.aZ09_-"
	b := []byte(text)
	for range 1 + g.IntN(3) {
		if len(b) == 0 {
			break
		}
		i, c := g.IntN(len(b)), likely[g.IntN(len(likely))]
		if g.chance(30) {
			c = byte(g.IntN(256))
		}
		switch g.IntN(6) {
		case 0:
			b[i] = c
		case 1:
			b = slices.Insert(b, i, c)
		case 2:
			b = slices.Delete(b, i, i+1)
		case 3:
			b[i] ^= 1 << g.IntN(8)
		case 4:
			b = append(b, b[i:]...)
		case 5:
			b = b[:i]
		}
	}
	return string(b)
}
