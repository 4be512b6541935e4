package standin

import (
	"fmt"
	"mime"
	"net/http"
	"strings"
)

// Where the answers are from:
//
//	https://docs.slack.dev/authentication/ and https://docs.slack.dev/apis/web-api/rate-limits
//	https://developer.zendesk.com/api-reference/introduction/security-and-auth/ and .../rate-limits/
//	https://developers.google.com/workspace/gmail/api/guides/handle-errors
//	https://developers.notion.com/reference/status-codes and .../request-limits
//	https://linear.app/developers/rate-limiting
//	https://developers.hubspot.com/docs/api/error-handling

// workplaces are those of messages, documents and customers.
func workplaces() []Service {
	return []Service{
		slack(), zendesk(), notion(), linear(), hubspot(),
		google("gmail", "gmail.googleapis.com", "/gmail/v1/users/me/messages", `{"raw":"VG86IGE="}`),
		google("google-drive", "www.googleapis.com", "/drive/v3/files", `{"name":"notes.txt"}`),
	}
}

func slack() Service {
	says := func(code string) answer {
		return answer{status: http.StatusOK, body: `{"ok":false,"error":"` + code + `"}`}
	}
	limited := says("ratelimited")
	limited.status, limited.header = http.StatusTooManyRequests, []string{"Retry-After", "30"}
	web := "slack.com"
	user := places(says("not_authed"), says("invalid_auth"), bearer("token"), formField("token", "token").at(web))
	app := places(says("not_authed"), says("not_allowed_token_type"), bearer("app_token"))
	return Service{
		Name: "slack", Hosts: []string{web, "files.slack.com"},
		api: apiOf(func(s *Server, r *http.Request, body []byte) *answer {
			if r.URL.Path == "/api/apps.connections.open" { // Socket Mode: only an app-level token
				return app(s, r, body)
			}
			return user(s, r, body)
		}, says("token_expired"), limited).with(nil, func(s *Server, r *http.Request, _ []byte) *answer {
			if r.URL.Path == "/api/auth.revoke" {
				s.revoke("token")
				return &answer{status: http.StatusOK, body: `{"ok":true,"revoked":true}`}
			}
			return &answer{status: http.StatusOK, body: `{"ok":true}`}
		}),
		Requests: []Request{
			sends("@slack/web-api", "token", "POST", "https://slack.com/api/chat.postMessage",
				"Authorization: Bearer {token}\nContent-Type: application/x-www-form-urlencoded\nUser-Agent: @slack:web-api/7.9.1 node/22.0.0 linux/6.8", "text=hello&channel=C0123456789"),
			sends("slack-go", "token", "POST", "https://slack.com/api/auth.test", "Content-Type: application/x-www-form-urlencoded", "token={token}"),
			sends("slack-go JSON", "token", "POST", "https://slack.com/api/views.open",
				"Authorization: Bearer {token}\nContent-Type: application/json; charset=utf-8", `{"trigger_id":"1.2.3"}`),
			sends("slack-go socketmode", "app_token", "POST", "https://slack.com/api/apps.connections.open",
				"Authorization: Bearer {app_token}\nContent-Type: application/x-www-form-urlencoded", ""),
			sends("files", "token", "GET", "https://files.slack.com/files-pri/T1-F1/a.txt", "Authorization: Bearer {token}", ""),
		},
	}
}

func zendesk() Service {
	missing := answer{status: http.StatusUnauthorized, header: []string{"Www-Authenticate", `Basic realm="Web Password"`}, body: `{"error":"Couldn't authenticate you"}`}
	invalid := answer{status: http.StatusUnauthorized,
		header: []string{"Www-Authenticate", `Bearer realm="Zendesk::OAuth Bearer Token Authentication", error="invalid_token", error_description="The access token provided is expired, revoked, malformed or invalid for other reasons."`},
		body:   `{"error":"invalid_token","error_description":"The access token provided is expired, revoked, malformed or invalid for other reasons."}`}
	limited := answer{status: http.StatusTooManyRequests, header: []string{"Content-Type", "text/plain", "Retry-After", "93", "X-Rate-Limit", "700", "X-Rate-Limit-Remaining", "0", "Ratelimit-Limit", "700", "Ratelimit-Remaining", "0", "Ratelimit-Reset", "93"},
		body: "Number of allowed API requests per minute exceeded"}
	apiToken := basic("email", "api_token") // the user name is the e-mail address and "/token"
	find := apiToken.find
	apiToken.find = func(r *http.Request, body []byte) Credentials {
		given := find(r, body)
		if email, ok := given["email"]; ok {
			if given["email"], ok = strings.CutSuffix(email, "/token"); !ok {
				given["email"] = ""
			}
		}
		return given
	}
	return Service{
		Name: "zendesk", Account: "acme", Hosts: []string{"acme.zendesk.com"},
		api: apiOf(places(missing, missing, bearer("access_token").refused(invalid), apiToken), invalid, limited).with(&grants{
			authorize: "acme.zendesk.com/oauth/authorizations/new", token: "acme.zendesk.com/oauth/tokens", client: inBody, pkce: pkceAccepted, rotates: true,
			flows: "authorization_code refresh_token client_credentials", expires: 1800, access: "%064x",
			scopes: "read write impersonate tickets:read tickets:write users:read users:write", needsScope: true,
		}, nil),
		Requests: []Request{
			sends("zenpy OAuth", "access_token", "GET", "https://acme.zendesk.com/api/v2/tickets.json", "Authorization: Bearer {access_token}\nUser-Agent: Zenpy/2.0.56", ""),
			sends("node-zendesk", "email api_token", "POST", "https://acme.zendesk.com/api/v2/tickets.json",
				"Authorization: Basic {basic {email}/token:{api_token} basic}\nContent-Type: application/json\nAccept: application/json", `{"ticket":{"subject":"Refund"}}`),
		},
	}
}

func google(name, host, path, body string) Service {
	bad := func(message, reason, detail string) answer {
		return answer{status: http.StatusUnauthorized, header: []string{"Www-Authenticate", `Bearer realm="https://accounts.google.com/", error="invalid_token"`},
			body: fmt.Sprintf(`{"error":{"code":401,"message":"%s Expected OAuth 2 access token, login cookie or other valid authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project.","errors":[{"message":%q,"domain":"global","reason":%q,"location":"Authorization","locationType":"header"}],"status":"UNAUTHENTICATED"}}`, message, detail, reason)}
	}
	missing := bad("Request is missing required authentication credential.", "required", "Login Required.")
	missing.header = []string{"Www-Authenticate", `Bearer realm="https://accounts.google.com/"`}
	wrong := bad("Request had invalid authentication credentials.", "authError", "Invalid Credentials")
	limited := answer{status: http.StatusTooManyRequests,
		body: `{"error":{"code":429,"message":"Too many concurrent requests for user.","errors":[{"message":"Too many concurrent requests for user.","domain":"global","reason":"rateLimitExceeded"}],"status":"RESOURCE_EXHAUSTED"}}`}
	return Service{
		Name: name, Hosts: []string{host, "oauth2.googleapis.com", "accounts.google.com"},
		api: apiOf(places(missing, wrong, bearer("access_token").at(host)), wrong, limited).with(&grants{
			authorize: "accounts.google.com/o/oauth2/v2/auth", token: "oauth2.googleapis.com/token", revoke: "oauth2.googleapis.com/revoke",
			client: inBody, pkce: pkceAccepted, flows: "authorization_code refresh_token " + assertionGrant, expires: 3599, access: "ya29.a0%060d",
			scopes: "https://mail.google.com/ https://www.googleapis.com/auth/gmail.modify https://www.googleapis.com/auth/gmail.readonly https://www.googleapis.com/auth/drive https://www.googleapis.com/auth/drive.file", needsScope: true,
		}, nil),
		Requests: []Request{
			sends("google-api-go-client", "access_token", "GET", "https://"+host+path+"?alt=json&prettyPrint=false",
				"Authorization: Bearer {access_token}\nUser-Agent: google-api-go-client/0.5\nX-Goog-Api-Client: gl-go/1.26.0 gdcl/0.250.0", ""),
			sends("googleapis", "access_token", "POST", "https://"+host+path,
				"Authorization: Bearer {access_token}\nContent-Type: application/json\nUser-Agent: google-api-nodejs-client/8.0.0 (gzip)\nX-Goog-Api-Client: gdcl/8.0.0 gl-node/22.0.0", body),
		},
	}
}

func notion() Service {
	says := func(status int, code, message string) answer {
		return answer{status: status, body: fmt.Sprintf(`{"object":"error","status":%d,"code":%q,"message":%q,"request_id":"00000000-0000-4000-8000-000000000000"}`, status, code, message)}
	}
	wrong := says(http.StatusUnauthorized, "unauthorized", "API token is invalid.")
	limited := says(http.StatusTooManyRequests, "rate_limited", "You have been rate limited. Please try again in a few minutes.")
	limited.header = []string{"Retry-After", "2"}
	judge := places(wrong, wrong, bearer("token"))
	return Service{
		Name: "notion", Hosts: []string{"api.notion.com"},
		api: apiOf(func(s *Server, r *http.Request, body []byte) *answer {
			version := r.Header.Get("Notion-Version")
			a := judge(s, r, body)
			if a == nil && version == "" {
				v := says(http.StatusBadRequest, "missing_version", "Notion-Version header failed validation: Notion-Version header should be defined, instead was `undefined`.")
				a = &v
			}
			return a
		}, wrong, limited).with(&grants{
			authorize: "api.notion.com/v1/oauth/authorize", token: "api.notion.com/v1/oauth/token", client: inBasic, pkce: pkceRefused, json: true, rotates: true,
			access: "ntn_%046d", yields: "token", also: notionAlso, asks: "owner=user",
		}, nil),
		Requests: []Request{
			sends("@notionhq/client", "token", "POST", "https://api.notion.com/v1/search",
				"Authorization: Bearer {token}\nNotion-Version: 2025-09-03\nContent-Type: application/json\nUser-Agent: notionhq-client/5.1.0", `{"query":"roadmap"}`),
			sends("notion-sdk-py", "token", "GET", "https://api.notion.com/v1/users/me", "Authorization: Bearer {token}\nNotion-Version: 2022-06-28\nUser-Agent: ramnes/notion-sdk-py@2.4.0", ""),
		},
	}
}

func linear() Service {
	says := func(status int, code, kind, message string) answer {
		return answer{status: status, body: fmt.Sprintf(`{"errors":[{"message":%q,"extensions":{"type":%q,"code":%q,"statusCode":%d,"userError":true,"userPresentableMessage":"You need to authenticate to access this operation."}}]}`, message, kind, code, status)}
	}
	wrong := says(http.StatusUnauthorized, "AUTHENTICATION_ERROR", "authentication error", "Authentication required, not authenticated")
	asBearer := says(http.StatusBadRequest, "INPUT_ERROR", "invalid input", "It looks like you're trying to use an API key as a Bearer token. Remove the Bearer prefix from the Authorization header.")
	plain := says(http.StatusBadRequest, "BAD_REQUEST", "graphql error", "This operation has been blocked as a potential Cross-Site Request Forgery (CSRF).")
	limited := says(http.StatusBadRequest, "RATELIMITED", "ratelimited", "Rate limit exceeded. Only 1500 requests are allowed per 1 hour.") // 400, as documented
	limited.header = []string{"X-Ratelimit-Requests-Limit", "1500", "X-Ratelimit-Requests-Remaining", "0", "X-Ratelimit-Requests-Reset", "1900000000000"}
	key := field("Authorization", "", "api_key")
	find := key.find
	key.find = func(r *http.Request, body []byte) Credentials {
		if strings.Contains(r.Header.Get("Authorization"), " ") {
			return nil
		}
		return find(r, body)
	}
	judge := places(wrong, wrong, key, bearer("access_token"))
	return Service{
		Name: "linear", Hosts: []string{"api.linear.app", "uploads.linear.app", "linear.app"},
		api: apiOf(func(s *Server, r *http.Request, body []byte) *answer {
			kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
			switch {
			case strings.HasPrefix(strings.ToLower(r.Header.Get("Authorization")), "bearer lin_api_"):
				return &asBearer
			case r.URL.Path == "/graphql" && kind != "application/json":
				return &plain
			}
			return judge(s, r, body)
		}, wrong, limited).with(&grants{
			authorize: "linear.app/oauth/authorize", token: "api.linear.app/oauth/token", revoke: "api.linear.app/oauth/revoke",
			client: inBody, pkce: pkceAccepted, rotates: true, flows: "authorization_code refresh_token client_credentials", expires: 86399, access: "lin_oauth_%064d",
			scopes: "read write issues:create comments:create admin", scopeSep: ",", needsScope: true,
		}, nil),
		Requests: []Request{
			sends("@linear/sdk", "api_key", "POST", "https://api.linear.app/graphql",
				"Authorization: {api_key}\nContent-Type: application/json\nUser-Agent: @linear/sdk@60.0.0", `{"query":"{viewer{id}}"}`),
			sends("@linear/sdk OAuth", "access_token", "POST", "https://api.linear.app/graphql",
				"Authorization: Bearer {access_token}\nContent-Type: application/json\nUser-Agent: @linear/sdk@60.0.0", `{"query":"{viewer{id}}"}`),
		},
	}
}

func hubspot() Service {
	const request = `"correlationId":"00000000-0000-4000-8000-000000000000"`
	wrong := answer{status: http.StatusUnauthorized, header: []string{"X-Hubspot-Auth-Failure", "401 Unauthorized"},
		body: `{"status":"error","message":"Authentication credentials not found. This API supports OAuth 2.0 authentication and you can find more details at https://developers.hubspot.com/docs/methods/auth/oauth-overview",` + request + `,"category":"INVALID_AUTHENTICATION"}`}
	expired := answer{status: http.StatusUnauthorized, header: wrong.header,
		body: `{"status":"error","message":"The OAuth token used to make this call expired 1 second(s) ago.",` + request + `,"category":"EXPIRED_AUTHENTICATION","context":{"expire time":["2026-01-01T00:00:00Z"]}}`}
	limited := answer{status: http.StatusTooManyRequests,
		header: []string{"X-Hubspot-Ratelimit-Max", "100", "X-Hubspot-Ratelimit-Remaining", "0", "X-Hubspot-Ratelimit-Interval-Milliseconds", "10000"},
		body:   `{"status":"error","message":"You have reached your ten_secondly_rolling limit.","errorType":"RATE_LIMIT",` + request + `,"policyName":"TEN_SECONDLY_ROLLING"}`}
	return Service{
		Name: "hubspot", Hosts: []string{"api.hubapi.com", "app.hubspot.com"},
		api: apiOf(places(wrong, wrong, bearer("token").at("api.hubapi.com")), expired, limited).with(&grants{
			authorize: "app.hubspot.com/oauth/authorize", token: "api.hubapi.com/oauth/v1/token", also: hubspotAlso,
			client: inBody, pkce: pkceRefused, expires: 1800, access: "CAAA%060d", yields: "token",
			scopes: "oauth crm.objects.contacts.read crm.objects.contacts.write", needsScope: true,
		}, nil),
		Requests: []Request{
			sends("hubspot-api-nodejs", "token", "GET", "https://api.hubapi.com/crm/v3/objects/contacts?limit=10",
				"Authorization: Bearer {token}\nAccept: application/json\nUser-Agent: hubspot-api-client-nodejs; 13.0.0", ""),
			sends("hubspot-api-python", "token", "POST", "https://api.hubapi.com/crm/v3/objects/contacts/search",
				"Authorization: Bearer {token}\nContent-Type: application/json\nUser-Agent: hubspot-api-client-python; 12.0.0", `{"limit":1}`),
		},
	}
}
