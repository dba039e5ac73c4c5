package acmepersist

import (
	"net/http"
	"time"
)

// NewTransport returns what carries requests to a CA: a connection that goes silent is given up
// after half a minute. An HTTP/2 client goes on using it otherwise, and no request comes through
// for as long as it takes the kernel to give up, a quarter of an hour or for ever.
func NewTransport() *http.Transport {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.HTTP2 = &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second}
	transport.TLSHandshakeTimeout, transport.ResponseHeaderTimeout = requestTimeout, requestTimeout
	transport.MaxResponseHeaderBytes = 256 << 10
	transport.MaxIdleConnsPerHost = 8
	return transport
}

var defaultTransport = NewTransport()
