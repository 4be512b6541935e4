package sign

import (
	"crypto/subtle"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"ambit/internal/secretbytes"
)

// AWSKey is an access key of AWS or of a service that signs like it.
type AWSKey struct {
	ID      string            // AKIA...; not a secret
	Secret  secretbytes.Bytes // required
	Session secretbytes.Bytes // X-Amz-Security-Token of temporary credentials; empty without
}

// SigV4 checks signatures that were made with a reference and makes the real
// ones, for one region and one service. The zero value refuses everything.
type SigV4 struct {
	Region    string // required, such as eu-central-1
	Service   string // required, such as s3
	Reference AWSKey // what the agent has
	Real      AWSKey // what the upstream knows
}

// Verified is a request whose signature by the reference was checked. Only
// [SigV4.Verify] makes one.
type Verified struct {
	Claim
	payload string // what stands for the body in the canonical request
	method  string
	host    string
	path    string // as samePath
	query   string // canonical, without authParams if presigned
	agent   signer
}

const (
	unsignedPayload = "UNSIGNED-PAYLOAD"
	unsignedTrailer = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
	signedChunks    = algorithm + "-PAYLOAD"
	streaming       = "STREAMING-" + signedChunks
	streamTrailer   = streaming + "-TRAILER"
)

// Skew is how far a signature's time may be from ours, as AWS has it; longest
// is how long the gate's own presigned URLs are good.
const (
	skew    = 15 * time.Minute
	longest = 5 * time.Minute
)

// Verify checks that the signature of r is by the reference, for the bound
// region and service, not older than 15 minutes (or within the life of a
// presigned URL), and for this very method, host, path, query and headers. r
// must be as the agent sent it.
//
// A body that no X-Amz-Content-Sha256 stands for is read (at most [MaxBody]),
// checked, and replaced in r by one that can be read again. Every other body is
// left alone: Sign wraps it, so that it is checked on its way.
func (s *SigV4) Verify(r *http.Request, now time.Time) (*Verified, error) {
	c, err := ParseClaim(r.Header, r.URL.RawQuery)
	if err != nil {
		return nil, err
	}
	if err := s.checkClaim(c, r.Header, now); err != nil {
		return nil, err
	}
	payload, err := payloadOf(r, c)
	if err != nil {
		return nil, err
	}
	all, err := canonicalQuery(r.URL.RawQuery, querySignature)
	if err != nil {
		return nil, err
	}
	agent := newSigner(s.Reference.Secret, c.Time, c.Region, c.Service)
	want := agent.request(canonicalRequest(r, all, c.Service, c.SignedHeaders, payload))
	if subtle.ConstantTimeCompare([]byte(want), []byte(c.Signature)) != 1 {
		return nil, fmt.Errorf("%w: it was made for another method, host, path, query, header or body, or with another secret", ErrMismatch)
	}
	v := &Verified{Claim: *c, payload: payload, method: r.Method, host: host(r), path: samePath(r.URL.EscapedPath()), agent: agent}
	v.query, err = v.remaining(r.URL.RawQuery)
	return v, err
}

// checkClaim checks all that does not need the canonical request.
func (s *SigV4) checkClaim(c *Claim, h http.Header, now time.Time) error {
	session := secretbytes.New([]byte(c.Session))
	switch {
	case s.Reference.ID == "" || s.Reference.Secret.Len() == 0 || s.Region == "" || s.Service == "":
		return fmt.Errorf("%w: no reference, region or service is bound", ErrForeign)
	case c.KeyID != s.Reference.ID:
		return fmt.Errorf("%w: it names another access key", ErrForeign)
	case !session.Equal(s.Reference.Session):
		return fmt.Errorf("%w: it has another session token", ErrForeign)
	case c.Region != s.Region || c.Service != s.Service:
		return fmt.Errorf("%w: it is for %.40q in %.40q, and the connection is for %q in %q", ErrScope, c.Service, c.Region, s.Service, s.Region)
	case c.Time.After(now.Add(skew)):
		return fmt.Errorf("%w: it is from the future, the computer's clock is wrong", ErrTime)
	case c.Presigned && !now.Before(c.Time.Add(c.Expires)):
		return fmt.Errorf("%w: the presigned URL has expired, make a new one", ErrTime)
	case !c.Presigned && c.Time.Before(now.Add(-skew)):
		return fmt.Errorf("%w: it is older than %s, sign again", ErrTime, skew)
	case !slices.Contains(c.SignedHeaders, "host"):
		return fmt.Errorf("%w: it does not cover Host", ErrMalformed)
	}
	for name := range h {
		name = strings.ToLower(name)
		if strings.HasPrefix(name, "x-amz-") && !slices.Contains(c.SignedHeaders, name) {
			return fmt.Errorf("%w: it does not cover %.60q", ErrMalformed, name)
		}
	}
	return nil
}

// payloadOf says what stands for the body in the canonical request.
func payloadOf(r *http.Request, c *Claim) (string, error) {
	given := r.Header.Values("X-Amz-Content-Sha256")
	if c.Presigned {
		given = append(slices.Clone(given), r.URL.Query()[queryPayload]...)
	}
	switch {
	case len(given) > 1:
		return "", fmt.Errorf("%w: X-Amz-Content-Sha256 is there twice", ErrMalformed)
	case len(given) == 0 && c.Presigned && isS3(c.Service):
		return unsignedPayload, nil
	case len(given) == 0:
		body, err := hold(r)
		return digest(body), err
	case isHash(given[0]) || slices.Contains([]string{unsignedPayload, unsignedTrailer}, given[0]):
		return given[0], nil
	case (given[0] == streaming || given[0] == streamTrailer) && !c.Presigned:
		return given[0], nil
	}
	return "", fmt.Errorf("%w: X-Amz-Content-Sha256 is %.60q", ErrUnsupported, given[0])
}

// remaining is the part of the query that must stay what it is.
func (v *Verified) remaining(raw string) (string, error) {
	if v.Presigned {
		return canonicalQuery(raw, authParams()...)
	}
	return canonicalQuery(raw)
}

// Sign signs r with the real key in place of the reference, at the time now.
// r is the request as it goes upstream; its method, host, path and query must
// still be those of v, and its other headers are signed as they are now. After
// an error r must not be sent.
//
// A body that v claims a hash of is checked on its way; one that was signed
// chunk by chunk is checked and signed again chunk by chunk, without a change
// of its length. Reading such a body returns ErrMismatch, ErrMalformed or
// ErrBody before the last of it has left, so that the upstream never gets a
// whole one. A presigned URL is good for five minutes at most, and never for
// longer than the agent's was.
func (s *SigV4) Sign(r *http.Request, v *Verified, now time.Time) error {
	if v == nil || v.payload == "" || v.Region != s.Region || v.Service != s.Service {
		return fmt.Errorf("%w: it was not checked for this region and service", ErrScope)
	}
	if s.Real.ID == "" || s.Real.Secret.Len() == 0 {
		return fmt.Errorf("%w: the access key has no id or no secret", ErrKey)
	}
	query, err := v.remaining(r.URL.RawQuery)
	if err != nil {
		return err
	}
	if r.Method != v.method || host(r) != v.host || samePath(r.URL.EscapedPath()) != v.path || query != v.query {
		return fmt.Errorf("%w: its method, host, path or query changed after it was checked", ErrMismatch)
	}
	r.Header.Del("Authorization")
	r.Header.Del("X-Amz-Date")
	r.Header.Del("X-Amz-Security-Token")
	real := newSigner(s.Real.Secret, now, s.Region, s.Service)
	seed := ""
	if v.Presigned {
		s.presign(r, v, real, query, now)
	} else {
		seed = s.signHeader(r, v, real, query)
	}
	return v.wrapBody(r, real, seed)
}

// SignAs signs r with a key, at the time now, as a program does that holds it:
// with the hash of the body, of which at most [MaxBody] is read, and r gets one
// that can be read again.
func (s *SigV4) SignAs(r *http.Request, key AWSKey, now time.Time) error {
	if key.ID == "" || key.Secret.Len() == 0 {
		return fmt.Errorf("%w: the access key has no id or no secret", ErrKey)
	}
	query, err := canonicalQuery(r.URL.RawQuery)
	if err != nil {
		return err
	}
	body, err := hold(r)
	if err != nil {
		return err
	}
	payload := digest(body)
	r.Header.Set("X-Amz-Content-Sha256", payload)
	as := SigV4{Region: s.Region, Service: s.Service, Real: key}
	as.signHeader(r, &Verified{payload: payload}, newSigner(key.Secret, now, s.Region, s.Service), query)
	return nil
}

// signHeader puts the signature into the Authorization header and returns it.
func (s *SigV4) signHeader(r *http.Request, v *Verified, real signer, query string) string {
	r.Header.Set("X-Amz-Date", real.time)
	if s.Real.Session.Len() > 0 {
		r.Header.Set("X-Amz-Security-Token", string(s.Real.Session.Reveal()))
	}
	names := v.headersOf(r)
	signature := real.request(canonicalRequest(r, query, s.Service, names, v.payload))
	r.URL.RawQuery = query
	r.Header.Set("Authorization", algorithm+" Credential="+s.Real.ID+"/"+real.scope+
		", SignedHeaders="+strings.Join(names, ";")+", Signature="+signature)
	return signature
}

// presign puts the signature into the query.
func (s *SigV4) presign(r *http.Request, v *Verified, real signer, query string, now time.Time) {
	left := min(v.Time.Add(v.Expires).Sub(now), longest)
	seconds := max(1, int64(left/time.Second))
	names := v.headersOf(r)
	params := []string{
		queryAlgorithm + "=" + algorithm,
		queryCredential + "=" + url.QueryEscape(s.Real.ID+"/"+real.scope),
		queryDate + "=" + real.time,
		queryExpires + "=" + strconv.FormatInt(seconds, 10),
		queryHeaders + "=" + url.QueryEscape(strings.Join(names, ";")),
	}
	if s.Real.Session.Len() > 0 {
		params = append(params, querySession+"="+url.QueryEscape(string(s.Real.Session.Reveal())))
	}
	if query != "" {
		params = append(params, query)
	}
	all, _ := canonicalQuery(strings.Join(params, "&")) // every part of it is encoded well
	r.URL.RawQuery = all + "&" + querySignature + "=" + real.request(canonicalRequest(r, all, s.Service, names, v.payload))
}

// headersOf lists the headers to sign: those that the agent signed and that
// still are there, Host, and all of AWS's own.
func (v *Verified) headersOf(r *http.Request) []string {
	names := []string{"host"}
	for name := range r.Header {
		name = strings.ToLower(name)
		if strings.HasPrefix(name, "x-amz-") || slices.Contains(v.SignedHeaders, name) && name != "content-length" {
			names = append(names, name)
		}
	}
	if r.ContentLength > 0 && slices.Contains(v.SignedHeaders, "content-length") {
		names = append(names, "content-length")
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// wrapBody has the body checked, and its chunks signed, while it is read.
func (v *Verified) wrapBody(r *http.Request, real signer, seed string) error {
	empty := r.Body == nil || r.Body == http.NoBody
	switch {
	case v.payload == streaming || v.payload == streamTrailer:
		if empty {
			return fmt.Errorf("%w: it is empty, and was said to come in chunks", ErrBody)
		}
		length, err := strconv.ParseUint(r.Header.Get("X-Amz-Decoded-Content-Length"), 10, 63)
		if err != nil {
			return fmt.Errorf("%w: a body in chunks needs X-Amz-Decoded-Content-Length", ErrBody)
		}
		trailers := ""
		if v.payload == streamTrailer {
			trailers = strings.ToLower(r.Header.Get("X-Amz-Trailer"))
		}
		r.Body = newChunks(r.Body, rolling{v.agent, v.Signature}, rolling{real, seed}, int64(length), v.payload == streamTrailer, trailers)
		r.GetBody = nil
	case !isHash(v.payload):
	case empty && v.payload != emptyHash:
		return fmt.Errorf("%w: it is empty, and its hash is another", ErrMismatch)
	case !empty:
		length, again := r.ContentLength, r.GetBody
		r.Body = newHashed(r.Body, v.payload, length)
		if again != nil { // also when a transport sends it a second time
			r.GetBody = func() (io.ReadCloser, error) {
				body, err := again()
				return newHashed(body, v.payload, length), err
			}
		}
	}
	return nil
}
