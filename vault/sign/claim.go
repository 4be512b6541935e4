package sign

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Claim is what the SigV4 signature of a request says about itself. Nothing of
// it was checked, apart from its form.
type Claim struct {
	KeyID         string
	Date          string // of the scope: YYYYMMDD
	Region        string
	Service       string
	SignedHeaders []string // lower case, sorted
	Signature     string   // 64 hexadecimal digits
	Time          time.Time
	Session       string        // X-Amz-Security-Token; "" without
	Presigned     bool          // in the query, not in the header
	Expires       time.Duration // of a presigned one; otherwise 0
}

// Names of the query parameters of a presigned URL.
const (
	queryAlgorithm  = "X-Amz-Algorithm"
	queryCredential = "X-Amz-Credential" //nolint:gosec // a name, no credential
	queryDate       = "X-Amz-Date"
	queryExpires    = "X-Amz-Expires"
	queryHeaders    = "X-Amz-SignedHeaders"
	querySignature  = "X-Amz-Signature"
	querySession    = "X-Amz-Security-Token"
	queryPayload    = "X-Amz-Content-Sha256"
)

// authParams are the parameters that the gate makes anew.
func authParams() []string {
	return []string{queryAlgorithm, queryCredential, queryDate, queryExpires, queryHeaders, querySignature, querySession}
}

// ParseClaim reads the claim of a request from its header, or from the query of
// a presigned URL. It returns ErrUnsigned if there is none, ErrUnsupported for
// another scheme of AWS's (version 2, 4A), ErrForeign for any other
// Authorization, and ErrMalformed, also if there are two.
func ParseClaim(h http.Header, rawQuery string) (*Claim, error) {
	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		return nil, fmt.Errorf("%w: its query cannot be parsed", ErrMalformed)
	}
	auth := h.Values("Authorization")
	presigned := query.Has(queryAlgorithm) || query.Has(querySignature) || query.Has(queryCredential)
	switch {
	case query.Has("AWSAccessKeyId"):
		return nil, fmt.Errorf("%w: it is version 2, use version 4", ErrUnsupported)
	case len(auth) > 1 || len(auth) == 1 && presigned:
		return nil, fmt.Errorf("%w: there are two", ErrMalformed)
	case presigned:
		return parseQuery(query)
	case len(auth) == 1:
		return parseHeader(h, auth[0])
	}
	return nil, ErrUnsigned
}

func parseHeader(h http.Header, auth string) (*Claim, error) {
	scheme, rest, _ := strings.Cut(auth, " ")
	switch {
	case scheme == "AWS" || strings.HasPrefix(scheme, "AWS4-ECDSA"):
		return nil, fmt.Errorf("%w: use version 4 with "+algorithm, ErrUnsupported)
	case scheme != algorithm:
		return nil, fmt.Errorf("%w: the Authorization header is not AWS's", ErrForeign)
	}
	fields := make(map[string]string)
	for field := range strings.SplitSeq(rest, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(field), "=")
		if _, twice := fields[name]; twice || !ok {
			return nil, fmt.Errorf("%w: the Authorization header is not Credential, SignedHeaders and Signature", ErrMalformed)
		}
		fields[name] = value
	}
	dates, sessions := h.Values("X-Amz-Date"), h.Values("X-Amz-Security-Token")
	if len(fields) != 3 || len(dates) != 1 || len(sessions) > 1 {
		return nil, fmt.Errorf("%w: it needs Credential, SignedHeaders, Signature and one X-Amz-Date", ErrMalformed)
	}
	c := &Claim{}
	if len(sessions) == 1 {
		c.Session = sessions[0]
	}
	return c, c.fill(fields["Credential"], fields["SignedHeaders"], fields["Signature"], dates[0])
}

func parseQuery(query url.Values) (*Claim, error) {
	for _, name := range append(authParams(), queryPayload) {
		if n := len(query[name]); n > 1 || n == 0 && name != querySession && name != queryPayload {
			return nil, fmt.Errorf("%w: a presigned URL needs %s once", ErrMalformed, name)
		}
	}
	if query.Get(queryAlgorithm) != algorithm {
		return nil, fmt.Errorf("%w: use version 4 with "+algorithm, ErrUnsupported)
	}
	seconds, err := strconv.ParseUint(query.Get(queryExpires), 10, 32)
	if err != nil || seconds < 1 || seconds > 7*24*3600 {
		return nil, fmt.Errorf("%w: X-Amz-Expires is not 1 to 604800 seconds", ErrMalformed)
	}
	c := &Claim{Presigned: true, Expires: time.Duration(seconds) * time.Second, Session: query.Get(querySession)}
	return c, c.fill(query.Get(queryCredential), query.Get(queryHeaders), query.Get(querySignature), query.Get(queryDate))
}

// fill takes the claim's parts apart.
func (c *Claim) fill(credential, headers, signature, date string) (err error) {
	parts := strings.Split(credential, "/")
	n := len(parts)
	if n != 5 || parts[4] != terminator || len(credential) > 512 || slices.Contains(parts, "") {
		return fmt.Errorf("%w: Credential is not KEY/DATE/REGION/SERVICE/"+terminator, ErrMalformed)
	}
	c.KeyID, c.Date, c.Region, c.Service = parts[0], parts[1], parts[2], parts[3]
	c.SignedHeaders = strings.Split(headers, ";")
	c.Signature = signature
	for i, name := range c.SignedHeaders {
		if name == "" || i >= 100 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" ||
			i > 0 && name <= c.SignedHeaders[i-1] {
			return fmt.Errorf("%w: SignedHeaders is not a sorted list of lower-case names", ErrMalformed)
		}
	}
	if !isHash(signature) {
		return fmt.Errorf("%w: Signature is not 64 hexadecimal digits", ErrMalformed)
	}
	if c.Time, err = time.Parse(amzTime, date); err != nil || !strings.HasPrefix(date, c.Date) || len(c.Date) != 8 {
		return fmt.Errorf("%w: X-Amz-Date is not a time of the day that Credential names", ErrMalformed)
	}
	return nil
}

// isHash says whether s is a SHA-256 in lower-case hexadecimal digits.
func isHash(s string) bool { return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == "" }
