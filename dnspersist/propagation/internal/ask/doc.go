// Package ask asks one name server or resolver one question, and gets an answer wherever there is
// one to get: over UDP and TCP, with EDNS and without.
//
// It remembers what it met, so that a dead server does not cost its time-outs at every look; keeps
// the questions of a process under a pace; and charges them to the [Account] of a look, for whoever
// controls a zone chooses how many it takes.
package ask
