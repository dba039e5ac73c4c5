package record

import "encoding/base64"

func decodeBase64(s string) (string, error) {
	raw, err := base64.RawURLEncoding.DecodeString(s)
	return string(raw), err
}

// otherDigest hashes the inputs of draft -02's vector by another algorithm.
func otherDigest(algorithm, domain string) string {
	in := append([]byte{byte(len(domain))}, domain+vectorThumbprint+vectorURL...)
	return base64.RawURLEncoding.EncodeToString(otherAlgorithms[algorithm].sum(in))
}
