// Package formats writes the records that are to be published in the forms other tools take:
// a zone file, a script for nsupdate, a change batch for Route 53, a zone of octoDNS and
// variables for Terraform.
//
// Nothing here looks anything up: an RRset has what is published and what is to be added. Two of
// the formats only add. The others set the whole TXT record set of a name, and what they do
// not repeat would be gone; they refuse a set of which it is not known what is published, and a
// published value that they cannot hold exactly.
//
// A published record is known by its whole value. Where it was cut into character-strings in
// an unusual way, a format that sets the whole record set cuts it at 255 octets, which no
// reader of TXT records can tell apart.
package formats
