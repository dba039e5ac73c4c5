// Package acmepersist obtains certificates with the ACME challenge
// dns-persist-01 (draft-ietf-acme-dns-persist): it knows what a CA offers, holds
// the account that every published record names, waits until the record is
// visible, and drives an order step by step. It works in any Go program that
// uses CertMagic or acmez; the Caddy modules are built on it.
//
// An attempt is Issuer.Obtain: it asks decide for the next step, makes it, and asks
// again, until there is a certificate or a Hold that says what to wait for. What acmez
// does not know of the challenge is read from the wire in internal/ca.
package acmepersist
