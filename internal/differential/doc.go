// Package differential compares the predictions of package record with what Pebble's
// validator says about the same TXT sets in real orders. It has tests only.
package differential
