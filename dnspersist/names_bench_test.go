package dnspersist

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/operator"
)

// Ten thousand names, half of which are held, are answered for at once: the first page, and all of them.
func BenchmarkNamesOfTenThousand(b *testing.B) {
	var names []string
	for i := range 10_000 {
		names = append(names, fmt.Sprintf("site%d.example", i))
	}
	a, o := newOwner(b, `{"tls":{"certificates":{"automate":["`+strings.Join(names, `","`)+`"]},"automation":{"policies":[{"issuers":[{"module":"dns_persist","ca":"https://ca.test/dir"}]}]}}}`)
	a.shared.registry.Start(a.waits)
	for _, name := range names[:len(names)/2] {
		attempt, err := a.shared.registry.Begin(b.Context(), o, name)
		if err != nil {
			b.Fatal(err)
		}
		attempt.Settle(b.Context(), &acmepersist.Hold{
			Reason: acmepersist.ReasonAccount, Domain: name, CA: "https://ca.test/dir", Until: time.Now().Add(time.Hour), Err: fmt.Errorf("the account of %s is lost", name),
		})
	}
	for path, pages := range map[string]int{"names": 1, "names?limit=1000": 10} {
		b.Run(fmt.Sprintf("%d pages", pages), func(b *testing.B) {
			for b.Loop() {
				after := ""
				for range pages {
					w := httptest.NewRecorder()
					r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, operator.Prefix+path+"&after="+after, nil)
					if pages == 1 {
						r = httptest.NewRequestWithContext(b.Context(), http.MethodGet, operator.Prefix+path, nil)
					}
					for _, h := range operator.Handlers() {
						if h.Path == "names" {
							if err := h.Answer(a.operator(), w, r); err != nil {
								b.Fatal(err)
							}
						}
					}
					_, rest, _ := strings.Cut(w.Body.String(), `"after":"`)
					after, _, _ = strings.Cut(rest, `"`)
				}
			}
		})
	}
}
