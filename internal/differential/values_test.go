package differential

import (
	"fmt"
	"slices"
	"strings"
)

// draft is a value before it is written down.
type draft struct {
	issuer string
	params []string
	// tail is behind everything.
	tail string
}

// render joins the parts, with white space where it may be.
func (d draft) render(g *generator) string {
	gap := func() string { return pick(g, " ", " ", " ", " ", "", "", "  ", "\t", " \t ") }
	var b strings.Builder
	if g.chance(5) {
		b.WriteString(gap())
	}
	b.WriteString(d.issuer)
	for _, p := range d.params {
		if g.chance(8) {
			b.WriteString(gap())
		}
		b.WriteByte(';')
		b.WriteString(gap())
		b.WriteString(p)
	}
	b.WriteString(d.tail)
	return b.String()
}

// ours draws a value that a CA accepts, unless it lacks policy=wildcard.
func (g *generator) ours() draft {
	d := draft{issuer: pick(g, issuers[0], issuers[0], issuers[1])}
	d.params = append(d.params, g.spell("accounturi")+"="+accountMark)
	likely := 35
	if g.wildcard {
		likely = 85
	}
	switch {
	case g.chance(likely):
		d.params = append(d.params, g.spell("policy")+"="+pick(g, "wildcard", "wildcard", "wildcard", "Wildcard", "WILDCARD"))
	case g.chance(20):
		d.params = append(d.params, "policy="+pick(g, "", "none", "wildcards", "wild", "wildcard,other", "*"))
	}
	if g.chance(25) {
		until := pick(g, "{now+200}", "{now+86400}", "9223372036854775807", "253402300800", "0004102444800", "+4102444800",
			fmt.Sprint(4_000_000_000+g.Int64N(5_000_000_000)))
		d.params = append(d.params, g.spell("persistUntil")+"="+until)
	}
	if g.chance(15) {
		d.params = append(d.params, pick(g, "x=y", "note=", "a-b_c=d=e", "x="+strings.Repeat("0123456789", 1+g.IntN(60)), "ümlaut=a", "tag with space=1", `q"uote=1`, `b\s=1`))
	}
	g.Shuffle(len(d.params), func(i, j int) { d.params[i], d.params[j] = d.params[j], d.params[i] })
	if g.chance(5) {
		i := g.IntN(len(d.params))
		tag, value, _ := strings.Cut(d.params[i], "=")
		d.params[i] = tag + pick(g, " =", "= ", " = ", "\t=\t") + value
	}
	return d
}

// spell writes a tag in some case.
func (g *generator) spell(tag string) string {
	return pick(g, tag, tag, tag, strings.ToLower(tag), strings.ToUpper(tag), strings.ToUpper(tag[:1])+tag[1:])
}

// foreign draws a value that is not for this CA.
func (g *generator) foreign() string {
	switch g.IntN(4) {
	case 0:
		return pick(g, "", " ", "\t", ";", ";;", "=", "v=spf1 -all", "google-site-verification=abc", "; accounturi="+accountMark,
			" ; accounturi="+accountMark+"; policy=wildcard", "\x00", "\xff\xfe", "é", `"`, `\`, strings.Repeat("long ", 120))
	default:
		d := g.ours()
		d.issuer = pick(g, "letsencrypt.org", "ca.example", "letsencrypt.org.", "pebble.letsencrypt.org.example", "xpebble.letsencrypt.org",
			"ebble.letsencrypt.org", "pebble.letsencrypt.org..", "pebble.letsencrypt.org .", "pebble letsencrypt.org", "pebble.letſencrypt.org",
			"pebble.letsencrypt.org\x00", "pebble.letsencrypt.org\u00a0", "\ufeffpebble.letsencrypt.org", "pebble.letsencrypt.org,second-name.lab.test", ".")
		if g.chance(40) {
			flaws[g.IntN(len(flaws))](g, &d)
		}
		return d.render(g)
	}
}

// replace sets the parameter with the tag, or removes it if there is no value.
func (d *draft) replace(tag string, with ...string) {
	d.params = slices.DeleteFunc(d.params, func(p string) bool {
		have, _, _ := strings.Cut(p, "=")
		return strings.EqualFold(strings.Trim(have, " \t"), tag)
	})
	for _, w := range with {
		d.params = append(d.params, tag+"="+w)
	}
}

func (d *draft) insert(g *generator, params ...string) {
	for _, p := range params {
		d.params = slices.Insert(d.params, g.IntN(len(d.params)+1), p)
	}
}

// flaws are what people and programs get wrong. Most make the value bad, some do not.
var flaws = []func(*generator, *draft){
	func(g *generator, d *draft) { // the account of somebody else
		d.replace("accounturi", pick(g, accountVariantNames...))
	},
	func(g *generator, d *draft) { d.replace("accounturi", pick(g, accountVariantNames...)) },
	func(g *generator, d *draft) {
		if g.chance(50) {
			d.replace("accounturi")
		} else {
			d.replace("accounturi", "")
		}
	},
	func(g *generator, d *draft) { // no policy, or an unknown one
		if g.chance(50) {
			d.replace("policy")
		} else {
			d.replace("policy", pick(g, "", "none", "wıldcard", "wildcard.", "wild card", "\"wildcard\"", "wıldcard", "ωildcard"))
		}
	},
	func(g *generator, d *draft) { // past
		d.replace("persistUntil", pick(g, "{now-200}", "{now-86400}", "0", "-1", "+5", "-0", "00000", "-9223372036854775808", "1",
			fmt.Sprint(g.Int64N(1_700_000_000)), fmt.Sprint(-g.Int64N(1<<60)), "-62135596801", "-62135596799"))
	},
	func(g *generator, d *draft) {
		d.replace("persistUntil", pick(g, "{now-200}", "{now-100000}", "1000000000"))
	},
	func(g *generator, d *draft) { // no number
		d.replace("persistUntil", pick(g, "", "9223372036854775808", "99999999999999999999", "+9223372036854775808", "18446744073709551617", "-9223372036854775809", "2099-01-01T00:00:00Z",
			"4.1e9", "4102444800.0", "0x10", "4_102_444_800", "４１０２", "4102444800s", "never", "++5", "--5", "+", "-", "4 102", "1\u00a02", "Inf"))
	},
	func(g *generator, d *draft) { // the bounds of a number
		d.replace("persistUntil", pick(g, "9223372036854775807", "9223372036854775808", "99999999999999999999", "-9223372036854775808", "-9223372036854775809",
			"00000000000000000004102444800", "-0", "+0", ""))
	},
	func(g *generator, d *draft) { // where CAs differ: the zero time of Go
		d.replace("persistUntil", pick(g, "-62135596800", "-062135596800"))
	},
	func(g *generator, d *draft) { // where CAs differ: the spelling of the issuer
		d.issuer = pick(g, strings.ToUpper(d.issuer), strings.ToUpper(d.issuer[:1])+d.issuer[1:], d.issuer+".", strings.ToUpper(d.issuer)+".")
	},
	func(g *generator, d *draft) { // where CAs differ: an unknown tag twice
		d.insert(g, pick(g, "x=1", "X=1", "note=a"), pick(g, "x=1", "x=2", "X=", "NOTE=b"))
	},
	func(g *generator, d *draft) { // a known tag twice
		p := pick(g, "accounturi="+accountMark, "policy=wildcard", "persistUntil=4102444800", "policy=", "accounturi=")
		tag, value, _ := strings.Cut(p, "=")
		d.insert(g, p, g.spell(tag)+"="+pick(g, value, value, "other"))
	},
	func(g *generator, d *draft) { // semicolons
		if g.chance(50) {
			d.tail = pick(g, ";", "; ", ";;", " ;", ";\t")
		} else {
			d.insert(g, pick(g, "", " ", "\t"))
		}
	},
	func(g *generator, d *draft) { // no parameter
		d.insert(g, pick(g, "policy", "wildcard", "=", "=x", " =x", "x", "accounturi", "é", "\x01", "==", `"`))
	},
	func(g *generator, d *draft) { // no parameters at all, or only these
		d.params = d.params[:g.IntN(len(d.params)+1)]
	},
	func(g *generator, d *draft) { // octets that a value may not hold
		odd := pick(g, "\x00", "\x01", "\x1f", "\x7f", "\x80", "\xff", "é", "日", " ", "\t", "\n", "\u2028", "\"", `\`, "\u200b")
		d.insert(g, pick(g, "x="+odd+"y", "x=y"+odd, "x="+odd, "z=y"+odd+"y", "x"+odd+"=y", odd+"x=y"))
	},
	func(g *generator, d *draft) { // the bounds of what it may
		d.insert(g, "x="+pick(g, "", "y")+pick(g, " ", "\x1f", "!", "~", "\x7f", ":", "<")+"y")
	},
	func(g *generator, d *draft) {
		odd := pick(g, "\x00", "\x7f", "\xff", "é", " ", "\t", "\n", "\"", `\`, "\r", "\u00a0", "K")
		d.replace("accounturi", pick(g, accountMark+odd, odd+accountMark, "https://"+odd+"ca.example/1"))
	},
	func(g *generator, d *draft) { // tags that only look like known ones
		p := pick(g, "perſistUntil=1", "perſistUntil=", "perſiſtUntil=never", "polıcy=wildcard", "accounturı="+accountMark, "policу=wildcard", "policy\u00a0=wildcard", "persistUntil\x00=1", "\"policy\"=wildcard", "İ=1", "persist-until=1")
		d.insert(g, p)
	},
	func(g *generator, d *draft) { // as a zone file has it
		if g.chance(50) {
			d.issuer, d.tail = `"`+d.issuer, `"`
		} else {
			d.issuer += `\`
		}
	},
	func(g *generator, d *draft) { // longer than a character-string, with a flaw at the end or not
		d.insert(g, "long="+strings.Repeat("x", 180+g.IntN(900)))
		d.tail = pick(g, "", "", ";", " ", "é", "\x00")
	},
	func(g *generator, d *draft) { // what may be trimmed, or not
		d.tail = pick(g, "\n", "\r\n", "\x00", " ", "\t", "\u00a0")
	},
}
