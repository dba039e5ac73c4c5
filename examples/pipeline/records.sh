#!/bin/sh
# Brings the records of a Caddyfile into DNS, before anything is deployed. It may run as often
# as it likes: a second run registers nothing, changes nothing in DNS and orders nothing.
#
#   CADDYFILE      the configuration that is to be deployed (default: Caddyfile)
#   ACCOUNT_FILE   what `caddy dns-persist account export` has written where Caddy runs: a
#                  secret of the pipeline. Only the account's URL gets into DNS.
#   NSUPDATE_KEY   file with the TSIG key that may add TXT records
#   DNS_SERVER     "host port" of the primary, if nsupdate does not find it by itself
#   TIMEOUT        how long to wait until every name server shows the records (default: 15m)
set -eu
: "${CADDYFILE:=Caddyfile}" "${TIMEOUT:=15m}" "${ACCOUNT_FILE:?}" "${NSUPDATE_KEY:?}"

# The account's key comes into the storage of this machine, once. Another one is an error.
caddy dns-persist account import "$ACCOUNT_FILE" --config "$CADDYFILE"

# Only values that are missing are added, and nobody's are removed.
changes=$(mktemp)
trap 'rm -f "$changes"' EXIT
caddy dns-persist records --config "$CADDYFILE" --format nsupdate >"$changes"
if grep -q '^update ' "$changes"; then
	{
		[ -z "${DNS_SERVER:-}" ] || echo "server $DNS_SERVER"
		cat "$changes"
	} | nsupdate -k "$NSUPDATE_KEY"
fi

# Nothing is deployed before the CA would accept every name.
caddy dns-persist check --config "$CADDYFILE" --wait --timeout "$TIMEOUT"
