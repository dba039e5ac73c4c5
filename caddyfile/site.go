package caddyfile

import (
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// siteAddresses returns the addresses of the site that the directive is in.
//
// Helper does not offer them, and only there can be seen that the directive would have
// no effect, for Caddy drops it without a trace. They are read (nothing is changed)
// from Helper's field by reflection. Where a Caddy keeps them elsewhere, or an address
// is not understood, there are none, and the checks that need them are left out.
func siteAddresses(h httpcaddyfile.Helper) []httpcaddyfile.Address {
	var addresses []httpcaddyfile.Address
	for _, key := range siteBlock(h).Keys {
		address, err := httpcaddyfile.ParseAddress(key.Text)
		if err != nil {
			return nil
		}
		addresses = append(addresses, address.Normalize())
	}
	return addresses
}

// hasInternal reports whether `tls` has Caddy's own CA issue for the site as well, which would be used
// side by side with ours.
func hasInternal(h httpcaddyfile.Helper) bool {
	return slices.ContainsFunc(siteBlock(h).Segments, func(words caddyfile.Segment) bool {
		at := slices.IndexFunc(words, func(word caddyfile.Token) bool { return word.Text == "internal" })
		return at > 0 && words.Directive() == "tls" && (at == 1 || words[at-1].Text == "issuer")
	})
}

// siteBlock is the site's block in the Caddyfile; empty where a Caddy keeps it elsewhere.
func siteBlock(h httpcaddyfile.Helper) caddyfile.ServerBlock {
	field := reflect.ValueOf(&h).Elem().FieldByName("parentBlock")
	if !field.IsValid() || field.Type() != reflect.TypeFor[caddyfile.ServerBlock]() {
		return caddyfile.ServerBlock{}
	}
	return *(*caddyfile.ServerBlock)(field.Addr().UnsafePointer())
}

// plainHTTP reports whether all addresses are served over HTTP without TLS, so that
// Caddy wants no certificate for them.
func plainHTTP(h httpcaddyfile.Helper, addresses []httpcaddyfile.Address) bool {
	port := strconv.Itoa(caddyhttp.DefaultHTTPPort)
	if configured, ok := h.Option("http_port").(int); ok {
		port = strconv.Itoa(configured)
	}
	return len(addresses) > 0 && !slices.ContainsFunc(addresses, func(a httpcaddyfile.Address) bool {
		return a.Scheme != "http" && a.Port != port
	})
}

// hostless reports whether the site answers for any name. Its certificates are those of
// the policy for all other names, which the global options make too.
func hostless(addresses []httpcaddyfile.Address) bool {
	return slices.ContainsFunc(addresses, func(a httpcaddyfile.Address) bool { return a.Host == "" })
}

// listed names addresses to a person.
func listed(addresses []httpcaddyfile.Address) string {
	names := make([]string, 0, len(addresses))
	for _, address := range addresses {
		names = append(names, address.Original)
	}
	return strings.Join(names, ", ")
}
