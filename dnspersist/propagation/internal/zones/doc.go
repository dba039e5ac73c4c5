// Package zones finds the zone that a name is in, and the addresses of its servers.
//
// A [Finder] begins with resolvers and goes on without them where answers show a zone below, for a
// resolver that is asked for a name remembers that it does not exist. It asks the zone above for
// servers that only that one lists, since a CA's resolver may use them, and it keeps what it
// learns for the whole process: a further name in a known zone costs no question.
package zones
