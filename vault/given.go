package vault

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"ambit/connector"
	"ambit/internal/scrub"
	"ambit/internal/secretbytes"
	"ambit/vault/sign"
)

// MaxField is the longest value of a field, in bytes.
const MaxField = 64 << 10

// FieldError is a value that cannot be right. It never holds the value.
type FieldError struct {
	Field  string // name of the Secret
	Title  string // the same for people
	Reason string // what is wrong with it, and what would be right
}

// Error implements error.
func (e *FieldError) Error() string { return e.Title + " (" + e.Field + ") " + e.Reason }

// given checks what a person gave for a way. It returns copies of the values,
// which the caller wipes, and what was changed about them.
func given(b *connector.Binding, w *connector.Way, fields map[string]secretbytes.Bytes) (map[string]secretbytes.Bytes, []string, error) {
	for name := range fields {
		if !slices.Contains(w.Fields, name) {
			return nil, nil, fmt.Errorf("%.60q is no field of way %s of connector %s; its fields are: %s", name, w.Name, b.Connector.Name, strings.Join(w.Fields, ", "))
		}
	}
	values := make(map[string]secretbytes.Bytes)
	var notes []string
	for _, name := range w.Fields {
		s := secretNamed(b, name)
		if s == nil {
			wipe(values)
			return nil, nil, fmt.Errorf("connector %s: way %s has a field %s that is no secret", b.Connector.Name, w.Name, name)
		}
		value, trimmed := trim(fields[name].Reveal())
		if len(value) == 0 && s.Optional {
			continue
		}
		if reason := refuse(s, value); reason != "" {
			wipe(values)
			return nil, nil, &FieldError{s.Name, s.Title, reason}
		}
		if trimmed {
			notes = append(notes, s.Title+": the line break at its end was left out")
		}
		values[name] = secretbytes.New(bytes.Clone(value))
	}
	if err := pairs(b, values); err != nil {
		wipe(values)
		return nil, nil, err
	}
	return values, notes, nil
}

func wipe(values map[string]secretbytes.Bytes) {
	for _, v := range values {
		v.Wipe()
	}
}

func secretNamed(b *connector.Binding, name string) *connector.Secret {
	for i := range b.Secrets {
		if b.Secrets[i].Name == name {
			return &b.Secrets[i]
		}
	}
	return nil
}

// trim leaves out the line break that a file, or a paste, ends with.
func trim(b []byte) (value []byte, trimmed bool) {
	value = bytes.TrimRight(b, "\r\n")
	return value, len(value) < len(b)
}

func severalLines(s *connector.Secret) bool {
	return s.Multiline || s.Kind == connector.Certificate || s.Kind == connector.PrivateKey || s.Kind == connector.ServiceAccount
}

// refuse says why a value cannot be right; "" if it can be.
func refuse(s *connector.Secret, b []byte) string {
	lines := severalLines(s)
	switch {
	case len(b) == 0:
		return "is empty; enter it, or give it on standard input or in a file"
	case len(b) > MaxField:
		return fmt.Sprintf("has %d bytes, and 64 KiB is the most; see that it is the right file", len(b))
	case !utf8.Valid(b):
		return "is binary, not text (UTF-8); give it as the service shows it, a key as PEM"
	case !lines && bytes.ContainsAny(b, "\r\n"):
		return "has several lines, and must be one"
	case bytes.ContainsFunc(b, func(r rune) bool { return unicode.IsControl(r) && !(lines && strings.ContainsRune("\r\n\t", r)) }):
		return "has control characters in it, as of an arrow key; enter it again"
	case !s.Public && !s.Short && s.Kind != connector.TOTP && len(bytes.TrimSpace(b)) < scrub.MinLen:
		return fmt.Sprintf("has fewer than %d bytes: that short, it could not be taken out of what the service answers; use a longer one", scrub.MinLen)
	case s.Check != nil && !s.Check.Match(b):
		return fmt.Sprintf("does not look like one: it should match %s", s.Check)
	}
	if err := parses(s.Kind, b); err != nil {
		return "cannot be used: " + err.Error()
	}
	return ""
}

// parses tries a value as what it is. Errors never hold any of it.
func parses(kind connector.SecretKind, b []byte) error {
	value := secretbytes.New(bytes.Clone(b))
	defer value.Wipe()
	switch kind {
	case connector.TOTP:
		t, err := sign.ParseTOTP(value)
		t.Wipe()
		return err
	case connector.ServiceAccount:
		k, err := sign.ParseGoogleKey(value)
		k.Key.Wipe()
		return err
	case connector.Certificate:
		return parsesCertificate(b)
	case connector.PrivateKey:
		return parsesKey(b)
	}
	return nil
}

func parsesCertificate(b []byte) error {
	n := 0
	for {
		block, rest := pem.Decode(b)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return errors.New("it has something else than certificates in it; a key is a field of its own")
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return errors.New("one of its certificates is damaged")
		}
		n, b = n+1, rest
	}
	if n == 0 || len(bytes.TrimSpace(b)) > 0 {
		return errors.New("it is not PEM: -----BEGIN CERTIFICATE----- and so on, and nothing else")
	}
	return nil
}

func parsesKey(b []byte) error {
	block, rest := pem.Decode(b)
	if block == nil || len(bytes.TrimSpace(rest)) > 0 {
		return errors.New("it is not one private key as PEM: -----BEGIN PRIVATE KEY----- and so on, and nothing else")
	}
	defer clear(block.Bytes)
	_, pkcs8 := x509.ParsePKCS8PrivateKey(block.Bytes)
	_, pkcs1 := x509.ParsePKCS1PrivateKey(block.Bytes)
	_, sec1 := x509.ParseECPrivateKey(block.Bytes)
	switch {
	case pkcs8 == nil || pkcs1 == nil || sec1 == nil:
		return nil
	case block.Headers["DEK-Info"] != "" || block.Type == "ENCRYPTED PRIVATE KEY":
		return errors.New("the key is sealed with a passphrase; give it without: openssl pkey -in FILE")
	}
	return errors.New("it is no private key that is known: PKCS#8, PKCS#1 or SEC 1")
}

// pairs checks that certificates belong to their keys.
func pairs(b *connector.Binding, values map[string]secretbytes.Bytes) error {
	for i := range b.Hosts {
		for _, a := range b.Hosts[i].Auth {
			if a.MTLS == nil || values[a.MTLS.Certificate].Len() == 0 || values[a.MTLS.Key].Len() == 0 {
				continue
			}
			if _, err := tls.X509KeyPair(values[a.MTLS.Certificate].Reveal(), values[a.MTLS.Key].Reveal()); err != nil {
				s := secretNamed(b, a.MTLS.Key)
				return &FieldError{s.Name, s.Title, "does not belong to the certificate; give the key that it was issued for"}
			}
		}
	}
	return nil
}
