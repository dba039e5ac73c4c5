package record

import "testing"

// The label stands in other people's zones for ever. Worked out with another program:
// base32(sha256(domain)[:16]).
func TestDelegationLabel(t *testing.T) {
	for domain, want := range map[string]string{
		"example.com":     "un42n5xov642kxrxrqiyanhcou",
		"www.example.com": "qd6a7ojgnw33qp4fquh2bzsurm",
	} {
		if got := DelegationLabel(domain); got != want {
			t.Errorf("%s: %s, want %s", domain, got, want)
		}
	}
}
