package lab

import (
	"testing"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// What is predicted of CAA records never contradicts the CA: all that is good it allows, all
// that is bad it refuses.
func TestCAAIsPredicted(t *testing.T) {
	const account, method, issuer = "https://ca.test/my-account/1", "dns-persist-01", "pebble.letsencrypt.org"
	issuers := []string{issuer, "PEBBLE.letsencrypt.org", issuer + ".", "other.example", "", " " + issuer + "\t"}
	params := []string{
		"", ";", ";;", "; x", "; =y", "; x=y", "; x=y z", "; x_y=z", "; x-y=z", "; x=1; x=2",
		"; accounturi=" + account, ";accounturi=" + account + ";", "; accounturi=" + account + "; accounturi=" + account, "; accounturi=" + account + "2",
		"; AccountURI=x:y", "; accounturi=acct:a@b", "; accounturi=" + account + " validationmethods=" + method,
		"; validationmethods=" + method, "; validationmethods=dns-01, " + method, "; validationmethods=" + method + ",", "; validationmethods=",
		"; validationmethods=dns-01", "; ValidationMethods=dns-01", "; validationmethods=ca-tbr-22", "; validationmethods=dns-01," + method + "; accounturi=" + account,
	}
	tags := []struct {
		tag   string
		flags uint8
	}{{"issue", 0}, {"ISSUE", 128}, {"issuewild", 0}, {"iodef", 128}, {"tbs", 0}, {"tbs", 1}, {"tbs", 128}, {"contactemail", 128}, {"contactemail", 0}}
	c := &CA{config: CAConfig{IssuerNames: []string{issuer}}}
	outcomes := make(map[record.Outlook]int)
	check := func(wildcard bool, set ...*dns.CAA) {
		var list []record.CAA
		for _, r := range set {
			list = append(list, record.CAA{Flags: r.Flag, Tag: r.Tag, Value: r.Value})
		}
		got := record.EvaluateCAA(list, record.CAARequest{IssuerDomainNames: []string{issuer}, Wildcard: wildcard, Method: method, AccountURL: account})
		outcomes[got.Outlook]++
		allowed := c.allowedByCAA(set, wildcard, method, account)
		if allowed && got.Outlook == record.OutlookBad || !allowed && got.Outlook == record.OutlookGood {
			t.Errorf("%v, wildcard %v: predicted %s (%s), the CA says %v", list, wildcard, got.Outlook, got.Reason, allowed)
		}
	}
	for _, wildcard := range []bool{false, true} {
		for _, i := range issuers {
			for _, p := range params {
				for _, tag := range tags {
					r := &dns.CAA{Flag: tag.flags, Tag: tag.tag, Value: i + p}
					check(wildcard, r)
					for _, other := range []*dns.CAA{{Tag: "issue", Value: issuer}, {Tag: "issue", Value: "other.example"}, {Tag: "issuewild", Value: ";"}} {
						check(wildcard, r, other)
					}
				}
			}
		}
	}
	t.Logf("%v", outcomes)
	for _, o := range []record.Outlook{record.OutlookGood, record.OutlookDepends, record.OutlookBad} {
		if outcomes[o] < 100 {
			t.Errorf("only %d sets are %s", outcomes[o], o)
		}
	}
}
