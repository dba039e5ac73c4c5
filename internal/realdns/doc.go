// Package realdns runs real name servers on this machine, for tests: BIND and Knot as
// authoritative servers, Unbound as the resolver of a CA. None needs root or a fixed port. A
// test is skipped where a program is missing, unless DNSPERSIST_REQUIRE_SERVERS is set.
package realdns
