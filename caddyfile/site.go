package caddyfile

import (
	"reflect"
	"slices"
	"strconv"
	"strings"

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
	block := reflect.ValueOf(h).FieldByName("parentBlock")
	if block.Kind() != reflect.Struct {
		return nil
	}
	keys := block.FieldByName("Keys")
	if keys.Kind() != reflect.Slice || keys.Type().Elem().Kind() != reflect.Struct {
		return nil
	}
	addresses := make([]httpcaddyfile.Address, 0, keys.Len())
	for i := range keys.Len() {
		text := keys.Index(i).FieldByName("Text")
		if text.Kind() != reflect.String {
			return nil
		}
		address, err := httpcaddyfile.ParseAddress(text.String())
		if err != nil {
			return nil
		}
		addresses = append(addresses, address.Normalize())
	}
	return addresses
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
