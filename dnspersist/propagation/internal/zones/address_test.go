package zones

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

func TestIsPrivate(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]bool{
		"192.0.2.1": false, "8.8.8.8": false, "2001:db8::1": false, "2001:4860:4860::8888": false,
		"64:ff9b::808:808": false, "2002:808:808::1": false,
		"10.1.2.3": true, "172.16.0.1": true, "192.168.1.1": true, "127.0.0.1": true, "169.254.1.1": true,
		"100.64.0.1": true, "0.1.2.3": true, "255.255.255.255": true, "224.0.0.1": true,
		"::1": true, "::": true, "fe80::1": true, "fc00::1": true, "fec0::1": true, "ff02::1": true,
		"::ffff:10.0.0.1": true, "64:ff9b::a00:1": true, "2002:7f00:1::": true,
		// what translators and tunnels of a network reach
		"64:ff9b:1::10.0.0.1": true, "64:ff9b:1::8.8.8.8": true, "::10.0.0.1": true, "::8.8.8.8": true, "::ffff:0:10.0.0.1": true,
		"2001:0:4136:e378::1": true, "2002:c0a8:1::1": true, "64:ff9b::c612:1": true,
		"192.0.0.1": true, "192.0.0.192": true, "192.0.0.9": false, "192.0.0.10": false, "192.0.1.1": false,
		"198.18.0.1": true, "198.19.255.255": true, "198.20.0.1": false, "198.51.100.1": false, "203.0.113.1": false,
		"168.63.129.16": true, "168.63.129.17": false, "192.88.99.2": true,
		"100::1": true, "5f00::1": true, "3fff::1": true, "4000::1": true, "200::1": true,
		"2001:1::1": false, "2001:1::4": true, "2001:2::1": true, "2001:4:112::1": false, "2001:200::1": false,
		"fe80::1%eth0": true, "fd00:ec2::253": true,
	} {
		if got := IsPrivate(netip.MustParseAddr(s)); got != want {
			t.Errorf("IsPrivate(%s) = %v, want %v", s, got, want)
		}
	}
}

// Networks can be added, and with allow_private_ns none counts.
func TestFence(t *testing.T) {
	t.Parallel()
	more := []netip.Prefix{netip.MustParsePrefix("2001:db8:64::/96"), netip.MustParsePrefix("198.51.100.0/24")}
	for s, want := range map[string]bool{
		"2001:db8:64::10.0.0.1": true, "2001:db8:65::1": false, "198.51.100.7": true, "::ffff:198.51.100.7": true, "10.0.0.1": true,
	} {
		if got := (Fence{Private: more}).Stops(netip.MustParseAddr(s)); got != want {
			t.Errorf("%s: %v, want %v", s, got, want)
		}
		if (Fence{Open: true, Private: more}).Stops(netip.MustParseAddr(s)) {
			t.Errorf("%s is not asked although all are", s)
		}
	}
}

func TestResolverAddr(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"192.0.2.1": "192.0.2.1:53", "192.0.2.1:5353": "192.0.2.1:5353", "2001:db8::1": "[2001:db8::1]:53",
		"[2001:db8::1]": "[2001:db8::1]:53", "[2001:db8::1]:5353": "[2001:db8::1]:5353", "fe80::1%eth0": "[fe80::1%eth0]:53",
		"dns.example": "dns.example:53", "dns.example:54": "dns.example:54",
		"": "", ":53": "", "192.0.2.1:": "", "https://dns.example/q": "", "[x": "", "a b": "", "a:b:c": "",
	} {
		got, err := resolverAddr(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("resolverAddr(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
}

func TestSystemResolvers(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if _, err := systemResolvers(path); err == nil {
		t.Error("no error without the file")
	}
	if err := os.WriteFile(path, []byte("search x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := systemResolvers(path); err == nil {
		t.Error("no error without a name server")
	}
	if err := os.WriteFile(path, []byte("nameserver 192.0.2.53\nnameserver 2001:db8::53\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := systemResolvers(path)
	if err != nil || len(got) != 2 || got[0] != "192.0.2.53:53" || got[1] != "[2001:db8::53]:53" {
		t.Errorf("got %q, %v", got, err)
	}
}
