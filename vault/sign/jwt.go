package sign

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	"ambit/internal/secretbytes"
)

// Assertion is a signed statement about who asks (RFC 7523): it is exchanged
// for an access token, or stands in for a client's secret.
type Assertion struct {
	Issuer   string        // required: iss
	Subject  string        // sub; left out if empty
	Audience string        // aud; left out if empty
	Scopes   []string      // scope, as Google wants them; left out if empty
	ID       string        // jti, for who wants each assertion to be used once; left out if empty
	KeyID    string        // kid of the header; left out if empty
	Lifetime time.Duration // required: from the time it is signed to exp, at most one hour
	Backdate time.Duration // how much earlier than the time it is signed iat says, for clocks that are behind
}

type jwtHeader struct {
	Algorithm string `json:"alg"`
	Type      string `json:"typ"`
	KeyID     string `json:"kid,omitempty"`
}

type jwtClaims struct {
	Issuer   string `json:"iss"`
	Subject  string `json:"sub,omitempty"`
	Audience string `json:"aud,omitempty"`
	Scope    string `json:"scope,omitempty"`
	ID       string `json:"jti,omitempty"`
	Issued   int64  `json:"iat"`
	Expires  int64  `json:"exp"`
}

// Sign returns the assertion as a JWT, signed with the private key: PEM in
// PKCS#8, PKCS#1 or SEC 1, of RSA with 2048 bits or more (RS256), or of P-256
// (ES256). Whatever is wrong with the key is ErrKey.
func (a Assertion) Sign(key secretbytes.Bytes, now time.Time) (secretbytes.Bytes, error) {
	if a.Issuer == "" || a.Lifetime < time.Second || a.Lifetime > time.Hour || a.Backdate < 0 {
		return secretbytes.Bytes{}, fmt.Errorf("%w: an assertion needs an issuer, and a lifetime of a second to an hour", ErrKey)
	}
	private, err := parseKey(key)
	if err != nil {
		return secretbytes.Bytes{}, err
	}
	h := jwtHeader{Algorithm: "RS256", Type: "JWT", KeyID: a.KeyID}
	if _, ok := private.(*ecdsa.PrivateKey); ok {
		h.Algorithm = "ES256"
	}
	header, err := json.Marshal(h)
	if err != nil {
		return secretbytes.Bytes{}, err
	}
	claims, err := json.Marshal(jwtClaims{Issuer: a.Issuer, Subject: a.Subject, Audience: a.Audience, Scope: strings.Join(a.Scopes, " "),
		ID: a.ID, Issued: now.Add(-a.Backdate).Unix(), Expires: now.Add(a.Lifetime).Unix()})
	if err != nil {
		return secretbytes.Bytes{}, err
	}
	b64 := base64.RawURLEncoding
	token := b64.AppendEncode(nil, header)
	token = b64.AppendEncode(append(token, '.'), claims)
	signature, err := signToken(private, token)
	if err != nil {
		return secretbytes.Bytes{}, err
	}
	return secretbytes.New(b64.AppendEncode(append(token, '.'), signature)), nil
}

func signToken(private crypto.Signer, token []byte) ([]byte, error) {
	sum := sha256.Sum256(token)
	key, ok := private.(*ecdsa.PrivateKey)
	if !ok {
		return private.Sign(rand.Reader, sum[:], crypto.SHA256)
	}
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		return nil, err
	}
	signature := make([]byte, 64) // RFC 7518 section 3.4: R and S, not ASN.1
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return signature, nil
}

// parseKey reads a private key. The errors of the parsers are left out: they
// could quote what they were given.
func parseKey(key secretbytes.Bytes) (crypto.Signer, error) {
	block, rest := pem.Decode(key.Reveal())
	if block == nil || strings.TrimSpace(string(rest)) != "" {
		return nil, fmt.Errorf("%w: it is not one private key in PEM (-----BEGIN PRIVATE KEY-----)", ErrKey)
	}
	defer clear(block.Bytes)
	var parsed any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		parsed, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("%w: it is not a private key, or one with a passphrase", ErrKey)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: the private key is damaged", ErrKey)
	}
	switch k := parsed.(type) {
	case *rsa.PrivateKey:
		if k.N.BitLen() >= 2048 {
			return k, nil
		}
	case *ecdsa.PrivateKey:
		if k.Curve == elliptic.P256() {
			return k, nil
		}
	}
	return nil, fmt.Errorf("%w: it is not of RSA with 2048 bits or more, nor of P-256", ErrKey)
}

// GoogleTokenURL is where Google exchanges the assertion of a service account,
// and the assertion's audience.
const GoogleTokenURL = "https://oauth2.googleapis.com/token" //nolint:gosec // an address, no credential

// GoogleKey is the JSON key file of a service account of Google Cloud, as far
// as it is needed.
type GoogleKey struct {
	Email string            // client_email
	KeyID string            // private_key_id
	Key   secretbytes.Bytes // private_key, in PEM
}

// ParseGoogleKey reads a key file. A file of another type, or with a token_uri
// that is not Google's, is refused with ErrKey: the assertion would go there.
func ParseGoogleKey(file secretbytes.Bytes) (GoogleKey, error) {
	var f struct {
		Type       string `json:"type"`
		Email      string `json:"client_email"`
		KeyID      string `json:"private_key_id"`
		PrivateKey string `json:"private_key"`
		TokenURI   string `json:"token_uri"`
	}
	if json.Unmarshal(file.Reveal(), &f) != nil {
		return GoogleKey{}, fmt.Errorf("%w: it is not the JSON key file of a service account", ErrKey)
	}
	switch {
	case f.Type != "service_account":
		return GoogleKey{}, fmt.Errorf("%w: the key file is not of type service_account", ErrKey)
	case f.TokenURI != "" && f.TokenURI != GoogleTokenURL:
		return GoogleKey{}, fmt.Errorf("%w: the key file's token_uri is not %s", ErrKey, GoogleTokenURL)
	case f.Email == "" || f.PrivateKey == "":
		return GoogleKey{}, fmt.Errorf("%w: the key file has no client_email or no private_key", ErrKey)
	}
	k := GoogleKey{Email: f.Email, KeyID: f.KeyID, Key: secretbytes.New([]byte(f.PrivateKey))}
	_, err := parseKey(k.Key)
	return k, err
}

// Assertion is what Google exchanges for an access token with these scopes;
// subject is the user that the account acts for, "" for itself. It is good for
// ten minutes; the token that it gets has a life of its own.
func (k GoogleKey) Assertion(scopes []string, subject string) Assertion {
	return Assertion{Issuer: k.Email, KeyID: k.KeyID, Audience: GoogleTokenURL, Scopes: scopes, Subject: subject, Lifetime: 10 * time.Minute}
}

// GitHubApp is the assertion with which a GitHub App, named by its client id or
// app id, asks for the token of an installation. GitHub takes ten minutes at
// most, and wants iat in its own past.
func GitHubApp(id string) Assertion {
	return Assertion{Issuer: id, Lifetime: 9 * time.Minute, Backdate: time.Minute}
}
