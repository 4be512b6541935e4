package standin

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"strings"
	"time"
)

// installationLife is how long a token of a GitHub App's installation is good.
const installationLife = time.Hour

// claims are those of a JSON Web Token that the two services look at.
type claims struct {
	Issuer   string `json:"iss"`
	Subject  string `json:"sub"`
	Audience string `json:"aud"`
	Scope    string `json:"scope"`
	Issued   int64  `json:"iat"`
	Expires  int64  `json:"exp"`
}

// parseAssertion checks the signature of a token (RFC 7515, RS256), for which
// the key is given as PEM.
func parseAssertion(token, key string) (*claims, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, errors.New("it has not three parts")
	}
	var raw [3][]byte
	for i, p := range parts {
		b, err := base64.RawURLEncoding.DecodeString(p)
		if err != nil {
			return nil, errors.New("it is not base64url")
		}
		raw[i] = b
	}
	var header struct{ Alg, Typ string }
	if err := json.Unmarshal(raw[0], &header); err != nil || header.Alg != "RS256" {
		return nil, errors.New("its algorithm is not RS256")
	}
	public, err := publicOf(key)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if err := rsa.VerifyPKCS1v15(public, crypto.SHA256, sum[:], raw[2]); err != nil {
		return nil, errors.New("its signature is wrong")
	}
	var c claims
	if err := json.Unmarshal(raw[1], &c); err != nil {
		return nil, errors.New("its claims cannot be read")
	}
	return &c, nil
}

// publicOf is the public half of a private key in PEM, PKCS #1 or #8.
func publicOf(key string) (*rsa.PublicKey, error) {
	block, _ := pem.Decode([]byte(key))
	if block == nil {
		return nil, errors.New("the account has no key")
	}
	if k, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return &k.PublicKey, nil
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("the account's key cannot be read")
	}
	private, ok := k.(*rsa.PrivateKey)
	if !ok {
		return nil, errors.New("the account's key is not RSA")
	}
	return &private.PublicKey, nil
}

// verifyGoogleAssertion is of
// https://developers.google.com/identity/protocols/oauth2/service-account.
func verifyGoogleAssertion(s *Server, token string) error {
	var file struct {
		ClientEmail string `json:"client_email"`
		PrivateKey  string `json:"private_key"`
	}
	if err := json.Unmarshal([]byte(s.value("key")), &file); err != nil {
		return errors.New("the account has no key file")
	}
	c, err := parseAssertion(token, file.PrivateKey)
	if err != nil {
		return err
	}
	now := s.now().Unix()
	switch {
	case !same(file.ClientEmail, c.Issuer):
		return errors.New("its issuer is not the service account")
	case c.Audience != "https://oauth2.googleapis.com/token":
		return errors.New("its audience is not this server")
	case c.Subject != s.value("subject"):
		return errors.New("its subject is not the user")
	case c.Scope == "":
		return errors.New("it has no scope")
	case c.Expires <= now || c.Issued > now+60 || c.Expires > c.Issued+3600:
		return errors.New("its times are not now, or more than an hour apart")
	}
	return nil
}

// verifyGitHubApp is of
// https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app/generating-a-json-web-token-jwt-for-a-github-app.
func verifyGitHubApp(s *Server, field string) error {
	token, ok := strings.CutPrefix(field, "Bearer ")
	if !ok {
		return errors.New("it is missing")
	}
	c, err := parseAssertion(token, s.value("private_key"))
	if err != nil {
		return err
	}
	now := s.now().Unix()
	switch {
	case !same(s.value("app_id"), c.Issuer):
		return errors.New("its issuer is not the app")
	case c.Issued > now:
		return errors.New("'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued")
	case c.Expires <= now || c.Expires > now+600:
		return errors.New("'Expiration time' claim ('exp') is too far in the future")
	}
	return nil
}
