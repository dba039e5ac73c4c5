package ca

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"unicode"

	"github.com/mholt/acmez/v3/acme"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
)

// answering is a CA that always says the same.
func answering(status int, header http.Header, body io.Reader) http.RoundTripper {
	return roundTrip(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: status, Status: fmt.Sprint(status), Header: header, Body: io.NopCloser(body)}, nil
	})
}

func through(t *testing.T, base http.RoundTripper) (*http.Response, error) {
	t.Helper()
	return door{base, "https://ca.example/dir"}.RoundTrip(httptest.NewRequest(http.MethodPost, "https://ca.example/order", nil))
}

// endless is a body without end, as far as anybody reads.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	e.read += len(p)
	return len(p), nil
}

func TestAnswersAreBounded(t *testing.T) {
	for _, kind := range []string{"application/problem+json", "text/html", "application/json", "application/pem-certificate-chain"} {
		for _, status := range []int{200, 403, 500} {
			body := &endless{}
			resp, err := through(t, answering(status, http.Header{"Content-Type": {kind}}, body))
			text := ""
			if err != nil {
				text = err.Error()
			} else {
				all, _ := io.ReadAll(resp.Body)
				text = string(all)
			}
			if (status == 200) != isUnusable(err) || !strings.Contains(text, "more than 1048576 octets") || len(text) > 2000 {
				t.Errorf("%d, %s: %d octets, %.200s, %v", status, kind, len(text), text, err)
			}
			if body.read > 2<<20 {
				t.Errorf("%d, %s: %d octets were read", status, kind, body.read)
			}
		}
	}
}

const hostile = "\x1b[2J\nlevel=error msg=fake\u202e\u0085\u00ad"

func isClean(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return unicode.In(r, unicode.C, unicode.Zl, unicode.Zp) })
}

func TestProblemsFitIntoMessages(t *testing.T) {
	long := strings.Repeat(hostile, 40)
	var subs []map[string]any
	for range 30 {
		subs = append(subs, map[string]any{"type": long, "detail": long, "identifier": map[string]any{"type": "dns", "value": long}})
	}
	problem := map[string]any{"type": acme.ProblemTypeNamespace + "rejectedIdentifier", "detail": long, "instance": long, "title": long, "subproblems": subs}
	body, err := json.Marshal(problem)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := through(t, answering(403, http.Header{"Content-Type": {"application/problem+json; charset=utf-8"}}, strings.NewReader(string(body))))
	if err != nil {
		t.Fatal(err)
	}
	var got acme.Problem
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if text := got.Error(); !isClean(text) || len(text) > 2500 || got.Type != problem["type"] || !strings.Contains(text, `\x1b[2J\nlevel`) || !strings.Contains(text, "more problems") {
		t.Errorf("%d octets: %s", len(text), text)
	}

	// the errors of an authorization's challenges, and of an order
	body, err = json.Marshal(map[string]any{"status": "invalid", "challenges": []any{map[string]any{"type": ChallengeType, "url": "https://ca.example/c", "error": problem}}, "Error": problem})
	if err != nil {
		t.Fatal(err)
	}
	resp, err = through(t, answering(200, http.Header{"Content-Type": {"application/json"}}, strings.NewReader(string(body))))
	if err != nil {
		t.Fatal(err)
	}
	var authz acme.Authorization
	all, _ := io.ReadAll(resp.Body)
	if err := json.Unmarshal(all, &authz); err != nil || authz.Challenges[0].Error == nil || !isClean(authz.Challenges[0].Error.Error()) {
		t.Errorf("%v, %+v", err, authz)
	}
	var order acme.Order
	if err := json.Unmarshal(all, &order); err != nil || order.Error == nil || !isClean(order.Error.Error()) || len(order.Error.Error()) > 2500 {
		t.Errorf("%v, %+v", err, order)
	}
}

// What is no problem document, what comes in headers, and what only the connection says.
func TestOtherTextsFitIntoMessages(t *testing.T) {
	for _, kind := range []string{"text/html", "application/problem+json", "application/json", ""} {
		resp, err := through(t, answering(502, http.Header{"Content-Type": {kind}}, strings.NewReader("<html>"+strings.Repeat(hostile, 1000))))
		if err != nil {
			t.Fatal(err)
		}
		if body, _ := io.ReadAll(resp.Body); !isClean(string(body)) || len(body) > 1100 || !strings.HasPrefix(string(body), "<html>") {
			t.Errorf("%s: %q", kind, body)
		}
	}
	resp, err := through(t, answering(201, http.Header{"Location": {"https://ca.example/acct/\u202e1"}, "Content-Type": {"application/json" + hostile}}, strings.NewReader("{}")))
	if err != nil {
		t.Fatal(err)
	}
	if l := resp.Header.Get("Location"); l != `https://ca.example/acct/\u202e1` || !isClean(resp.Header.Get("Content-Type")) {
		t.Errorf("%q", resp.Header)
	}
	cause := errors.New("x509: certificate is valid for " + strings.Repeat(hostile, 1000))
	_, err = through(t, roundTrip(func(*http.Request) (*http.Response, error) { return nil, cause }))
	if !errors.Is(err, cause) || !isClean(err.Error()) || len(err.Error()) > 1000 {
		t.Errorf("%v", err)
	}
}

// A CA that is asked over https may lead nowhere else.
func TestOnlyEncrypted(t *testing.T) {
	const listed = `{"newNonce":"https://ca.example/n","newAccount":"https://ca.example/a","newOrder":"https://ca.example/o"`
	for name, tt := range map[string]struct{ url, body, want string }{
		"all https":        {"https://ca.example/dir", listed + `}`, ""},
		"an http CA":       {"http://127.0.0.1/dir", `{"newNonce":"http://127.0.0.1/n","newAccount":"http://127.0.0.1/a","newOrder":"http://127.0.0.1/o"}`, ""},
		"http listed":      {"https://ca.example/dir", listed + `,"keyChange":"http://ca.example/k"}`, "leads to http://ca.example/k, which is not encrypted"},
		"an http order":    {"https://ca.example/dir", strings.Replace(listed, "https://ca.example/o", "HTTP://ca.example/o", 1) + `}`, "not encrypted"},
		"revocation":       {"https://ca.example/dir", listed + `,"revokeCert":"http://ca.example/r"}`, "not encrypted"},
		"ARI":              {"https://ca.example/dir", listed + `,"renewalInfo":"http://ca.example/r"}`, "not encrypted"},
		"something else":   {"https://ca.example/dir", listed + `,"keyChange":"ftp://ca.example/k"}`, "not encrypted"},
		"no newOrder":      {"https://ca.example/dir", `{"newNonce":"https://ca.example/n","newAccount":"https://ca.example/a"}`, "not an ACME directory"},
		"in capitals only": {"https://ca.example/dir", strings.Replace(listed, "https://ca.example/o", "HTTPS://ca.example/o", 1) + `}`, ""},
	} {
		_, err := parseDirectory(tt.url, []byte(tt.body))
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
	asked := false
	plain := roundTrip(func(*http.Request) (*http.Response, error) {
		asked = true
		return nil, errors.New("asked in clear")
	})
	d := door{plain, "https://ca.example/dir"}
	if _, err := d.RoundTrip(httptest.NewRequest(http.MethodPost, "http://ca.example/order", nil)); !isUnusable(err) || asked {
		t.Errorf("%v, asked: %v", err, asked)
	}
	_, err := through(t, answering(201, http.Header{"Location": {"http://ca.example/acct/1"}}, strings.NewReader("{}")))
	if !isUnusable(err) {
		t.Errorf("an account with a URL that is not encrypted: %v", err)
	}
}

// The directory is fetched through redirects, but not to where it is not encrypted, and such a
// CA is not asked again and again.
func TestDirectoryDoesNotRedirectToPlainText(t *testing.T) {
	hits := 0
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hits++
		http.Redirect(w, r, "http://ca.example:8080/dir", http.StatusFound)
	}))
	defer srv.Close()
	_, err := New(Config{URL: srv.URL + "/dir", Transport: srv.Client().Transport}).Open(t.Context())
	if err == nil || !strings.Contains(err.Error(), "leads to http://ca.example:8080/dir, which is not encrypted") || hits != 1 {
		t.Errorf("%v after %d requests", err, hits)
	}
}

// FuzzPlainAnswers shows that an answer which is not written anew means what it would mean if it were.
func FuzzPlainAnswers(f *testing.F) {
	f.Add(anAuthorization)
	f.Add(`{"a":"\u0061","Error":{"detail":"x"}}`)
	f.Add(`{"a":["b"],"a":1e400,"A":null}`)
	f.Add(" [\"\x7f\"]\n")
	f.Fuzz(func(t *testing.T, body string) {
		if !isPlain([]byte(body)) {
			return
		}
		clean, ok := cleanJSON([]byte(body), false)
		if !ok {
			t.Fatalf("%q is not JSON", body)
		}
		if got, want := decoded(t, []byte(body)), decoded(t, clean); !reflect.DeepEqual(got, want) {
			t.Fatalf("%q means %v, and %v when it is written anew", body, got, want)
		}
	})
}

// decoded is what a JSON text means, with its numbers as they are written.
func decoded(t *testing.T, text []byte) (value any) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&value); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return value
}

func TestPlainAnswers(t *testing.T) {
	for body, want := range map[string]bool{
		anAuthorization: true, `{}`: true, ` [ 1 ] `: true, `{"a":"` + strings.Repeat("x", foreign.MaxText) + `"}`: true,
		`{"a":"` + strings.Repeat("x", foreign.MaxText+1) + `"}`: false, `{"a":"é"}`: false, `{"a":"\u001b"}`: false, `{"eRRor":null}`: false,
		`{"a":"`: false, `{}{}`: false, ``: false, "{\"a\":\"\n\"}": false, `["` + "\x7f" + `"]`: false,
	} {
		if isPlain([]byte(body)) != want {
			t.Errorf("%.100q: %v", body, !want)
		}
	}
}

// anAuthorization is a usual one.
const anAuthorization = `{"status":"pending","identifier":{"type":"dns","value":"www.example.com"},"expires":"2026-11-30T22:32:03Z","challenges":[
	{"type":"dns-01","url":"https://ca.example/chall/1","status":"pending","token":"LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0"},
	{"type":"dns-persist-01","url":"https://ca.example/chall/2","status":"pending","accounturi":"https://ca.example/acct/1","issuer-domain-names":["ca.example"]}]}`

// BenchmarkAnswer is an authorization on its way from the connection to acmez.
func BenchmarkAnswer(b *testing.B) {
	for name, body := range map[string]string{"plain": anAuthorization, "cleaned": strings.Replace(anAuthorization, "pending", "\\u0070ending", 1)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			directory := &Directory{URL: "https://ca.example/dir"}
			for b.Loop() {
				base := answering(http.StatusOK, http.Header{"Content-Type": {"application/json"}}, strings.NewReader(body))
				w := &wire{base: door{base, directory.URL}, directory: directory}
				resp, err := w.RoundTrip(httptest.NewRequest(http.MethodPost, "https://ca.example/authz", nil))
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil || w.challenge("https://ca.example/chall/2").AccountURI == "" {
					b.Fatal("the challenge was not noted", err)
				}
			}
		})
	}
}

// FuzzDoor drives any answer of a CA through to the errors that are made of it.
func FuzzDoor(f *testing.F) {
	f.Add(403, "application/problem+json", `{"type":"urn:ietf:params:acme:error:caa","detail":"\u001b[2J\u202e"}`, "https://ca.example/1")
	f.Add(500, "text/html", "<html>\x1b", "")
	f.Add(200, "application/json", `{"error":{"detail":"a\u0000"},"error":{"type":5},"challenges":[{"error":{"subproblems":[{"detail":"\n"}]}}]}`, "http://x")
	f.Fuzz(func(t *testing.T, status int, kind, body, location string) {
		if status < 200 || status > 599 {
			return
		}
		resp, err := through(t, answering(status, http.Header{"Content-Type": {kind}, "Location": {location}}, strings.NewReader(body)))
		if err != nil {
			if !isClean(err.Error()) {
				t.Fatalf("%q", err)
			}
			return
		}
		defer resp.Body.Close()
		all, _ := io.ReadAll(resp.Body)
		var order acme.Order
		if resp.StatusCode >= 400 {
			var p acme.Problem
			isProblem := resp.Header.Get("Content-Type") == "application/problem+json"
			if isProblem && (json.Unmarshal(all, &p) != nil || !isClean(p.Error()) || len(p.Error()) > 2500) || !isProblem && !isClean(string(all)) {
				t.Fatalf("%q", all)
			}
		} else if kind == "application/json" && json.Unmarshal(all, &order) == nil && order.Error != nil && (!isClean(order.Error.Error()) || len(order.Error.Error()) > 2500) {
			t.Fatalf("%q", order.Error)
		}
	})
}
