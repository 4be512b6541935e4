package httpstrict

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

func read(s string) (*Head, error) {
	h, _, err := ReadHead(bufio.NewReaderSize(strings.NewReader(s), 64), nil, Limits{})
	return h, err
}

func TestReadHead(t *testing.T) {
	got, err := read("POST /a?b=c HTTP/1.1\r\nhost: Shop.example\r\nContent-Length: 12\r\nx-a: 1\r\nX-A:\t2 \r\nConnection: x, Close\r\nExpect: 100-Continue\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	want := &Head{
		Method: "POST", Target: "/a?b=c", Minor: 1, Host: "Shop.example", HasHost: true, Length: 12, Expect: true, Close: true,
		Header: http.Header{"X-A": {"1", "2"}, "Connection": {"x, Close"}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// H1: everything that two readers could read in two ways is refused.
func TestH1Heads(t *testing.T) {
	const ok = "GET / HTTP/1.1\r\nHost: a\r\n"
	for name, c := range map[string]struct {
		head   string
		status int
	}{
		"length and chunked":      {ok + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
		"chunked and length":      {ok + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", 400},
		"two lengths":             {ok + "Content-Length: 3\r\nContent-Length: 4\r\n\r\n", 400},
		"two equal lengths":       {ok + "Content-Length: 3\r\nContent-Length: 3\r\n\r\n", 400},
		"length list":             {ok + "Content-Length: 3, 3\r\n\r\n", 400},
		"signed length":           {ok + "Content-Length: +3\r\n\r\n", 400},
		"hex length":              {ok + "Content-Length: 0x3\r\n\r\n", 400},
		"empty length":            {ok + "Content-Length:\r\n\r\n", 400},
		"huge length":             {ok + "Content-Length: 99999999999999999999\r\n\r\n", 400},
		"chunkedx":                {ok + "Transfer-Encoding: chunkedx\r\n\r\n", 400},
		"gzip, chunked":           {ok + "Transfer-Encoding: gzip, chunked\r\n\r\n", 400},
		"two codings":             {ok + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
		"identity":                {ok + "Transfer-Encoding: identity\r\n\r\n", 400},
		"vertical tab coding":     {ok + "Transfer-Encoding: \x0bchunked\r\n\r\n", 400},
		"chunked in 1.0":          {"GET / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
		"bare LF":                 {"GET / HTTP/1.1\nHost: a\r\n\r\n", 400},
		"bare LF in fields":       {ok + "X: y\n\r\n", 400},
		"bare LF at the end":      {ok + "\n", 400},
		"bare CR":                 {ok + "X: y\rZ: w\r\n\r\n", 400},
		"CR before CRLF":          {ok + "X: y\r\r\n\r\n", 400},
		"obs-fold":                {ok + "X: y\r\n z\r\n\r\n", 400},
		"fold on first field":     {"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400},
		"space before colon":      {ok + "X : y\r\n\r\n", 400},
		"no colon":                {ok + "X\r\n\r\n", 400},
		"empty name":              {ok + ": y\r\n\r\n", 400},
		"NUL":                     {ok + "X: a\x00b\r\n\r\n", 400},
		"DEL":                     {ok + "X: a\x7fb\r\n\r\n", 400},
		"no host":                 {"GET / HTTP/1.1\r\n\r\n", 400},
		"empty host":              {"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400},
		"two hosts":               {ok + "Host: a\r\n\r\n", 400},
		"leading CRLF":            {"\r\n" + ok + "\r\n", 400},
		"two spaces":              {"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"tab":                     {"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"space after the version": {"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400},
		"method with colon":       {"GE:T / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"non-ASCII target":        {"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"fragment":                {"GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"HTTP/0.9":                {"GET /\r\n\r\n", 400},
		"HTTP/2.0":                {"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505},
		"http/1.1":                {"GET / http/1.1\r\nHost: a\r\n\r\n", 400},
		"other expectation":       {ok + "Expect: magic\r\n\r\n", 417},
		"endless head":            {ok + "X: " + strings.Repeat("a", 70<<10) + "\r\n\r\n", 431},
		"endless fields":          {ok + strings.Repeat("X: y\r\n", 300) + "\r\n", 431},
	} {
		h, err := read(c.head)
		e, is := IsError(err)
		if !is {
			t.Errorf("%s: got %+v, %v, want a refusal", name, h, err)
			continue
		}
		if e.Status != c.status {
			t.Errorf("%s: status %d (%s), want %d", name, e.Status, e.Text, c.status)
		}
	}
}

func TestReadHeadEnds(t *testing.T) {
	if _, err := read(""); err != io.EOF {
		t.Errorf("empty: %v", err)
	}
	if _, err := read("GET / HT"); err != io.ErrUnexpectedEOF {
		t.Errorf("cut: %v", err)
	}
}

func TestBody(t *testing.T) {
	for _, c := range []struct {
		name, in string
		length   int64
		out      string
		left     string
	}{
		{"counted", "hello, next", 5, "hello", ", next"},
		{"empty", "next", 0, "", "next"},
		{"chunked", "5\r\nhello\r\n00A;x=y\r\n0123456789\r\n0\r\n\r\nnext", -1, "hello0123456789", "next"},
		{"trailers", "1\r\na\r\n0\r\nX-T: 1\r\n\r\nnext", -1, "a", "next"},
	} {
		br := bufio.NewReader(strings.NewReader(c.in))
		got, err := io.ReadAll(iotest.OneByteReader(NewBody(br, c.length)))
		rest, _ := io.ReadAll(br)
		if err != nil || string(got) != c.out || string(rest) != c.left {
			t.Errorf("%s: got %q, rest %q, %v", c.name, got, rest, err)
		}
	}
}

// H1: chunk framing that two readers could read in two ways.
func TestH1Chunks(t *testing.T) {
	for name, in := range map[string]string{
		"bare LF":              "1\na\r\n0\r\n\r\n",
		"bare LF after data":   "1\r\na\n0\r\n\r\n",
		"surplus data":         "1\r\nab\r\n0\r\n\r\n",
		"no size":              "\r\na\r\n0\r\n\r\n",
		"hex prefix":           "0x1\r\na\r\n0\r\n\r\n",
		"sign":                 "+1\r\na\r\n0\r\n\r\n",
		"space":                "1 \r\na\r\n0\r\n\r\n",
		"overflow":             "10000000000000001\r\na\r\n0\r\n\r\n",
		"only an extension":    ";a\r\na\r\n0\r\n\r\n",
		"control in extension": "1;a\x00\r\na\r\n0\r\n\r\n",
		"CR in extension":      "1;a\rb\r\na\r\n0\r\n\r\n",
		"long extension":       "1;" + strings.Repeat("a", 300) + "\r\na\r\n0\r\n\r\n",
		"bad trailer":          "0\r\nX : y\r\n\r\n",
		"folded trailer":       "0\r\nX: y\r\n z\r\n\r\n",
		"bare LF in trailer":   "0\r\nX: y\n\r\n",
		"endless trailers":     "0\r\n" + strings.Repeat("X: y\r\n", 100) + "\r\n",
		"mostly framing":       strings.Repeat("1;"+strings.Repeat("a", 200)+"\r\na\r\n", 1000) + "0\r\n\r\n",
	} {
		got, err := io.ReadAll(NewBody(bufio.NewReader(strings.NewReader(in)), -1))
		if _, is := IsError(err); !is {
			t.Errorf("%s: got %q, %v, want a refusal", name, got, err)
		}
	}
	for _, in := range []string{"", "5", "5\r\nhel", "5\r\nhello", "5\r\nhello\r\n", "0\r\n", "0\r\nX: y\r\n"} {
		if _, err := io.ReadAll(NewBody(bufio.NewReader(strings.NewReader(in)), -1)); err != io.ErrUnexpectedEOF {
			t.Errorf("cut at %q: %v", in, err)
		}
	}
	if _, err := io.ReadAll(NewBody(bufio.NewReader(strings.NewReader("abc")), 4)); err != io.ErrUnexpectedEOF {
		t.Errorf("counted, cut: %v", err)
	}
}

// FuzzHead: what is accepted here must be accepted by net/http's lenient
// reader too, with the same framing and the same host.
func FuzzHead(f *testing.F) {
	f.Add("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	f.Add("POST /x?y HTTP/1.1\r\nHost: a:80\r\nTransfer-Encoding: chunked\r\n\r\n")
	f.Add("POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\n")
	f.Fuzz(func(t *testing.T, s string) {
		h, err := read(s)
		if err != nil {
			return
		}
		if h.Method == "CONNECT" || h.Method == "PRI" || !strings.HasPrefix(h.Target, "/") || h.HasHost && strings.ContainsAny(h.Host, "@/\\ \t\"") {
			return // the caller's business
		}
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(s)))
		if err != nil {
			if strings.Contains(err.Error(), "invalid URL") || strings.Contains(err.Error(), "malformed Host") || strings.Contains(err.Error(), "parse") {
				return
			}
			t.Fatalf("accepted %q, which net/http refuses: %v", s, err)
		}
		if r.ContentLength != h.Length || r.Method != h.Method || h.HasHost && !strings.HasPrefix(h.Target, "//") && r.Host != h.Host {
			t.Fatalf("%q: read as %+v here, as %q %q %d there", s, h, r.Method, r.Host, r.ContentLength)
		}
	})
}

// FuzzChunked: what is accepted here must be the same body for net/http.
func FuzzChunked(f *testing.F) {
	f.Add("5\r\nhello\r\n0\r\n\r\n")
	f.Add("5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := io.ReadAll(NewBody(bufio.NewReader(strings.NewReader(s)), -1))
		if err != nil {
			return
		}
		head := "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head + s)))
		if err != nil {
			t.Fatal(err)
		}
		want, err := io.ReadAll(r.Body)
		if err != nil || string(got) != string(want) {
			t.Fatalf("%q: %q here, %q there (%v)", s, got, want, err)
		}
	})
}

func BenchmarkReadHead(b *testing.B) {
	const s = "GET /v1/orders/1042 HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: node\r\naccept: application/json\r\nAuthorization: Bearer x\r\nAccept-Encoding: gzip\r\n\r\n"
	src := strings.NewReader(s)
	br := bufio.NewReader(src)
	var scratch []byte
	var err error
	for b.Loop() {
		src.Reset(s)
		br.Reset(src)
		if _, scratch, err = ReadHead(br, scratch, Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}
