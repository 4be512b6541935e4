package standin

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// generic are services of no particular maker, which do what the RFC or the
// connector's file says.
func generic() []Service {
	return []Service{bearerService(), basicService(), headerService(), queryService(), hmacService(), mtlsService(), oauthService(), loginService()}
}

// own is a generic service. Its answer to too many requests is that of RFC 6585
// and RFC 9110.
func own(name, host string, accept func(*Server, *http.Request, []byte) *answer, expired answer, requests ...Request) Service {
	limited := answer{status: http.StatusTooManyRequests, header: []string{"Content-Type", "application/problem+json", "Retry-After", "30"}, body: `{"title":"Too Many Requests","status":429}`}
	return Service{Name: name, Own: true, Hosts: []string{host}, Requests: requests, api: apiOf(accept, expired, limited)}
}

func unauthorized(challenge string) answer {
	return answer{status: http.StatusUnauthorized, header: []string{"Content-Type", "application/problem+json", "Www-Authenticate", challenge}, body: `{"title":"Unauthorized","status":401}`}
}

func bearerService() Service {
	missing, wrong := unauthorized(`Bearer realm="api"`), unauthorized(`Bearer realm="api", error="invalid_token"`) // RFC 6750 section 3
	return own("bearer", "bearer.example.com", places(missing, wrong, bearer("token")), wrong,
		sends("curl", "token", "GET", "https://bearer.example.com/v1/things?page=2", "Authorization: Bearer {token}\nUser-Agent: curl/8.10.1", ""),
		sends("lower case", "token", "POST", "https://bearer.example.com/v1/things", "Authorization: bearer {token}\nContent-Type: application/json", `{"name":"a"}`))
}

func basicService() Service {
	wrong := unauthorized(`Basic realm="api", charset="UTF-8"`) // RFC 7617 section 2
	return own("basic", "basic.example.com", places(wrong, wrong, basic("user", "password")), wrong,
		sends("curl -u", "user password", "GET", "https://basic.example.com/v1/things", "Authorization: Basic {basic {user}:{password} basic}\nUser-Agent: curl/8.10.1", ""))
}

func headerService() Service {
	wrong := unauthorized(`ApiKey realm="api"`)
	var all []place
	var requests []Request
	for _, name := range []string{"X-Api-Key", "Api-Key", "Apikey", "X-Auth-Token", "X-Access-Token", "X-Auth-Key"} {
		all = append(all, field(name, "", "key"))
		requests = append(requests, sends(name, "key", "GET", "https://header.example.com/v1/things", name+": {key}", ""))
	}
	return own("header", "header.example.com", places(wrong, wrong, all...), wrong, requests...)
}

func queryService() Service {
	wrong := unauthorized(`ApiKey realm="api"`)
	var all []place
	var requests []Request
	for _, name := range []string{"api_key", "apikey", "api-key", "key", "access_token"} {
		all = append(all, parameter(name, "key"))
		requests = append(requests, sends(name, "key", "GET", "https://query.example.com/v1/things?q=a%20b&"+name+"={key}&page=2", "Accept: application/json", ""))
	}
	return own("query", "query.example.com", places(wrong, wrong, all...), wrong, requests...)
}

// hmacSkew is how far a timestamp may be from now.
const hmacSkew = 5 * time.Minute

func hmacService() Service {
	wrong := unauthorized(`HMAC-SHA256 realm="api"`)
	key := places(wrong, wrong, field("X-Api-Key", "", "key"))
	accept := func(s *Server, r *http.Request, body []byte) *answer {
		if a := key(s, r, body); a != nil {
			return a
		}
		seconds, err := strconv.ParseInt(r.Header.Get("X-Timestamp"), 10, 64)
		age := s.now().Sub(time.Unix(seconds, 0))
		want := signHMAC(s.value("secret"), r, strconv.FormatInt(seconds, 10), body)
		if err != nil || age > hmacSkew || age < -hmacSkew || s.value("secret") == "" || !same(want, r.Header.Get("X-Signature")) {
			return &wrong
		}
		return nil
	}
	signs := func(client, method, target, body string) Request {
		return Request{Client: client, Uses: []string{"key", "secret"}, New: func(have Credentials, now time.Time) (*http.Request, error) {
			r, err := compose(have, method, target, "X-Api-Key: {key}\nContent-Type: application/json", body)
			if err != nil {
				return nil, err
			}
			stamp := strconv.FormatInt(now.Unix(), 10)
			r.Header.Set("X-Timestamp", stamp)
			r.Header.Set("X-Signature", signHMAC(have["secret"], r, stamp, []byte(body)))
			return r, nil
		}}
	}
	return own("hmac", "hmac.example.com", accept, wrong,
		signs("GET", "GET", "https://hmac.example.com/v1/things?b=2&a=%2F1", ""),
		signs("POST", "POST", "https://hmac.example.com/v1/things", `{"amount":5}`))
}

// signHMAC is HMAC-SHA256 (RFC 2104) over time, method, target and body.
func signHMAC(secret string, r *http.Request, stamp string, body []byte) string {
	h := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(h, "%s\n%s\n%s\n%s", stamp, r.Method, r.URL.RequestURI(), body)
	return hex.EncodeToString(h.Sum(nil))
}

// mtlsService wants the connection to be made with the account's certificate.
// Its server's TLS configuration must ask for one (tls.RequestClientCert). The
// answers are nginx's.
func mtlsService() Service {
	page := func(text string) answer {
		return answer{status: http.StatusBadRequest, header: []string{"Content-Type", "text/html"},
			body: "<html>\r\n<head><title>400 " + text + "</title></head>\r\n<body>\r\n<center><h1>400 Bad Request</h1></center>\r\n<center>" + text + "</center>\r\n</body>\r\n</html>\r\n"}
	}
	missing, wrong := page("No required SSL certificate was sent"), page("The SSL certificate error")
	accept := func(s *Server, r *http.Request, _ []byte) *answer {
		if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
			return &missing
		}
		block, _ := pem.Decode([]byte(s.value("certificate")))
		if block == nil || !bytes.Equal(block.Bytes, r.TLS.PeerCertificates[0].Raw) {
			return &wrong
		}
		return nil
	}
	return own("mtls", "mtls.example.com", accept, wrong,
		sends("curl", "", "GET", "https://mtls.example.com/v1/things", "Accept: application/json", ""))
}

func oauthService() Service {
	missing, wrong := unauthorized(`Bearer realm="api"`), unauthorized(`Bearer realm="api", error="invalid_token", error_description="The access token expired"`)
	s := own("oauth2", "oauth.example.com", places(missing, wrong, bearer("access_token")), wrong,
		sends("curl", "access_token", "GET", "https://oauth.example.com/v1/things", "Authorization: Bearer {access_token}", ""))
	s.api.grants = &grants{
		authorize: "oauth.example.com/oauth/authorize", device: "oauth.example.com/oauth/device_authorization", token: "oauth.example.com/oauth/token", revoke: "oauth.example.com/oauth/revoke",
		client: inBasic, pkce: pkceRequired, rotates: true, flows: "authorization_code refresh_token client_credentials " + deviceGrant, expires: 3600, access: "at-%048d",
	}
	return s
}
