// Package publish puts standing records into a zone through a libdns provider, and touches
// nothing else there.
//
// Other CAs, other accounts and other software have their values at the same names. A Writer
// only ever appends, reads the authoritative servers before and after, and puts back what a
// provider has lost: some replace a whole RRset where they are asked to add to it. What stands
// is the word of the authoritative servers, not of the provider's API, which may list its
// first page only, lag, or not be there.
//
// It knows nothing of ACME and of Caddy.
package publish
