package oauth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"mime"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"ambit/internal/dialguard"
)

// Error is an exchange with a provider that failed. Its text is ours: nothing
// of what the provider wrote is in it, but for a code that a specification has.
type Error struct {
	// Permanent says that trying again will not help: the person must connect
	// again, or the operator must change the connection's settings. Otherwise
	// the failure is temporary.
	Permanent bool
	// Code is the error code of RFC 6749 and its kin, such as invalid_grant;
	// "" if there was none that is known.
	Code string
	// Status is the HTTP status; 0 if no answer came.
	Status int
	// RetryAfter is how long the provider asked to be left alone, at most
	// MaxRetryAfter; 0 if it did not.
	RetryAfter time.Duration
	// Reason is what happened, after "the provider refused: " and the like.
	Reason string

	cause error // context.Canceled, context.DeadlineExceeded or a *dialguard.Error: nothing else, as it may quote what came
}

// MaxRetryAfter bounds how long a provider can put us off.
const MaxRetryAfter = time.Hour

// Error implements error.
func (e *Error) Error() string {
	text := "oauth: the provider did not give what was asked for: " + e.Reason
	if e.Code != "" {
		text += " (" + e.Code + ")"
	}
	if e.Status != 0 {
		text += ", HTTP status " + strconv.Itoa(e.Status)
	}
	if e.RetryAfter > 0 {
		text += ", try again in " + e.RetryAfter.String()
	}
	return text
}

// Unwrap returns the end of the context, or the refusal of an address, that
// was the cause; otherwise nil.
func (e *Error) Unwrap() error { return e.cause }

// permanentCodes and temporaryCodes are the codes that are known: RFC 6749
// section 5.2, RFC 8628 section 3.5, RFC 7009 section 2.2.1, OpenID Connect,
// and GitHub's own.
func permanentCodes() map[string]string {
	return map[string]string{ //nolint:gosec // words for people, no credential
		"invalid_grant":                "what it was given is expired, revoked or was used before: connect again",
		"invalid_client":               "it does not know the client, or its secret is wrong",
		"unauthorized_client":          "the client may not do this",
		"unsupported_grant_type":       "it does not support this flow",
		"invalid_scope":                "it does not give these scopes",
		"invalid_request":              "it calls the request invalid",
		"invalid_target":               "it does not know the resource",
		"unsupported_response_type":    "it does not support this flow",
		"unsupported_token_type":       "it does not revoke tokens of this type",
		"access_denied":                "the person said no",
		"expired_token":                "the person did not answer in time: connect again",
		"interaction_required":         "it wants to see the person: connect again",
		"consent_required":             "it wants the person's consent: connect again",
		"login_required":               "it wants the person to log in: connect again",
		"invalid_token":                "the token is no good any more: connect again",
		"bad_refresh_token":            "the refresh token is no good any more: connect again",
		"bad_verification_code":        "the code is no good any more: connect again",
		"incorrect_client_credentials": "the client's id or secret is wrong",
		"incorrect_device_code":        "the device code is no good any more: connect again",
		"redirect_uri_mismatch":        "it does not know the redirect address",
		"device_flow_disabled":         "the device flow is switched off for this client",
	}
}

func temporaryCodes() map[string]string {
	return map[string]string{
		"temporarily_unavailable": "it is not available at the moment",
		"server_error":            "it has a fault",
		"authorization_pending":   "the person has not answered yet",
		"slow_down":               "it wants to be asked less often",
	}
}

// failed makes the error of a code, which need not be known.
func failed(code string, status int, header http.Header, now time.Time) *Error {
	e := &Error{Status: status, RetryAfter: retryAfter(header, now)}
	permanent, temporary := permanentCodes(), temporaryCodes()
	switch {
	case permanent[code] != "":
		e.Code, e.Reason, e.Permanent = code, permanent[code], true
	case temporary[code] != "":
		e.Code, e.Reason = code, temporary[code]
	default:
		e.Reason = "it refused, with an error that is not known"
		e.Permanent = status < 500
	}
	if status == http.StatusTooManyRequests || status >= 500 {
		e.Permanent = false
	}
	return e
}

// refused judges an answer that is not a success, or not JSON; nil if it is
// both.
func (a *answer) refused(now time.Time) *Error {
	e := &Error{Status: a.status, RetryAfter: retryAfter(a.header, now)}
	media, _, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	isJSON := err == nil && media == "application/json" && len(a.header.Values("Content-Type")) == 1
	switch {
	case a.status == http.StatusTooManyRequests:
		e.Reason = "it was asked too often"
	case a.status >= 500:
		e.Reason = "it has a fault"
	case a.status >= 300 && a.status < 400:
		e.Reason = "it sent a redirect, which is not followed"
	case !isJSON:
		e.Reason = "its answer is not JSON"
	case a.status >= 400:
		m, _ := object(a.body)
		code, _ := m.text("error")
		return failed(code, a.status, a.header, now)
	case a.status == http.StatusOK || a.status == http.StatusCreated:
		return nil
	default:
		e.Reason = "its answer has a status that means nothing here"
	}
	return e
}

// retryAfter reads RFC 9110 section 10.2.3, both forms.
func retryAfter(h http.Header, now time.Time) time.Duration {
	value := strings.TrimSpace(h.Get("Retry-After"))
	var d time.Duration
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		d = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(value); err == nil {
		d = at.Sub(now)
	}
	return min(max(d, 0), MaxRetryAfter)
}

// unreachable says in our words why there was no whole answer. The error of the
// transport may quote what the provider sent, so it is not kept.
func unreachable(ctx context.Context, err error) *Error {
	e := &Error{Reason: "the connection failed, or what came over it was not HTTP"}
	var dns *net.DNSError
	var op *net.OpError
	var verification *tls.CertificateVerificationError
	var guard *dialguard.Error
	var authority x509.UnknownAuthorityError
	switch {
	case errors.Is(context.Cause(ctx), context.Canceled):
		e.Reason, e.cause = "it was cancelled", context.Canceled
	case ctx.Err() != nil:
		e.Reason, e.cause = "it did not answer in time", context.DeadlineExceeded
	case errors.As(err, &guard):
		e.Reason, e.cause = "its address may not be dialled: "+guard.Error(), guard
	case errors.As(err, &dns):
		e.Reason = "its name cannot be resolved"
	case errors.As(err, &verification) || errors.As(err, &authority):
		e.Reason = "its certificate is not valid for its name"
	case errors.As(err, &op) && op.Op == "dial":
		e.Reason = "it cannot be reached"
	}
	return e
}

// is says whether err is an *Error with one of the codes.
func is(err error, codes ...string) bool {
	var e *Error
	return errors.As(err, &e) && slices.Contains(codes, e.Code)
}
