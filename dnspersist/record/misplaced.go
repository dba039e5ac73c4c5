package record

import "strings"

// Misplacement is a name at which people put the record of a domain by mistake.
type Misplacement struct {
	// Name is where the record may be, without final dot.
	Name string
	// Why is what was mistaken.
	Why string
	// Conclusive is set if any TXT record at Name was meant for the validation name.
	Conclusive bool
}

// misspelled are ways to write Label that were seen, or are near.
var misspelled = []struct{ label, why string }{
	{"validation-persist", "the underscore is missing"},
	{"_validation_persist", "the label has an underscore in place of its hyphen"},
	{"_validationpersist", "the hyphen of the label is missing"},
	{"_validation-presist", "the label is misspelled"}, //nolint:misspell // that is the point
	{"_validate-persist", "the label is misspelled"},
	{"_persist-validation", "the words of the label are in the wrong order"},
}

// Misplacements returns where people put the record of an identifier by mistake: under a
// misspelled label, at the name of dns-01, with the zone appended once more, at the host
// itself, at its "www" or at the domain in place of a name below it. zone is the zone of the
// validation name, without final dot. It is nil for what is not a domain name.
func Misplacements(identifier, zone string) []Misplacement {
	normal, err := Normalize(identifier)
	if err != nil {
		return nil
	}
	base := Base(normal)
	right := Label + "." + base
	all := []Misplacement{{right + "." + zone, "the zone's name was appended twice", true}}
	for _, m := range misspelled {
		all = append(all, Misplacement{m.label + "." + base, m.why, true})
	}
	all = append(all,
		Misplacement{Label + ".*." + base, "the star of the wildcard was left in the name", true},
		Misplacement{"_acme-challenge." + base, "that is the name of the challenge dns-01", false},
		Misplacement{base, "the label " + Label + " before it is missing", false},
		Misplacement{Label + ".www." + base, "that is the name for www." + base, false},
	)
	if _, parent, ok := strings.Cut(base, "."); ok && parent != zone && strings.HasSuffix(parent, "."+zone) {
		all = append(all, Misplacement{Label + "." + parent, "that is the name for " + parent, false})
	}
	if base != zone {
		all = append(all, Misplacement{Label + "." + zone, "that is the name for the domain itself", false})
	}
	kept := all[:0]
	for _, m := range all {
		if m.Name != right && len(m.Name) <= 253 && (m.Name == zone || strings.HasSuffix(m.Name, "."+zone)) {
			kept = append(kept, m)
		}
	}
	return kept
}
