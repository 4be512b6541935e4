package vault

import (
	"errors"
	"net/http"
	"net/url"

	"ambit"
	"ambit/connector"
	"ambit/internal/secretbytes"
	"ambit/vault/sign"
)

// verify checks the signatures that the agent made with references, of the
// request as it sent it (K4), and notes how to make them again.
func (u *use) verify() error {
	for _, w := range u.plan.signed {
		var err error
		switch {
		case w.HMAC != nil:
			err = u.verifyHMAC(w.HMAC)
		case w.SigV4 != nil:
			err = u.verifySigV4(w.SigV4)
		default:
			err = sign.ErrUnsupported
		}
		if err != nil {
			return u.refuseSignature(err)
		}
	}
	return nil
}

func (u *use) verifyHMAC(a *connector.HMACAuth) error {
	scheme := hmacOf(a)
	reference := secretbytes.New([]byte(u.plan.site.bound.refs[a.Secret]))
	if err := u.shadow(func(r *http.Request) error { return scheme.Verify(r, reference, u.v.now()) }); err != nil {
		return err
	}
	u.signed = append(u.signed, func() error {
		return u.refuseSignature(u.shadow(func(r *http.Request) error { return scheme.Sign(r, u.values.of(a.Secret), u.v.now()) }))
	})
	return nil
}

func hmacOf(a *connector.HMACAuth) sign.HMAC {
	return sign.HMAC{
		Algorithm: a.Algorithm, Encoding: a.Encoding, Message: a.Message, Header: a.Header, Value: a.Value,
		TimestampHeader: a.TimestampHeader, Milliseconds: a.Milliseconds,
	}
}

func (u *use) verifySigV4(a *connector.SigV4Auth) error {
	b := u.plan.site.bound
	scheme := &sign.SigV4{Region: a.Region, Service: a.Service, Reference: sign.AWSKey{ID: b.refs[a.KeyID], Secret: secretbytes.New([]byte(b.refs[a.Secret]))}}
	var checked *sign.Verified
	err := u.shadow(func(r *http.Request) (err error) {
		checked, err = scheme.Verify(r, u.v.now())
		return err
	})
	if err != nil {
		return err
	}
	u.signed = append(u.signed, func() error {
		scheme.Real = sign.AWSKey{ID: string(u.values.of(a.KeyID).Reveal()), Secret: u.values.of(a.Secret), Session: u.values.of(a.Session)}
		return u.refuseSignature(u.shadow(func(r *http.Request) error { return scheme.Sign(r, checked, u.v.now()) }))
	})
	return nil
}

// shadow calls f with a request whose URL is written as package sign reads it,
// and takes over what f changed.
func (u *use) shadow(f func(*http.Request) error) error {
	r := *u.q
	path, err := url.PathUnescape(u.q.URL.Opaque)
	if err != nil {
		return err
	}
	r.URL = &url.URL{Scheme: u.q.URL.Scheme, Host: u.q.URL.Host, Path: path, RawPath: u.q.URL.Opaque, RawQuery: u.q.URL.RawQuery}
	err = f(&r)
	u.q.Body, u.q.GetBody, u.q.ContentLength = r.Body, r.GetBody, r.ContentLength
	if r.URL.RawQuery != u.q.URL.RawQuery {
		to := *u.q.URL
		to.RawQuery = r.URL.RawQuery
		u.q.URL = &to
	}
	return err
}

// refuseSignature is the refusal for an error of package sign.
func (u *use) refuseSignature(err error) error {
	var denial *ambit.DenyError
	switch {
	case err == nil:
		return nil
	case u.lease.refused.Load() != nil:
		return u.lease.refused.Load()
	case errors.As(err, &denial):
		return denial
	case errors.Is(err, sign.ErrKey):
		return u.unusable("cannot sign: " + err.Error())
	}
	return u.deny(signatureRefused(u.plan.site.bound, err))
}

func signatureRefused(b *bound, err error) ambit.Reason {
	r := ambit.Reason{
		Code: "signature-refused", Text: "the signature for the connection " + quote(b.Name) + " is refused: " + err.Error(),
		Remedy: "let the program sign the request as it sends it, with the references of the connection",
	}
	if errors.Is(err, sign.ErrForeign) {
		r.Code = "foreign-credential"
	}
	return r
}

// isSigning says that an error is package sign's about a body.
func isSigning(err error) bool {
	return errors.Is(err, sign.ErrMismatch) || errors.Is(err, sign.ErrMalformed) || errors.Is(err, sign.ErrBody)
}
