// Package record is the TXT record of the ACME challenge dns-persist-01
// (draft-ietf-acme-dns-persist): its name, its value, and what a CA makes of the
// values at a name. It is pure: no I/O, and the time is an argument.
//
// It speaks both dialects: that of drafts -00 and -01, in which the record names the
// account by its URL, and that of draft -02, in which it names it by a hash of the name,
// the account's key and its URL. Where CAs may differ, the verdict of Evaluate depends.
package record
