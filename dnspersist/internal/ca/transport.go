package ca

import (
	"net"
	"net/http"
	"time"
)

// NewTransport returns what carries requests to a CA: a connection that goes silent is given up
// after half a minute. An HTTP/2 client goes on using it otherwise, and no request comes through
// for as long as it takes the kernel to give up, a quarter of an hour or for ever.
func NewTransport() *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: requestTimeout, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:    requestTimeout,
		ResponseHeaderTimeout:  requestTimeout,
		IdleConnTimeout:        90 * time.Second,
		MaxIdleConnsPerHost:    8,
		MaxResponseHeaderBytes: 256 << 10,
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second},
	}
}

var defaultTransport = NewTransport()
