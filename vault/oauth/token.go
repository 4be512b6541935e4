package oauth

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"ambit/internal/secretbytes"
)

// Token is what a provider issued. Whoever has it wipes it.
type Token struct {
	Access secretbytes.Bytes
	// Refresh is a refresh token that replaces the one before: it must be
	// durable before Access is used. Empty if the provider sent none; then the
	// one before stays good.
	Refresh secretbytes.Bytes
	// Expires is when Access ends; zero if it does not as far as is known, for a
	// token that came with neither expires_in nor a refresh token.
	Expires time.Time
	// Missing are the scopes that were asked for and not granted, if the
	// provider said which it granted.
	Missing []string
}

// Wipe overwrites both tokens.
func (t *Token) Wipe() {
	t.Access.Wipe()
	t.Refresh.Wipe()
}

const (
	maxToken  = 64 << 10               // bytes of one token
	maxExpiry = 10 * 365 * 24 * 3600.0 // seconds; what is more is cut down
)

// token reads a successful answer of a token endpoint (RFC 6749 section 5.1)
// and clears its body.
//
// What is odd about expires_in never fails the answer: a refresh token that the
// provider has just rotated would be lost with it, and too late a refresh costs
// one 401. A number, or digits in a string, count; ten years are the most; what
// is missing, not positive or something else is the default.
func (c *Client) token(a *answer) (*Token, error) {
	defer clear(a.body)
	now := c.c.Now()
	if err := a.refused(now); err != nil {
		return nil, err
	}
	m, err := object(a.body)
	if err != nil {
		return nil, &Error{Status: a.status, Reason: "its answer is " + err.Error()}
	}
	if raw, has := m["error"]; has && string(raw) != "null" { // GitHub does so with status 200
		code, _ := m.text("error")
		return nil, failed(code, a.status, a.header, now)
	}
	access, _ := m.text("access_token")
	if !visible(access) {
		return nil, &Error{Status: a.status, Reason: "its answer has no access_token that can be sent"}
	}
	if !c.typeAccepted(m) {
		return nil, &Error{Permanent: true, Status: a.status, Reason: "its token is not of the type Bearer"}
	}
	t := &Token{Access: secretbytes.New([]byte(access))}
	if raw, has := m["refresh_token"]; has && string(raw) != "null" {
		refresh, _ := m.text("refresh_token")
		if refresh != "" && !visible(refresh) {
			t.Wipe()
			return nil, &Error{Status: a.status, Reason: "its answer has a refresh_token that cannot be sent"}
		}
		t.Refresh = secretbytes.New([]byte(refresh))
	}
	if seconds, ok := m.seconds("expires_in"); ok {
		t.Expires = now.Add(time.Duration(seconds * float64(time.Second)))
	} else if t.Refresh.Len() > 0 {
		t.Expires = now.Add(c.c.DefaultExpiry)
	}
	t.Missing = c.missing(m)
	return t, nil
}

func (c *Client) typeAccepted(m members) bool {
	kind, _ := m.text("token_type")
	if strings.EqualFold(kind, "Bearer") {
		return true
	}
	_, has := m["token_type"]
	return (kind != "" || !has) && slices.ContainsFunc(c.c.TokenTypes, func(t string) bool { return strings.EqualFold(t, kind) })
}

// missing compares the scopes; commas are GitHub's.
func (c *Client) missing(m members) (missing []string) {
	granted, ok := m.text("scope")
	if !ok || granted == "" {
		return nil
	}
	have := strings.FieldsFunc(granted, func(r rune) bool { return r == ' ' || r == ',' })
	for _, s := range c.c.Scopes {
		if !slices.Contains(have, s) {
			missing = append(missing, s)
		}
	}
	return missing
}

// visible says whether s is a token in the sense of RFC 6749 appendix A: 1 to
// 65536 visible ASCII characters. A space or line break would split the header.
func visible(s string) bool {
	return s != "" && len(s) <= maxToken && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// members is a JSON object, its values not parsed yet.
type members map[string]json.RawMessage

// object reads one JSON object and nothing else. A key that is there twice is
// refused: two readers could disagree about it.
func object(b []byte) (members, error) {
	wrong := errors.New("not one JSON object")
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, wrong
	}
	m := make(members)
	for d.More() {
		key, err := d.Token()
		name, ok := key.(string)
		if err != nil || !ok {
			return nil, wrong
		}
		if _, twice := m[name]; twice {
			return nil, errors.New("a JSON object with a key that is there twice")
		}
		var value json.RawMessage
		if d.Decode(&value) != nil {
			return nil, wrong
		}
		m[name] = value
	}
	if t, err := d.Token(); err != nil || t != json.Delim('}') {
		return nil, wrong
	}
	if len(bytes.TrimLeft(b[d.InputOffset():], " \t\r\n")) > 0 {
		return nil, wrong
	}
	return m, nil
}

// text is a member that is a string; "" if it is not.
func (m members) text(name string) (s string, ok bool) {
	raw := m[name]
	if len(raw) == 0 || raw[0] != '"' || json.Unmarshal(raw, &s) != nil {
		return "", false
	}
	return s, true
}

// seconds is a member that is a positive number of seconds, or one in a string.
func (m members) seconds(name string) (float64, bool) {
	number := string(m[name])
	if s, ok := m.text(name); ok {
		number = s
	}
	n, err := strconv.ParseFloat(number, 64)
	if errors.Is(err, strconv.ErrRange) && n > 0 {
		n = maxExpiry
	} else if err != nil || math.IsNaN(n) || n < 1 {
		return 0, false
	}
	return math.Floor(min(n, maxExpiry)), true
}
