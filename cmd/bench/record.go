package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

const (
	issuerName = "ca.example"
	accountURL = "https://ca.example/acme/acct/4711"
	thumbprint = "LPJNul-wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ"
	hashPrefix = "https://ca.example/h/"
)

// records measures record.Evaluate on ten values.
func records(args []string, out, complaints io.Writer) error {
	flags := flag.NewFlagSet("record", flag.ContinueOnError)
	if err := parse(flags, args, complaints); err != nil {
		return err
	}
	heading(out)
	t := newTable("record.Evaluate on ten values at one name", "dialect", "the good one is", "time", "allocations", "bytes")
	for _, dialect := range []record.Dialect{record.DialectAccountURL, record.DialectHashed} {
		want := wantOf(dialect)
		good, err := goodValue(want)
		if err != nil {
			return err
		}
		for _, at := range []struct {
			name  string
			place int
		}{{"the last", 9}, {"not there", -1}} {
			values := tenValues(good, at.place)
			if record.Evaluate(values, want, time.Now()).Good() != (at.place >= 0) {
				return errors.New("the ten values are not what they should be")
			}
			r := testing.Benchmark(func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					record.Evaluate(values, want, time.Now())
				}
			})
			t.row(string(dialect), at.name, time.Duration(r.NsPerOp()), r.AllocsPerOp(), r.AllocedBytesPerOp())
		}
	}
	t.print(out)
	return nil
}

func wantOf(d record.Dialect) record.Requirement {
	return record.Requirement{
		IssuerDomainNames: []string{issuerName}, Dialect: d,
		AccountURI: accountURL, Domain: "www.example.com", AccountURL: accountURL,
		Thumbprint: thumbprint, AccountHashPrefix: hashPrefix,
	}
}

func goodValue(w record.Requirement) (string, error) {
	uri := w.AccountURI
	if w.Dialect == record.DialectHashed {
		var err error
		if uri, err = record.HashedAccountURI(w.AccountHashPrefix, w.Domain, w.Thumbprint, w.AccountURL); err != nil {
			return "", fmt.Errorf("making a hashed account URI: %w", err)
		}
	}
	return record.Value{IssuerDomainName: issuerName, AccountURI: uri}.String(), nil
}

// tenValues has what is published at a busy name: other CAs, other accounts, old and
// broken values. The good one is put in the given place, if that is one.
func tenValues(good string, place int) []string {
	values := []string{
		"other.example; accounturi=https://other.example/acct/1",
		issuerName + "; accounturi=https://ca.example/acme/acct/4712",
		issuerName + "; accounturi=https://ca.example/acme/acct/4713; policy=wildcard",
		issuerName + "; accounturi=" + accountURL + "; persistUntil=1700000000",
		issuerName + "; policy=wildcard",
		"v=spf1 include:_spf.example.com ~all",
		"third.example; accounturi=https://third.example/acct/1; policy=wildcard",
		issuerName + "; accounturi=" + hashPrefix + "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
		issuerName + "; accounturi=https://ca.example/acme/acct/4714; persistUntil=soon",
		issuerName + "; accounturi=https://ca.example/acme/acct/4715",
	}
	if place >= 0 {
		values[place] = good
	}
	return values
}
