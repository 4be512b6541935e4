package egress

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"ambit"
	"ambit/internal/inert"
)

const intentHeader = "Ambit-Intent"

// fate is what becomes of a header field that the agent sent.
type fate uint8

const (
	pass   fate = iota
	drop        // between two neighbours, or a claim about who asks that only a gateway may make
	forged      // in Ambit's own name
)

// requestFate decides by name. A name counts the same with "_" for "-": CGI and
// what descends from it cannot tell the two apart (H2).
func requestFate(name string) fate {
	if strings.IndexByte(name, '_') >= 0 {
		name = http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
	}
	switch name[0] {
	case 'A':
		if strings.HasPrefix(name, "Ambit-") {
			return forged
		}
	case 'P':
		if strings.HasPrefix(name, "Proxy-") {
			return drop
		}
	case 'X':
		if strings.HasPrefix(name, "X-Forwarded-") || name == "X-Real-Ip" {
			return drop
		}
	case 'F':
		if name == "Forwarded" {
			return drop
		}
	case 'V':
		if name == "Via" {
			return drop
		}
	}
	return hopByHop(name)
}

// responseFate is requestFate for what an upstream sends: nothing of it may
// look like a word of the gate's, and no other way out is advertised.
func responseFate(name string) fate {
	switch name[0] {
	case 'A':
		if strings.HasPrefix(name, "Ambit-") || name == "Alt-Svc" {
			return drop
		}
	case 'P':
		if strings.HasPrefix(name, "Proxy-") {
			return drop
		}
	}
	return hopByHop(name)
}

// hopByHop drops what concerns one connection only (RFC 9110 section 7.6.1).
// Content-Length and Host are carried outside the map.
func hopByHop(name string) fate {
	switch name {
	case "Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Content-Length", "Host", "Http2-Settings":
		return drop
	}
	return pass
}

// cleanRequest takes out of h what must not be judged and must not leave, and
// returns the stated intent. ok is false if the agent used a name of Ambit's.
func cleanRequest(h http.Header) (intent string, ok bool) {
	if v, stated := h[intentHeader]; stated {
		if len(v) != 1 {
			return "", false
		}
		intent = cleanIntent(v[0])
		delete(h, intentHeader)
	}
	trailers := h["Te"] // gRPC needs to hear that trailers are understood
	dropNamed(h)
	for name := range h {
		switch requestFate(name) {
		case drop:
			delete(h, name)
		case forged:
			return intent, false
		}
	}
	if len(trailers) == 1 && strings.EqualFold(trailers[0], "trailers") && isGRPC(h) {
		h["Te"] = trailers
	}
	if _, there := h["User-Agent"]; !there {
		h["User-Agent"] = nil // else net/http adds its own
	}
	return intent, true
}

// dropNamed removes the fields that Connection names.
func dropNamed(h http.Header) {
	for _, v := range h["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			if name = strings.TrimSpace(name); name != "" {
				h.Del(name)
			}
		}
	}
}

// hasToken says whether a list of values has a word, in any case.
func hasToken(values []string, word string) bool {
	for _, v := range values {
		for t := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(t), word) {
				return true
			}
		}
	}
	return false
}

// cleanIntent decodes percent-encoding and makes the text inert and short.
func cleanIntent(s string) string {
	if d, err := url.PathUnescape(s); err == nil {
		s = d
	}
	s = strings.TrimSpace(inert.Text(s))
	if len(s) <= ambit.MaxIntent {
		return s
	}
	end := ambit.MaxIntent
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}

// proxyIntent reads the intent that a program states as the password of the
// proxy user "intent": http://intent:why%20it%20asks@127.0.0.1:3128.
func proxyIntent(h http.Header) string {
	scheme, value, _ := strings.Cut(h.Get("Proxy-Authorization"), " ")
	if !strings.EqualFold(scheme, "Basic") {
		return ""
	}
	plain, err := base64.StdEncoding.DecodeString(strings.TrimSpace(value))
	if err != nil {
		return ""
	}
	user, password, _ := strings.Cut(string(plain), ":")
	if user != "intent" {
		return ""
	}
	return cleanIntent(password)
}
