// Package dnspersist holds the Caddy modules of the ACME challenge
// dns-persist-01: the issuer tls.issuance.dns_persist and the app dns_persist,
// which sees to the names that wait for their certificate.
package dnspersist
