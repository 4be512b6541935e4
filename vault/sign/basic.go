package sign

import (
	"encoding/base64"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"ambit/internal/secretbytes"
)

// EncodeBasic is the value of an Authorization header for a user and a password
// (RFC 7617, in UTF-8). ErrKey if the user has a colon, or one of them a control
// character.
func EncodeBasic(user, password secretbytes.Bytes) (secretbytes.Bytes, error) {
	u, p := user.Reveal(), password.Reveal()
	if !plain(string(u)) || !plain(string(p)) || strings.Contains(string(u), ":") {
		return secretbytes.Bytes{}, fmt.Errorf("%w: a user without a colon and a password, both without control characters, are needed", ErrKey)
	}
	pair := make([]byte, 0, len(u)+len(p)+1)
	pair = append(append(append(pair, u...), ':'), p...)
	defer clear(pair)
	return secretbytes.New(base64.StdEncoding.AppendEncode([]byte("Basic "), pair)), nil
}

// DecodeBasic takes the value of an Authorization header apart. It is strict:
// one space, base64 with padding and without stray bits, a colon, no control
// characters. ErrUnsigned is another scheme, ErrMalformed everything else.
func DecodeBasic(value string) (user, password string, err error) {
	scheme, token, _ := strings.Cut(value, " ")
	if !strings.EqualFold(scheme, "Basic") {
		return "", "", fmt.Errorf("%w: the Authorization is not Basic", ErrUnsigned)
	}
	pair, err := base64.StdEncoding.Strict().DecodeString(token)
	user, password, found := strings.Cut(string(pair), ":")
	if err != nil || strings.ContainsAny(token, "\r\n") || !found || !plain(user) || !plain(password) {
		return "", "", fmt.Errorf("%w: Basic is not followed by the base64 of user:password", ErrMalformed)
	}
	return user, password, nil
}

// plain says whether s is UTF-8 without control characters.
func plain(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}
