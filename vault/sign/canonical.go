package sign

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"ambit/internal/secretbytes"
)

// The canonical request of SigV4, as in
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html.
// AWS's own signer chooses by itself which headers it signs, so it cannot check
// a signature that somebody else made; one canonicaliser both checks and signs
// here, and the tests hold it against AWS's vectors and against AWS's signer.

const (
	algorithm  = "AWS4-HMAC-SHA256"
	terminator = "aws4_request"
	amzTime    = "20060102T150405Z"
	emptyHash  = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)

// canonicalRequest writes what is hashed and signed. names are the signed
// headers in lower case, sorted.
func canonicalRequest(r *http.Request, query, service string, names []string, payloadHash string) string {
	var b strings.Builder
	b.WriteString(r.Method + "\n" + canonicalURI(r.URL.EscapedPath(), service) + "\n" + query + "\n")
	for _, name := range names {
		b.WriteString(name + ":" + canonicalHeader(r, name) + "\n")
	}
	b.WriteString("\n" + strings.Join(names, ";") + "\n" + payloadHash)
	return b.String()
}

// canonicalURI takes the path as it is on the wire. S3 has it encoded once and
// not normalised; every other service normalises it and encodes it again.
func canonicalURI(wire, service string) string {
	if isS3(service) {
		return samePath(wire)
	}
	var kept []string
	segments := strings.Split(wire, "/")
	for _, segment := range segments {
		switch segment {
		case "", ".":
		case "..":
			kept = kept[:max(0, len(kept)-1)]
		default:
			kept = append(kept, escape(segment))
		}
	}
	last := segments[len(segments)-1]
	path := "/" + strings.Join(kept, "/")
	if len(kept) > 0 && (last == "" || last == "." || last == "..") {
		path += "/"
	}
	return path
}

// samePath writes a path in one way, however it was percent-encoded. An
// encoded slash stays encoded.
func samePath(wire string) string {
	if wire == "" {
		return "/"
	}
	segments := strings.Split(wire, "/")
	for i, segment := range segments {
		if plain, err := url.PathUnescape(segment); err == nil {
			segment = plain
		}
		segments[i] = escape(segment)
	}
	return strings.Join(segments, "/")
}

func isS3(service string) bool {
	return service == "s3" || strings.HasPrefix(service, "s3-") || service == "s3express"
}

// canonicalQuery sorts the parameters and writes them in one way, leaving out
// those named. A plus is a space, as every AWS service has it.
func canonicalQuery(raw string, without ...string) (string, error) {
	var pairs []string
	for pair := range strings.SplitSeq(raw, "&") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(name)
		if err == nil {
			value, err = url.QueryUnescape(value)
		}
		if err != nil {
			return "", fmt.Errorf("%w: its query has a wrong percent-encoding", ErrMalformed)
		}
		if !slices.Contains(without, name) {
			// sorted by name, then by value: "=" must not take part
			pairs = append(pairs, escape(name)+"\x00"+escape(value))
		}
	}
	slices.Sort(pairs)
	return strings.ReplaceAll(strings.Join(pairs, "&"), "\x00", "="), nil
}

// canonicalHeader is the value of one header in one line, with the values of a
// repeated one joined and runs of spaces made one.
func canonicalHeader(r *http.Request, name string) string {
	switch name {
	case "host":
		return host(r)
	case "content-length":
		if r.Header.Get(name) == "" && r.ContentLength >= 0 {
			return strconv.FormatInt(r.ContentLength, 10)
		}
	}
	values := slices.Clone(r.Header.Values(name))
	for i, v := range values {
		values[i] = strings.Join(strings.FieldsFunc(v, func(c rune) bool { return c == ' ' || c == '\t' }), " ")
	}
	return strings.Join(values, ",")
}

// host is the value of the Host header that goes over the wire.
func host(r *http.Request) string {
	if r.Host != "" {
		return r.Host
	}
	return r.URL.Host
}

// escape percent-encodes all but the unreserved characters of RFC 3986.
func escape(s string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(digits[c>>4])
		b.WriteByte(digits[c&15])
	}
	return b.String()
}

// signer makes signatures of one key for one day, region and service.
type signer struct {
	key   []byte
	time  string // as amzTime
	scope string // date/region/service/aws4_request
}

func newSigner(secret secretbytes.Bytes, at time.Time, region, service string) signer {
	stamp := at.UTC().Format(amzTime)
	date := stamp[:8]
	first := append([]byte("AWS4"), secret.Reveal()...)
	key := mac(first, date)
	clear(first)
	for _, part := range []string{region, service, terminator} {
		key = mac(key, part)
	}
	return signer{key: key, time: stamp, scope: date + "/" + region + "/" + service + "/" + terminator}
}

// request signs a canonical request.
func (s signer) request(canonical string) string {
	return s.sign(algorithm, digest([]byte(canonical)))
}

// sign signs the lines that follow the scope.
func (s signer) sign(algorithm string, lines ...string) string {
	text := algorithm + "\n" + s.time + "\n" + s.scope + "\n" + strings.Join(lines, "\n")
	return hex.EncodeToString(mac(s.key, text))
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
