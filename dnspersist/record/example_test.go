package record_test

import (
	"fmt"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// A record is made for a name, and judged as the CA will judge it.
func Example() {
	name, err := record.ValidationName("*.stra\u00dfe.example")
	if err != nil {
		fmt.Println(err)
		return
	}
	value := record.Value{
		IssuerDomainName: "ca.example",
		AccountURI:       "https://ca.example/acct/1",
		Wildcard:         true,
	}
	fmt.Println(name, "TXT", record.Quote(value.String()))

	want := record.Requirement{
		IssuerDomainNames: []string{"ca.example"},
		AccountURI:        "https://ca.example/acct/1",
		Wildcard:          true,
	}
	published := []string{"ca.example; accounturi=https://ca.example/acct/1"}
	fmt.Println(record.Evaluate(published, want, time.Now()).Explain())
	published = append(published, value.String())
	fmt.Println(record.Evaluate(published, want, time.Now()).Good())
	// Output:
	// _validation-persist.xn--strae-oqa.example TXT "ca.example; accounturi=https://ca.example/acct/1; policy=wildcard"
	// policy=wildcard is missing, the name is a wildcard: publish the value with it
	// true
}
