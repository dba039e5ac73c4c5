// Package cluster tests three Caddys, each a process of its own, on a storage in Redis, while what goes
// wrong in such a cluster goes wrong: nodes are killed, frozen or cut off, Redis is slow or has lost all
// that it had, a clock is ahead. The tests have the build tag long and need a redis-server.
package cluster
