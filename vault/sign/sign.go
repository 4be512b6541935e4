// Package sign puts a real credential into a request, or signs with it: AWS
// Signature Version 4, HMAC, JWT assertions (RFC 7523), one-time codes (RFC
// 6238) and Basic (RFC 7617).
//
// Nothing here dials, stores or looks at a clock: the time and the secrets are
// arguments. The body of a request is read only where a signature covers it,
// and never more than [MaxBody] of it is held.
//
// Where the agent's program signs by itself (SigV4, HMAC) it has signed with a
// reference. That signature is checked before the real one is made, for two
// reasons. What is signed must be what the program meant: a signature that was
// made for another path, body, region or service is refused here, and is not
// laundered into a good one (ATTACKS K4). And a reference's key id alone, which
// every presigned URL shows, is not enough to have the gate sign something.
//
// Known hole: net/http keeps header values as strings, which cannot be wiped.
//
// Trust: the request is hostile, its caller is not: whoever calls Sign with a
// real key can sign anything for it. Nothing that the agent sends is trusted
// before its signature was checked with the reference's secret, and even then
// only to say what the agent wants; whether it may is the gate's decision.
package sign

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"

	"ambit/internal/secretbytes"
)

// MaxBody is the longest body, in bytes, that is held in memory because a
// signature covers all of it and must stand in front of it.
const MaxBody = 8 << 20

// Why a request is not signed. Every error of this package about a request is
// one of these, wrapped with what exactly was wrong; none holds a secret.
var (
	// ErrUnsigned is a request without a signature of the scheme.
	ErrUnsigned = errors.New("the request is not signed")
	// ErrForeign is a credential that is not the reference.
	ErrForeign = errors.New("the credential is not the one of this connection")
	// ErrScope is a signature for another region or service than the bound one.
	ErrScope = errors.New("the signature is for another region or service")
	// ErrTime is a signature that is too old, or from the future.
	ErrTime = errors.New("the signature's time is not now")
	// ErrMismatch is a signature that does not belong to this request or body.
	ErrMismatch = errors.New("the signature does not fit the request")
	// ErrMalformed is a signature that cannot be parsed.
	ErrMalformed = errors.New("the signature is malformed")
	// ErrUnsupported is a form of signature that the gate cannot make again.
	ErrUnsupported = errors.New("this form of signature is not supported")
	// ErrBody is a body that is too long to be signed, or that ended early.
	ErrBody = errors.New("the body cannot be signed")
)

// ErrKey is a key, seed or key file that cannot be used. Its text says why and
// never holds any of the key.
var ErrKey = errors.New("the key cannot be used")

// hold reads the whole body of r, puts a copy in its place that can be read
// again, and returns the bytes. More than MaxBody is ErrBody.
func hold(r *http.Request) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, MaxBody+1))
	if err != nil {
		return nil, fmt.Errorf("reading the body to sign it: %w", err)
	}
	if len(body) > MaxBody {
		return nil, fmt.Errorf("%w: it is longer than %d MiB, and the signature in front of it covers all of it", ErrBody, MaxBody>>20)
	}
	if err := r.Body.Close(); err != nil {
		return nil, fmt.Errorf("reading the body to sign it: %w", err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.ContentLength = int64(len(body))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	return body, nil
}

// own returns a secret that is a copy of b.
func own(b []byte) secretbytes.Bytes { return secretbytes.New(bytes.Clone(b)) }
