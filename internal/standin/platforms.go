package standin

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// Where the answers are from: the services' documentation of their errors, and
// reports of what they really say.
//
//	https://docs.github.com/en/rest/using-the-rest-api/troubleshooting-the-rest-api
//	https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api
//	https://docs.gitlab.com/api/rest/troubleshooting/ and https://docs.gitlab.com/security/rate_limits/
//	https://docs.stripe.com/error-codes and https://docs.stripe.com/rate-limits
//	https://shopify.dev/docs/api/admin-rest/usage/rate-limits

// platforms are those of code and of trade.
func platforms() []Service { return []Service{github(), gitlab(), stripe(), shopify()} }

func github() Service {
	missing := githubError(http.StatusUnauthorized, "Requires authentication")
	wrong := githubError(http.StatusUnauthorized, "Bad credentials")
	limited := githubError(http.StatusTooManyRequests, "API rate limit exceeded for user ID 1.")
	limited.header = []string{"Retry-After", "60", "X-Ratelimit-Limit", "5000", "X-Ratelimit-Remaining", "0", "X-Ratelimit-Reset", "1900000000", "X-Ratelimit-Resource", "core"}
	git := answer{status: http.StatusUnauthorized, header: []string{"Content-Type", "text/plain", "Www-Authenticate", `Basic realm="GitHub"`},
		body: "Invalid username or token. Password authentication is not supported for Git operations.\n"}
	api, web := []string{"api.github.com", "uploads.github.com", "raw.githubusercontent.com"}, "github.com"
	judge := places(missing, wrong,
		bearer("token").at(api...), field("Authorization", "token ", "token").at(api...), basic("", "token").at(api...),
		basic("", "token").at(web).refused(git))
	return Service{
		Name:  "github",
		Hosts: append(api, web, "codeload.github.com", "objects.githubusercontent.com", "release-assets.githubusercontent.com"),
		api: apiOf(func(s *Server, r *http.Request, body []byte) *answer {
			a := judge(s, r, body)
			switch {
			case r.Header.Get("User-Agent") == "" && hostOf(r) != web:
				return &answer{status: http.StatusForbidden, header: []string{"Content-Type", "text/html"},
					body: "Request forbidden by administrative rules. Please make sure your request has a User-Agent header (https://docs.github.com/en/rest/overview/resources-in-the-rest-api#user-agent-required). Check https://developer.github.com for other possible causes.\n"}
			case a != nil && hostOf(r) == web:
				return &git
			}
			return a
		}, wrong, limited).with(&grants{
			authorize: "github.com/login/oauth/authorize", device: "github.com/login/device/code", token: "github.com/login/oauth/access_token",
			client: inBody, pkce: pkceAccepted, github: true, access: "gho_%036d", yields: "token",
			flows: "authorization_code refresh_token " + deviceGrant, also: githubAlso,
		}, playGit),
		Requests: []Request{
			sends("go-github", "token", "GET", "https://api.github.com/user",
				"Authorization: Bearer {token}\nAccept: application/vnd.github+json\nX-GitHub-Api-Version: 2022-11-28\nUser-Agent: go-github/v74.0.0", ""),
			sends("octokit", "token", "GET", "https://api.github.com/repos/acme/shop/issues?state=open",
				"Authorization: token {token}\nAccept: application/vnd.github.v3+json\nUser-Agent: octokit-rest.js/21.0.0 octokit-core.js/6.1.2 Node.js/22", ""),
			sends("gh", "token", "POST", "https://api.github.com/graphql",
				"Authorization: token {token}\nContent-Type: application/json; charset=utf-8\nUser-Agent: GitHub CLI 2.60.0", `{"query":"{viewer{login}}"}`),
			sends("curl -u", "token", "GET", "https://api.github.com/user", "Authorization: Basic {basic x-access-token:{token} basic}\nUser-Agent: curl/8.10.1", ""),
			gitRefs("https://github.com/acme/shop.git", "x-access-token"),
			gitFetch("https://github.com/acme/shop.git", "x-access-token"),
		},
	}
}

// apiOf makes an api of a service that has nothing else to say.
func apiOf(accept func(*Server, *http.Request, []byte) *answer, expired, limited answer) api {
	return api{accept: accept, expired: expired, limited: limited}
}

// with adds an authorization server and answers.
func (a api) with(g *grants, play func(*Server, *http.Request, []byte) *answer) api {
	a.grants, a.play = g, play
	return a
}

func githubError(status int, message string) answer {
	return answer{status: status, body: fmt.Sprintf(`{"message":%q,"documentation_url":"https://docs.github.com/rest","status":"%d"}`, message, status)}
}

func gitlab() Service {
	unauthorized := answer{status: http.StatusUnauthorized, body: `{"message":"401 Unauthorized"}`}
	invalid := answer{status: http.StatusUnauthorized, header: []string{"Www-Authenticate", `Bearer realm="Protected by OAuth 2.0", error="invalid_token"`},
		body: `{"error":"invalid_token","error_description":"Token was revoked. You have to re-authorize from the user."}`}
	expired := answer{status: http.StatusUnauthorized, header: invalid.header,
		body: `{"error":"invalid_token","error_description":"Token is expired. You can either do re-authorization or token refresh."}`}
	limited := answer{status: http.StatusTooManyRequests, body: "Retry later\n", header: []string{"Content-Type", "text/plain",
		"Retry-After", "60", "Ratelimit-Limit", "2000", "Ratelimit-Remaining", "0", "Ratelimit-Reset", "1900000000", "Ratelimit-Name", "throttle_authenticated_api"}}
	git := answer{status: http.StatusUnauthorized, header: []string{"Content-Type", "text/plain", "Www-Authenticate", `Basic realm="GitLab"`},
		body: "HTTP Basic: Access denied. If a password was provided for Git authentication, the password was incorrect or you're required to use a token instead of a password.\n"}
	judge := places(unauthorized, unauthorized, bearer("token").refused(invalid), field("Private-Token", "", "token"))
	judgeGit := places(git, git, basic("", "token"))
	return Service{
		Name: "gitlab", Hosts: []string{"gitlab.com"},
		api: apiOf(func(s *Server, r *http.Request, body []byte) *answer {
			if strings.HasPrefix(r.URL.Path, "/api/") { // which does not take Basic
				return judge(s, r, body)
			}
			return judgeGit(s, r, body)
		}, expired, limited).with(&grants{
			authorize: "gitlab.com/oauth/authorize", device: "gitlab.com/oauth/authorize_device", token: "gitlab.com/oauth/token", revoke: "gitlab.com/oauth/revoke",
			client: inBody, pkce: pkceAccepted, rotates: true, flows: "authorization_code refresh_token " + deviceGrant, expires: 7200, access: "%064d", yields: "token",
			scopes: "api read_api read_user read_repository write_repository read_registry write_registry openid profile email",
		}, func(s *Server, r *http.Request, body []byte) *answer {
			if r.Method == "DELETE" && r.URL.Path == "/api/v4/personal_access_tokens/self" {
				s.revoke("token")
				return &answer{status: http.StatusNoContent}
			}
			return playGit(s, r, body)
		}),
		Requests: []Request{
			sends("client-go", "token", "GET", "https://gitlab.com/api/v4/user", "Private-Token: {token}\nAccept: application/json\nUser-Agent: go-gitlab", ""),
			sends("glab", "token", "GET", "https://gitlab.com/api/v4/projects/acme%2Fshop", "Authorization: Bearer {token}\nUser-Agent: glab/v1.47.0 (linux, amd64)", ""),
			gitRefs("https://gitlab.com/acme/shop.git", "oauth2"),
			gitFetch("https://gitlab.com/acme/shop.git", "oauth2"),
		},
	}
}

// commit is what the only branch of a played repository points to.
const commit = "6f8a1d1b2c3e4f5061728394a5b6c7d8e9f00112"

// gitRefs is what git sends first, with the user and the token as its password:
// https://git-scm.com/docs/http-protocol
func gitRefs(repository, user string) Request {
	return sends("git ls-remote", "token", "GET", repository+"/info/refs?service=git-upload-pack",
		"Authorization: Basic {basic "+user+":{token} basic}\nUser-Agent: git/2.47.0\nAccept: */*\nPragma: no-cache\nGit-Protocol: version=2", "")
}

func gitFetch(repository, user string) Request {
	return sends("git fetch", "token", "POST", repository+"/git-upload-pack",
		"Authorization: Basic {basic "+user+":{token} basic}\nUser-Agent: git/2.47.0\nContent-Type: application/x-git-upload-pack-request\nAccept: application/x-git-upload-pack-result",
		packet("want "+commit+" side-band-64k\n")+"0000"+packet("done\n"))
}

// playGit answers as a repository with one branch does, in version 0 of the
// protocol, which every git understands: https://git-scm.com/docs/http-protocol
func playGit(_ *Server, r *http.Request, _ []byte) *answer {
	service := r.URL.Query().Get("service")
	switch {
	case strings.HasSuffix(r.URL.Path, "/info/refs") && (service == "git-upload-pack" || service == "git-receive-pack"):
		return &answer{status: http.StatusOK, header: []string{"Content-Type", "application/x-" + service + "-advertisement", "Cache-Control", "no-cache"},
			body: packet("# service="+service+"\n") + "0000" +
				packet(commit+" HEAD\x00side-band-64k symref=HEAD:refs/heads/main agent=standin\n") + packet(commit+" refs/heads/main\n") + "0000"}
	case strings.HasSuffix(r.URL.Path, "/git-upload-pack") && r.Method == "POST":
		return &answer{status: http.StatusOK, header: []string{"Content-Type", "application/x-git-upload-pack-result", "Cache-Control", "no-cache"}, body: packet("NAK\n")}
	}
	return nil
}

// packet is a pkt-line: https://git-scm.com/docs/gitprotocol-common
func packet(text string) string { return fmt.Sprintf("%04x%s", len(text)+4, text) }

func stripe() Service {
	bad := func(code, message string) answer {
		return answer{status: http.StatusUnauthorized, header: []string{"Www-Authenticate", `Basic realm="Stripe"`, "Stripe-Version", "2025-09-30.clover"},
			body: `{"error":{` + code + `"message":` + strconv.Quote(message) + `,"type":"invalid_request_error"}}`}
	}
	missing := bad("", "You did not provide an API key. You need to provide your API key in the Authorization header, using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY'). See https://stripe.com/docs/api#authentication for details, or we can help at https://support.stripe.com/.")
	wrong := bad("", "Invalid API Key provided: %s")
	expired := bad(`"code":"api_key_expired","doc_url":"https://stripe.com/docs/error-codes/api-key-expired",`, "Expired API Key provided: sk_live_********************")
	limited := answer{status: http.StatusTooManyRequests, header: []string{"Stripe-Rate-Limited-Reason", "global-rate"},
		body: `{"error":{"code":"rate_limit","doc_url":"https://stripe.com/docs/error-codes/rate-limit","message":"Request rate limit exceeded. You can learn more about rate limits here https://stripe.com/docs/rate-limits.","type":"invalid_request_error"}}`}
	return Service{
		Name: "stripe", Hosts: []string{"api.stripe.com", "files.stripe.com"},
		api: apiOf(places(missing, wrong, bearer("key"), basic("key", "=")), expired, limited),
		Requests: []Request{
			sends("stripe-go", "key", "GET", "https://api.stripe.com/v1/customers?limit=3",
				"Authorization: Bearer {key}\nContent-Type: application/x-www-form-urlencoded\nStripe-Version: 2025-09-30.clover\nUser-Agent: Stripe/v1 GoBindings/83.0.0\nX-Stripe-Client-User-Agent: {\"bindings_version\":\"83.0.0\",\"lang\":\"go\"}", ""),
			sends("stripe-node", "key", "POST", "https://api.stripe.com/v1/charges",
				"Authorization: Bearer {key}\nContent-Type: application/x-www-form-urlencoded\nIdempotency-Key: stripe-node-retry-1\nUser-Agent: Stripe/v1 NodeBindings/19.1.0",
				"amount=2000&currency=usd&source=tok_visa"),
			sends("curl -u", "key", "POST", "https://api.stripe.com/v1/refunds", "Authorization: Basic {basic {key}: basic}\nContent-Type: application/x-www-form-urlencoded", "charge=ch_1"),
		},
	}
}

func shopify() Service {
	wrong := answer{status: http.StatusUnauthorized, header: []string{"Www-Authenticate", `Basic Realm="Shopify API Authentication"`},
		body: `{"errors":"[API] Invalid API key or access token (unrecognized login or wrong password)"}`}
	limited := answer{status: http.StatusTooManyRequests, header: []string{"Retry-After", "2.0", "X-Shopify-Shop-Api-Call-Limit", "40/40"},
		body: `{"errors":"Exceeded 2 calls per second for api client. Reduce request rates to resume uninterrupted service."}`}
	return Service{
		Name: "shopify", Account: "acme", Hosts: []string{"acme.myshopify.com"},
		api: apiOf(places(wrong, wrong, field("X-Shopify-Access-Token", "", "token")), wrong, limited).with(&grants{
			token: "acme.myshopify.com/admin/oauth/access_token", client: inBody, flows: "client_credentials", expires: 86399, access: "shpat_%032d", yields: "token",
		}, nil),
		Requests: []Request{
			sends("shopify-api-js", "token", "POST", "https://acme.myshopify.com/admin/api/2025-10/graphql.json",
				"X-Shopify-Access-Token: {token}\nContent-Type: application/json\nUser-Agent: Shopify API Library v12.0.0 | Node v22", `{"query":"{shop{name}}"}`),
			sends("go-shopify", "token", "GET", "https://acme.myshopify.com/admin/api/2025-10/orders.json?status=any",
				"X-Shopify-Access-Token: {token}\nAccept: application/json\nContent-Type: application/json\nUser-Agent: goshopify/1.0.0", ""),
		},
	}
}
