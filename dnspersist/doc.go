// Package dnspersist holds the Caddy modules of the ACME challenge
// dns-persist-01: the issuer tls.issuance.dns_persist and the app dns_persist,
// which sees to the domains that wait for their certificate. docs/design.md follows one
// certificate from the Caddyfile to the CA, call by call.
package dnspersist
