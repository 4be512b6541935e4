package standin

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Verification of AWS Signature Version 4, from
//
//	https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
//	https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
//	https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
//	https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html and -trailers.html

const (
	awsAlgorithm = "AWS4-HMAC-SHA256"
	awsTime      = "20060102T150405Z"
	awsSkew      = 15 * time.Minute
)

// awsError is why a request is refused, in S3's words.
type awsError struct {
	status        int
	code, message string
}

func (e *awsError) Error() string { return e.code + ": " + e.message }

func refuse(status int, code, message string) error { return &awsError{status, code, message} }

// aws is where a signature must be for.
type aws struct{ region, service string }

// signature is one that a request came with.
type signature struct {
	key, date, region, service, end string
	signed                          []string // names of fields, lower case
	value                           string
	time                            string
	token                           string // X-Amz-Security-Token
	presigned                       bool
	expires                         time.Duration // of a presigned URL
}

func (g *signature) scope() string {
	return strings.Join([]string{g.date, g.region, g.service, g.end}, "/")
}

// parseSignature takes it out of the Authorization field or of the query.
func parseSignature(r *http.Request) (*signature, error) {
	g := &signature{time: r.Header.Get("X-Amz-Date"), token: r.Header.Get("X-Amz-Security-Token")}
	credential, signed := "", ""
	q := r.URL.Query()
	switch field := r.Header.Get("Authorization"); {
	case field != "" && q.Has("X-Amz-Algorithm"):
		return nil, refuse(http.StatusBadRequest, "InvalidArgument", "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string parameter or the Authorization header should be specified")
	case field != "":
		rest, ok := strings.CutPrefix(field, awsAlgorithm+" ")
		if !ok {
			return nil, refuse(http.StatusBadRequest, "InvalidArgument", "Unsupported Authorization Type")
		}
		for part := range strings.SplitSeq(rest, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
			switch name {
			case "Credential":
				credential = value
			case "SignedHeaders":
				signed = value
			case "Signature":
				g.value = value
			}
		}
	case q.Get("X-Amz-Algorithm") == awsAlgorithm:
		seconds, err := strconv.Atoi(q.Get("X-Amz-Expires"))
		if err != nil || seconds < 1 || seconds > 604800 {
			return nil, refuse(http.StatusBadRequest, "AuthorizationQueryParametersError", "X-Amz-Expires must be less than a week (in seconds) that is, the given X-Amz-Expires must be less than 604800 seconds")
		}
		g.presigned, g.expires = true, time.Duration(seconds)*time.Second
		credential, signed, g.value = q.Get("X-Amz-Credential"), q.Get("X-Amz-SignedHeaders"), q.Get("X-Amz-Signature")
		g.time, g.token = q.Get("X-Amz-Date"), q.Get("X-Amz-Security-Token")
	default:
		return nil, refuse(http.StatusForbidden, "AccessDenied", "Access Denied")
	}
	parts := strings.Split(credential, "/")
	if len(parts) != 5 || g.value == "" || signed == "" {
		return nil, refuse(http.StatusBadRequest, "AuthorizationHeaderMalformed", "The authorization header is malformed; the Credential is mal-formed; expecting \"<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request\".")
	}
	g.key, g.date, g.region, g.service, g.end = parts[0], parts[1], parts[2], parts[3], parts[4]
	g.signed = strings.Split(signed, ";")
	return g, nil
}

// verify checks the signature of a request and of its body. It returns nil if
// both are right.
func (a aws) verify(s *Server, r *http.Request, body []byte) error {
	g, err := parseSignature(r)
	if err != nil {
		return err
	}
	if !same(s.value("access_key_id"), g.key) {
		return refuse(http.StatusForbidden, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")
	}
	if token := s.value("session_token"); token != g.token {
		return refuse(http.StatusBadRequest, "InvalidToken", "The provided token is malformed or otherwise invalid.")
	}
	if err := a.verifyScope(g, r, s.now()); err != nil {
		return err
	}
	payload, err := a.payload(g, r, body)
	if err != nil {
		return err
	}
	key := signingKey(s.value("secret_access_key"), g.scope())
	request := canonical(r, g, a.service == "s3", payload)
	if !sameSignature(key, awsAlgorithm+"\n"+g.time+"\n"+g.scope()+"\n"+digest([]byte(request)), g.value) {
		return refuse(http.StatusForbidden, "SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided. Check your key and signing method.")
	}
	if strings.HasPrefix(payload, "STREAMING-") {
		return verifyChunks(key, g, r, payload, body)
	}
	return nil
}

func (a aws) verifyScope(g *signature, r *http.Request, now time.Time) error {
	at, err := time.Parse(awsTime, g.time)
	switch {
	case err != nil:
		return refuse(http.StatusForbidden, "AccessDenied", "AWS authentication requires a valid Date or x-amz-date header")
	case g.date != g.time[:8] || g.end != "aws4_request":
		return refuse(http.StatusBadRequest, "AuthorizationHeaderMalformed", "The authorization header is malformed; Invalid credential date.")
	case g.service != a.service:
		return refuse(http.StatusBadRequest, "AuthorizationHeaderMalformed", "The authorization header is malformed; incorrect service \""+g.service+"\". This endpoint belongs to \""+a.service+"\".")
	case g.region != a.region:
		return refuse(http.StatusBadRequest, "AuthorizationHeaderMalformed", "The authorization header is malformed; the region '"+g.region+"' is wrong; expecting '"+a.region+"'")
	case g.presigned && now.After(at.Add(g.expires)):
		return refuse(http.StatusForbidden, "AccessDenied", "Request has expired")
	case at.After(now.Add(awsSkew)) || !g.presigned && at.Before(now.Add(-awsSkew)):
		return refuse(http.StatusForbidden, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large.")
	case !slices.Contains(g.signed, "host") || !slices.IsSorted(g.signed):
		return refuse(http.StatusForbidden, "SignatureDoesNotMatch", "'Host' must be a 'SignedHeader' in the AWS Authorization.")
	}
	for name := range r.Header {
		if name = strings.ToLower(name); strings.HasPrefix(name, "x-amz-") && !slices.Contains(g.signed, name) {
			return refuse(http.StatusForbidden, "AccessDenied", "There were headers present in the request which were not signed: "+name)
		}
	}
	return nil
}

// payload is what stands for the body in the canonical request, after it was
// compared with the body.
func (a aws) payload(g *signature, r *http.Request, body []byte) (string, error) {
	given := r.Header.Get("X-Amz-Content-Sha256")
	switch {
	case a.service != "s3" && given == "":
		return digest(body), nil
	case given == "" && g.presigned:
		return "UNSIGNED-PAYLOAD", nil
	case given == "":
		return "", refuse(http.StatusBadRequest, "InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
	case given == "UNSIGNED-PAYLOAD", strings.HasPrefix(given, "STREAMING-"):
		return given, nil
	case given != digest(body):
		return "", refuse(http.StatusBadRequest, "XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header does not match what was computed.")
	}
	return given, nil
}

// canonical is the canonical request. S3 encodes the path once, the others
// twice.
func canonical(r *http.Request, g *signature, once bool, payload string) string {
	path := r.URL.EscapedPath()
	if path == "" {
		path = "/"
	}
	if decoded, err := url.PathUnescape(path); once && err == nil {
		path = awsEscape(decoded, true)
	} else if !once {
		path = awsEscape(path, true)
	}
	var pairs []string
	for pair := range strings.SplitSeq(r.URL.RawQuery, "&") {
		name, value, _ := strings.Cut(pair, "=")
		name, value = unescaped(name), unescaped(value)
		if pair != "" && name != "X-Amz-Signature" {
			pairs = append(pairs, awsEscape(name, false)+"="+awsEscape(value, false))
		}
	}
	slices.Sort(pairs)
	var fields strings.Builder
	for _, name := range g.signed {
		values := r.Header.Values(name)
		switch name {
		case "host":
			values = []string{r.Host}
		case "content-length":
			values = []string{strconv.FormatInt(r.ContentLength, 10)}
		}
		var trimmed []string
		for _, v := range values {
			trimmed = append(trimmed, strings.Join(strings.Fields(v), " "))
		}
		fields.WriteString(name + ":" + strings.Join(trimmed, ",") + "\n")
	}
	return strings.Join([]string{r.Method, path, strings.Join(pairs, "&"), fields.String(), strings.Join(g.signed, ";"), payload}, "\n")
}

// unescaped undoes percent-encoding; "+" in a query is a space.
func unescaped(s string) string {
	text, err := url.QueryUnescape(s)
	if err != nil {
		return s
	}
	return text
}

// awsEscape is UriEncode of the documentation.
func awsEscape(s string, slash bool) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0 || c == '/' && slash {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

func signingKey(secret, scope string) []byte {
	key := []byte("AWS4" + secret)
	for part := range strings.SplitSeq(scope, "/") {
		key = mac(key, part)
	}
	return key
}

func sameSignature(key []byte, text, given string) bool {
	return subtle.ConstantTimeCompare([]byte(hex.EncodeToString(mac(key, text))), []byte(given)) == 1
}

// verifyChunks checks a body that is signed, or only framed, in chunks.
func verifyChunks(key []byte, g *signature, r *http.Request, payload string, body []byte) error {
	bad := refuse(http.StatusBadRequest, "IncompleteBody", "The request body terminated unexpectedly")
	mismatch := refuse(http.StatusForbidden, "SignatureDoesNotMatch", "The chunk signature we calculated does not match the signature you provided.")
	signed, trailers := !strings.HasPrefix(payload, "STREAMING-UNSIGNED"), strings.HasSuffix(payload, "-TRAILER")
	previous, total := g.value, 0
	for {
		line, rest, ok := bytes.Cut(body, []byte("\r\n"))
		size, extension, _ := strings.Cut(string(line), ";")
		n, err := strconv.ParseUint(size, 16, 31)
		if !ok || err != nil || uint64(len(rest)) < n {
			return bad
		}
		data := rest[:n]
		if signed {
			given, isSigned := strings.CutPrefix(extension, "chunk-signature=")
			text := strings.Join([]string{awsAlgorithm + "-PAYLOAD", g.time, g.scope(), previous, digest(nil), digest(data)}, "\n")
			if !isSigned || !sameSignature(key, text, given) {
				return mismatch
			}
			previous = given
		}
		total += int(n)
		body = rest[n:]
		if n == 0 {
			break
		}
		if body, ok = bytes.CutPrefix(body, []byte("\r\n")); !ok {
			return bad
		}
	}
	if strconv.Itoa(total) != r.Header.Get("X-Amz-Decoded-Content-Length") {
		return bad
	}
	if !trailers {
		return nil
	}
	var covered strings.Builder
	for line := range strings.SplitSeq(string(body), "\r\n") {
		name, value, _ := strings.Cut(line, ":")
		switch {
		case line == "":
		case name == "x-amz-trailer-signature":
			if !sameSignature(key, strings.Join([]string{awsAlgorithm + "-TRAILER", g.time, g.scope(), previous, digest([]byte(covered.String()))}, "\n"), value) {
				return mismatch
			}
			signed = false
		default:
			covered.WriteString(strings.ToLower(name) + ":" + strings.TrimSpace(value) + "\n")
		}
	}
	if signed {
		return mismatch
	}
	return nil
}

// sign makes the signature of a request that the agent's SDK would make.
func (a aws) sign(r *http.Request, have Credentials, body []byte, now time.Time) {
	at := now.UTC().Format(awsTime)
	payload := digest(body)
	r.Header.Set("X-Amz-Date", at)
	if a.service == "s3" {
		r.Header.Set("X-Amz-Content-Sha256", payload)
	}
	if token := have["session_token"]; token != "" {
		r.Header.Set("X-Amz-Security-Token", token)
	}
	g := &signature{date: at[:8], region: a.region, service: a.service, end: "aws4_request", time: at, signed: []string{"host"}}
	for name := range maps.Keys(r.Header) {
		if name = strings.ToLower(name); strings.HasPrefix(name, "x-amz-") || name == "content-type" {
			g.signed = append(g.signed, name)
		}
	}
	slices.Sort(g.signed)
	text := awsAlgorithm + "\n" + at + "\n" + g.scope() + "\n" + digest([]byte(canonical(r, g, a.service == "s3", payload)))
	r.Header.Set("Authorization", awsAlgorithm+" Credential="+have["access_key_id"]+"/"+g.scope()+", SignedHeaders="+strings.Join(g.signed, ";")+
		", Signature="+hex.EncodeToString(mac(signingKey(have["secret_access_key"], g.scope()), text)))
}

// signs describes a request that is signed.
func (a aws) signs(client, method, target, fields, body string) Request {
	return Request{Client: client, Uses: []string{"access_key_id", "secret_access_key"}, New: func(have Credentials, now time.Time) (*http.Request, error) {
		r, err := compose(have, method, target, fields, body)
		if err != nil {
			return nil, err
		}
		r.Host = r.URL.Host
		a.sign(r, have, []byte(body), now)
		return r, nil
	}}
}

// storage are those that are used with signatures of AWS's kind.
func storage() []Service { return []Service{s3(), sigv4()} }

func s3() Service {
	a := aws{region: "eu-central-1", service: "s3"}
	says := func(e *awsError) *answer {
		text, err := xml.Marshal(struct {
			XMLName       xml.Name `xml:"Error"`
			Code, Message string
			RequestID     string `xml:"RequestId"`
		}{Code: e.code, Message: e.message, RequestID: "4442587FB7D0A2F9"})
		if err != nil {
			return &answer{status: http.StatusInternalServerError}
		}
		return &answer{status: e.status, header: []string{"Content-Type", "application/xml", "X-Amz-Request-Id", "4442587FB7D0A2F9"}, body: xml.Header + string(text)}
	}
	host := "https://acme-data.s3.eu-central-1.amazonaws.com"
	return Service{
		Name: "s3", Pins: map[string]string{"region": a.region, "bucket": "acme-data"},
		Hosts: []string{"s3.eu-central-1.amazonaws.com", "acme-data.s3.eu-central-1.amazonaws.com"},
		api: apiOf(a.check(says), *says(&awsError{http.StatusBadRequest, "ExpiredToken", "The provided token has expired."}),
			*says(&awsError{http.StatusServiceUnavailable, "SlowDown", "Please reduce your request rate."})), // 503, as documented
		Requests: []Request{
			a.signs("aws-sdk-go-v2 GetObject", "GET", host+"/reports/q3%20final.csv?x-id=GetObject", "User-Agent: aws-sdk-go-v2/1.39.0\nAmz-Sdk-Request: attempt=1; max=3\nAccept-Encoding: identity", ""),
			a.signs("aws-sdk-go-v2 PutObject", "PUT", host+"/a+b/c.txt?x-id=PutObject", "User-Agent: aws-sdk-go-v2/1.39.0\nContent-Type: text/plain", "hello"),
			a.signs("boto3, path style", "GET", "https://s3.eu-central-1.amazonaws.com/acme-data?list-type=2&prefix=a%2Fb", "User-Agent: Boto3/1.40.0", ""),
		},
	}
}

func sigv4() Service {
	a := aws{region: "eu-central-1", service: "execute-api"}
	kinds := map[string]string{"AccessDenied": "MissingAuthenticationTokenException", "InvalidAccessKeyId": "UnrecognizedClientException", "InvalidToken": "UnrecognizedClientException"}
	texts := map[string]string{"AccessDenied": "Missing Authentication Token", "InvalidAccessKeyId": "The security token included in the request is invalid.", "InvalidToken": "The security token included in the request is invalid."}
	says := func(e *awsError) *answer { // as API Gateway does: always 403
		kind, text := kinds[e.code], texts[e.code]
		if kind == "" {
			kind, text = "InvalidSignatureException", e.message
		}
		return &answer{status: http.StatusForbidden, header: []string{"X-Amzn-Errortype", kind}, body: fmt.Sprintf(`{"message":%q}`, text)}
	}
	limited := answer{status: http.StatusTooManyRequests, header: []string{"X-Amzn-Errortype", "TooManyRequestsException"}, body: `{"message":"Too Many Requests"}`}
	const host = "https://api.example.com"
	return Service{
		Name: "sigv4", Own: true, Hosts: []string{"api.example.com"}, Pins: map[string]string{"region": a.region, "service": a.service},
		api: apiOf(a.check(says), answer{status: http.StatusForbidden, header: []string{"X-Amzn-Errortype", "ExpiredTokenException"}, body: `{"message":"The security token included in the request is expired"}`}, limited),
		Requests: []Request{
			a.signs("aws-sdk-go-v2 signer", "GET", host+"/prod/orders/a%20b?limit=10&after=x%2Fy", "Accept: application/json", ""),
			a.signs("aws4fetch", "POST", host+"/prod/orders", "Content-Type: application/json", `{"item":1}`),
		},
	}
}

// check makes the service's answer of what is wrong.
func (a aws) check(says func(*awsError) *answer) func(*Server, *http.Request, []byte) *answer {
	return func(s *Server, r *http.Request, body []byte) *answer {
		err := a.verify(s, r, body)
		if err == nil {
			return nil
		}
		var e *awsError
		if !errors.As(err, &e) {
			e = &awsError{http.StatusInternalServerError, "InternalError", err.Error()}
		}
		return says(e)
	}
}
