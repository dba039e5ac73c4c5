package publish

import (
	"context"
	"slices"
	"time"
)

// Server is what one authoritative server shows at a name.
type Server struct {
	// Address tells it from the others, and is the same whenever it answers.
	Address string
	// Values are the whole TXT values, foreign ones too.
	Values []string
}

// Standing is what the authoritative servers show at a name.
type Standing struct {
	// Zone is the apex of the zone that the name is in, without final dot.
	Zone string
	// Servers are those that answer.
	Servers []Server
	// TTL is that of the values, zero if there are none.
	TTL time.Duration
}

// Reader asks the authoritative servers what stands at a name. An error says that they do not
// tell: then nothing is written.
type Reader func(ctx context.Context, name string) (Standing, error)

// Values are those that any server shows.
func (s Standing) Values() []string {
	var all []string
	for _, server := range s.Servers {
		all = append(all, without(server.Values, all)...)
	}
	return all
}

// Everywhere are the values that each server shows.
func (s Standing) Everywhere() []string { return s.common(nil) }

// common are the values that each of the servers shows, of all if none of them is known.
func (s Standing) common(addresses []string) []string {
	var some []Server
	for _, server := range s.Servers {
		if slices.Contains(addresses, server.Address) {
			some = append(some, server)
		}
	}
	if len(some) == 0 {
		some = s.Servers
	}
	var all []string
	for _, v := range s.Values() {
		if !slices.ContainsFunc(some, func(server Server) bool { return !slices.Contains(server.Values, v) }) {
			all = append(all, v)
		}
	}
	return all
}

// at are the values of one server. known is false if it did not answer.
func (s Standing) at(address string) (values []string, known bool) {
	for _, server := range s.Servers {
		if server.Address == address {
			return server.Values, true
		}
	}
	return nil, false
}

// where are the addresses of the servers that is says yes to.
func (s Standing) where(is func(Server) bool) []string {
	var all []string
	for _, server := range s.Servers {
		if is(server) {
			all = append(all, server.Address)
		}
	}
	return all
}

// vanished are those of the values that a server which is says yes to showed, and shows no more.
// Each is compared with itself, for another one may be behind. Of one that did not answer before
// no more is known than that it lacks what all others showed.
func (s Standing) vanished(after Standing, of []string, is func(Server) bool) []string {
	var gone []string
	for _, server := range after.Servers {
		if !is(server) {
			continue
		}
		had, known := s.at(server.Address)
		if !known {
			had = s.Everywhere()
		}
		for _, v := range without(of, server.Values) {
			if slices.Contains(had, v) {
				gone = append(gone, without([]string{v}, gone)...)
			}
		}
	}
	return gone
}
