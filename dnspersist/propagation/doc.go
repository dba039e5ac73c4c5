// Package propagation finds out whether a DNS record is visible wherever a
// certification authority may look for it, and waits for it at a low price.
//
// A CA's resolver picks any of a zone's authoritative servers. One that
// answers "no" therefore fails the validation whenever it is picked, however
// many others have the record; one that is silent, lame or failing is routed
// around. Hence the rule of [Gate]: any authoritative "no" blocks; broken or
// silent servers are excused after a grace; never a majority, never the first
// yes, and never "go ahead" because a time is up.
//
// The parts, from the bottom up: internal/ask asks one server one question;
// internal/zones finds the servers of a name; a [Checker] asks all of them
// ([Checker.Look]) or, when it polls, one; a [Gate] turns rounds of answers into
// a [Report]; a [Scheduler] polls many names for a whole process. A poll of a name that was absent is
// one question, to a server that the last look has found: while the answer is "no", nothing depends on
// whether that is still the right one, and every half hour it is made sure.
//
// The package knows nothing of ACME or of the syntax of a record: what is
// acceptable is for [Target.Accept] to decide.
package propagation
