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
	var addresses []httpcaddyfile.Address
	for _, text := range texts(siteField(h, "Keys")) {
		address, err := httpcaddyfile.ParseAddress(text)
		if err != nil {
			return nil
		}
		addresses = append(addresses, address.Normalize())
	}
	return addresses
}

// hasInternal reports whether `tls` has Caddy's own CA issue for the site as well, which would be used
// side by side with ours. It is read as the addresses are.
func hasInternal(h httpcaddyfile.Helper) bool {
	segments := siteField(h, "Segments")
	if segments.Kind() != reflect.Slice {
		return false
	}
	for i := range segments.Len() {
		words := texts(segments.Index(i))
		if at := slices.Index(words, "internal"); at > 0 && words[0] == "tls" && (at == 1 || words[at-1] == "issuer") {
			return true
		}
	}
	return false
}

// siteField is a field of the site's block in the Caddyfile; invalid where a Caddy has none.
func siteField(h httpcaddyfile.Helper, name string) reflect.Value {
	block := reflect.ValueOf(h).FieldByName("parentBlock")
	if block.Kind() != reflect.Struct {
		return reflect.Value{}
	}
	return block.FieldByName(name)
}

// texts are those of tokens; none if it is not tokens.
func texts(tokens reflect.Value) []string {
	if tokens.Kind() != reflect.Slice || tokens.Type().Elem().Kind() != reflect.Struct {
		return nil
	}
	var all []string
	for i := range tokens.Len() {
		text := tokens.Index(i).FieldByName("Text")
		if text.Kind() != reflect.String {
			return nil
		}
		all = append(all, text.String())
	}
	return all
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
