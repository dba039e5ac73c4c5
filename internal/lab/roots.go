package lab

import "encoding/pem"

// IssuanceRootsPEM is the present issuance roots as a PEM bundle, for clients that
// want a file.
func (c *CA) IssuanceRootsPEM() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	var bundle []byte
	for i := range c.pebble.ca.GetNumberOfRootCerts() {
		bundle = append(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.pebble.ca.GetRootCert(i).Cert.Raw})...)
	}
	return bundle
}

// IssuanceRootNames is the common names of the present issuance roots, the one of the
// default chain first.
func (c *CA) IssuanceRootNames() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for i := range c.pebble.ca.GetNumberOfRootCerts() {
		names = append(names, c.pebble.ca.GetRootCert(i).Cert.Subject.CommonName)
	}
	return names
}
