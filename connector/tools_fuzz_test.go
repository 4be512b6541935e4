package connector

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"ambit/internal/urlpath"
)

// FuzzRequest holds, for hostile arguments of every shipped tool: no panic; what
// is accepted the schema accepts, too; the request goes to the tool's host, its
// path is canonical and has as many segments as the template, no header field
// has a line break, and the body is what its type says.
func FuzzRequest(f *testing.F) {
	type target struct {
		tool *BoundTool
		name string
	}
	var all []target
	for _, name := range []string{"github", "gmail", "shopify", "slack", "stripe", "zendesk"} {
		_, tools := boundTools(f, sampleConnections()[name])
		for _, s := range allSamples()[name] {
			f.Add(uint(len(all)), []byte(s.args))
			all = append(all, target{tools[s.tool], name})
		}
	}
	for _, args := range []string{`{"owner":"a","repo":".."}`, `{"owner":"a","repo":"b","path":"a/%2e%2e/b"}`, `{"to":["a@b.c\r\nBcc: x@y.z"]}`, `{"a":1,"a":2}`, `{"channel":"\ud800"}`} {
		f.Add(uint(9), []byte(args))
	}
	f.Fuzz(func(t *testing.T, n uint, args []byte) {
		tool := all[n%uint(len(all))].tool
		r, err := tool.Request(args, callDigest)
		if err != nil {
			if r != nil {
				t.Fatal("there is a request, and an error")
			}
			return
		}
		u, err := url.Parse(r.URL)
		if err != nil || u.Scheme != "https" || u.Hostname() != tool.host.Name || u.User != nil || u.Fragment != "" {
			t.Fatalf("the request goes to %s, %v", r.URL, err)
		}
		path := u.EscapedPath()
		if canonical, err := urlpath.Canonical(path); err != nil || canonical != path {
			t.Fatalf("the path %s is not canonical: %v", path, err)
		}
		several := slices.ContainsFunc(tool.spec.arguments, func(a *argument) bool { return a.format == "path" })
		if got, want := strings.Count(urlpath.Decoded(path), "/"), strings.Count(string(tool.spec.request.path), "/"); got != want && (!several || got < want) {
			t.Fatalf("the path %s has %d segments, the template %s", path, got, tool.spec.request.path)
		}
		if _, err := url.ParseQuery(u.RawQuery); err != nil {
			t.Fatal(err)
		}
		for name, values := range r.Header {
			if strings.ContainsAny(name+strings.Join(values, ""), "\r\n\x00") {
				t.Fatalf("the header is %q", r.Header)
			}
		}
		switch r.Header.Get("Content-Type") {
		case "application/json":
			if !json.Valid(r.Body) {
				t.Fatalf("the body is %s", r.Body)
			}
		case "application/x-www-form-urlencoded":
			if _, err := url.ParseQuery(string(r.Body)); err != nil {
				t.Fatal(err)
			}
		default:
			if r.Body != nil {
				t.Fatalf("there is a body: %s", r.Body)
			}
		}
	})
}

// FuzzResult holds: no panic; a result is JSON, and no larger than it may be.
func FuzzResult(f *testing.F) {
	var all []*BoundTool
	for _, name := range []string{"github", "gmail", "shopify", "slack", "stripe", "zendesk"} {
		_, tools := boundTools(f, sampleConnections()[name])
		for _, s := range allSamples()[name] {
			f.Add(uint(len(all)), 200, []byte(s.text()))
			all = append(all, tools[s.tool])
		}
	}
	f.Add(uint(0), 404, []byte(`{"message":{"a":["\u202e"]}}`))
	f.Fuzz(func(t *testing.T, n uint, status int, body []byte) {
		tool := all[n%uint(len(all))]
		got, err := tool.Result(status, http.Header{}, body)
		switch {
		case err != nil && got != nil:
			t.Fatal("there is a result, and an error")
		case err == nil && (!json.Valid(got) || len(got) > tool.spec.result.max):
			t.Fatalf("the result has %d bytes: %.100s", len(got), got)
		}
	})
}
