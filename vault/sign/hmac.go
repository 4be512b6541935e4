package sign

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // some APIs have nothing better, and HMAC with SHA-1 is not broken
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"net/http"
	"strconv"
	"strings"
	"time"

	"ambit/internal/secretbytes"
)

// HMAC is how an API wants its requests signed with a shared secret. The zero
// value signs nothing.
//
// Message and Value are templates: text with placeholders in braces. Message
// knows {method}, {host}, {path} (percent-encoded), {query} (without "?"),
// {target} (path, and "?" and query if there is one), {timestamp}, {body}, and
// {body-sha256} (hexadecimal). Value knows {signature} and {timestamp}.
type HMAC struct {
	Algorithm       string // required: "sha256", "sha512" or "sha1"
	Encoding        string // of the signature: "hex" (default, lower case), "base64" or "base64url" (without padding)
	Message         string // required: what is signed, such as "{timestamp}.{body}"
	Header          string // required: where the signature goes
	Value           string // the header's value, such as "t={timestamp},v1={signature}"; default "{signature}"
	TimestampHeader string // where the time goes, if in a header of its own
	Milliseconds    bool   // the time is in milliseconds since 1970, otherwise in seconds
}

// hmacSkew is how far the agent's timestamp may be from ours.
const hmacSkew = 5 * time.Minute

// Check says what is wrong with h; nil if it can sign.
func (h HMAC) Check() error {
	var r http.Request
	message, err := expand(h.Message, h.fields(&r, "", nil))
	switch {
	case err != nil:
		return fmt.Errorf("message: %w", err)
	case message == h.Message:
		return fmt.Errorf("message %.60q covers nothing of the request", h.Message)
	case h.hash() == nil:
		return fmt.Errorf("algorithm %.20q is not sha256, sha512 or sha1", h.Algorithm)
	case h.Header == "":
		return fmt.Errorf("the header that the signature goes into is missing")
	case strings.Count(h.value(), "{signature}") != 1 || strings.Count(h.value(), "{timestamp}") > 1:
		return fmt.Errorf("value %.60q has not {signature} once and {timestamp} at most once", h.Value)
	case strings.Contains(h.value(), "}{"):
		return fmt.Errorf("value %.60q has nothing between its placeholders", h.Value)
	case h.timed() && h.TimestampHeader == "" && !strings.Contains(h.value(), "{timestamp}"):
		return fmt.Errorf("message %.60q has a timestamp that the request does not say anywhere", h.Message)
	}
	if _, err := expand(h.value(), map[string]string{"signature": "", "timestamp": ""}); err != nil {
		return fmt.Errorf("value: %w", err)
	}
	_, err = h.encode(nil)
	return err
}

// Sign signs r with the real secret and puts signature and time into its
// headers. If the message has the body, at most [MaxBody] of it is read, and r
// gets one that can be read again.
func (h HMAC) Sign(r *http.Request, secret secretbytes.Bytes, now time.Time) error {
	unit := now.Unix()
	if h.Milliseconds {
		unit = now.UnixMilli()
	}
	stamp := strconv.FormatInt(unit, 10)
	signature, err := h.signature(r, secret, stamp)
	if err != nil {
		return err
	}
	value, err := expand(h.value(), map[string]string{"signature": signature, "timestamp": stamp})
	if err != nil {
		return err
	}
	r.Header.Set(h.Header, value)
	if h.TimestampHeader != "" {
		r.Header.Set(h.TimestampHeader, stamp)
	}
	return nil
}

// Verify checks that r was signed with the reference, at a time that is at most
// five minutes from now if the scheme has one.
func (h HMAC) Verify(r *http.Request, reference secretbytes.Bytes, now time.Time) error {
	if err := h.Check(); err != nil {
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	values := r.Header.Values(h.Header)
	switch len(values) {
	case 0:
		return fmt.Errorf("%w: it has no header %s", ErrUnsigned, h.Header)
	case 1:
	default:
		return fmt.Errorf("%w: the header %s is there twice", ErrMalformed, h.Header)
	}
	found, ok := match(h.value(), values[0])
	if !ok {
		return fmt.Errorf("%w: the header %s does not look like %q", ErrMalformed, h.Header, h.value())
	}
	stamp := found["timestamp"]
	if h.TimestampHeader != "" {
		stamps := r.Header.Values(h.TimestampHeader)
		if len(stamps) != 1 || stamp != "" && stamp != stamps[0] {
			return fmt.Errorf("%w: it needs the header %s once", ErrMalformed, h.TimestampHeader)
		}
		stamp = stamps[0]
	}
	if err := h.checkTime(stamp, now); err != nil {
		return err
	}
	want, err := h.signature(r, reference, stamp)
	if err != nil {
		return err
	}
	if !same(want, found["signature"]) {
		return fmt.Errorf("%w: it was made for something else, or with another secret", ErrMismatch)
	}
	return nil
}

func (h HMAC) checkTime(stamp string, now time.Time) error {
	if stamp == "" && !h.timed() && h.TimestampHeader == "" {
		return nil
	}
	n, err := strconv.ParseUint(stamp, 10, 53)
	if err != nil {
		return fmt.Errorf("%w: its timestamp is not a number", ErrMalformed)
	}
	at := time.Unix(int64(n), 0)
	if h.Milliseconds {
		at = time.UnixMilli(int64(n))
	}
	if d := now.Sub(at); d > hmacSkew || d < -hmacSkew {
		return fmt.Errorf("%w: it is more than %s from now", ErrTime, hmacSkew)
	}
	return nil
}

// signature computes the encoded signature of r.
func (h HMAC) signature(r *http.Request, secret secretbytes.Bytes, stamp string) (string, error) {
	if err := h.Check(); err != nil {
		return "", fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	if secret.Len() == 0 {
		return "", fmt.Errorf("%w: it is empty", ErrKey)
	}
	var body []byte
	if strings.Contains(h.Message, "{body") {
		var err error
		if body, err = hold(r); err != nil {
			return "", err
		}
	}
	message, err := expand(h.Message, h.fields(r, stamp, body))
	if err != nil {
		return "", err
	}
	m := hmac.New(h.hash(), secret.Reveal())
	m.Write([]byte(message))
	return h.encode(m.Sum(nil))
}

func (h HMAC) fields(r *http.Request, stamp string, body []byte) map[string]string {
	f := map[string]string{"method": r.Method, "timestamp": stamp, "body": string(body), "body-sha256": digest(body),
		"host": "", "path": "", "query": "", "target": ""}
	if r.URL != nil {
		f["host"], f["path"], f["query"] = host(r), r.URL.EscapedPath(), r.URL.RawQuery
		f["target"] = f["path"]
		if f["query"] != "" {
			f["target"] += "?" + f["query"]
		}
	}
	return f
}

func (h HMAC) timed() bool { return strings.Contains(h.Message, "{timestamp}") }

func (h HMAC) value() string {
	if h.Value == "" {
		return "{signature}"
	}
	return h.Value
}

func (h HMAC) hash() func() hash.Hash {
	switch h.Algorithm {
	case "sha256":
		return sha256.New
	case "sha512":
		return sha512.New
	case "sha1":
		return sha1.New
	}
	return nil
}

func (h HMAC) encode(sum []byte) (string, error) {
	switch h.Encoding {
	case "", "hex":
		return hex.EncodeToString(sum), nil
	case "base64":
		return base64.StdEncoding.EncodeToString(sum), nil
	case "base64url":
		return base64.RawURLEncoding.EncodeToString(sum), nil
	}
	return "", fmt.Errorf("encoding %.20q is not hex, base64 or base64url", h.Encoding)
}

// expand fills in a template.
func expand(template string, fields map[string]string) (string, error) {
	var b strings.Builder
	for rest := template; ; {
		text, after, found := strings.Cut(rest, "{")
		b.WriteString(text)
		if !found {
			return b.String(), nil
		}
		name, left, closed := strings.Cut(after, "}")
		value, known := fields[name]
		if !closed || !known {
			return "", fmt.Errorf("%.60q has an unknown placeholder {%.20s}", template, name)
		}
		b.WriteString(value)
		rest = left
	}
}

// match takes a value apart that was made from a template in which text stands
// between any two placeholders.
func match(template, value string) (map[string]string, bool) {
	found := make(map[string]string)
	text, rest, more := strings.Cut(template, "{")
	value, ok := strings.CutPrefix(value, text)
	for ok && more {
		var name, part string
		name, rest, _ = strings.Cut(rest, "}")
		text, rest, more = strings.Cut(rest, "{")
		switch {
		case text != "":
			part, value, ok = strings.Cut(value, text)
		default:
			part, value = value, ""
		}
		found[name] = part
	}
	return found, ok && value == ""
}
