package propagation

import (
	"slices"
	"strings"
)

// AliasEnd is where the CNAMEs at the name end, without final dot: that is where the record has
// to stand. It is empty if the name has no CNAME, and if they lead nowhere (see Problem).
func (r Report) AliasEnd() string {
	if r.Problem == CodeAliasLoop {
		return ""
	}
	end := r.Name
	for range maxAliases + 1 {
		i := slices.IndexFunc(r.Servers, func(s ServerReport) bool { return s.Name == end && (s.Alias != "" || s.Via != "") })
		if i < 0 {
			break
		}
		s := r.Servers[i]
		if s.Via != "" {
			return strings.TrimSuffix(s.Via, ".") // a resolver has followed all of them
		}
		end = strings.TrimSuffix(s.Alias, ".")
	}
	if end == r.Name {
		return ""
	}
	return end
}
