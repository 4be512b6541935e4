package standin

import (
	"fmt"
	"net/http"
	"strconv"
)

// Where the answers are from:
//
//	https://docs.anthropic.com/en/api/errors, .../versioning and .../rate-limits
//	https://platform.openai.com/docs/guides/error-codes and .../rate-limits
//	https://openrouter.ai/docs/api-reference/errors

// models are those of language models.
func models() []Service { return []Service{anthropic(), openai(), openrouter()} }

func anthropic() Service {
	says := func(status int, kind, message string) answer {
		return answer{status: status, header: []string{"Request-Id", "req_011CSHoEeqs5C35K2UUqR7Fy"},
			body: fmt.Sprintf(`{"type":"error","error":{"type":%q,"message":%q},"request_id":"req_011CSHoEeqs5C35K2UUqR7Fy"}`, kind, message)}
	}
	missing := says(http.StatusUnauthorized, "authentication_error", "x-api-key header is required")
	wrong := says(http.StatusUnauthorized, "authentication_error", "invalid x-api-key")
	limited := says(http.StatusTooManyRequests, "rate_limit_error", "Number of request tokens has exceeded your per-minute rate limit")
	limited.header = append(limited.header, "Retry-After", "12", "Anthropic-Ratelimit-Requests-Limit", "50", "Anthropic-Ratelimit-Requests-Remaining", "0", "Anthropic-Ratelimit-Requests-Reset", "2030-01-01T00:00:00Z")
	judge := places(missing, wrong, field("X-Api-Key", "", "key"))
	return Service{
		Name: "anthropic", Hosts: []string{"api.anthropic.com"},
		api: apiOf(func(s *Server, r *http.Request, body []byte) *answer {
			a := judge(s, r, body)
			if a == nil && r.Header.Get("Anthropic-Version") != "2023-06-01" {
				v := says(http.StatusBadRequest, "invalid_request_error", "anthropic-version: header is required")
				if given := r.Header.Get("Anthropic-Version"); given != "" {
					v = says(http.StatusBadRequest, "invalid_request_error", "anthropic-version: "+strconv.Quote(given)+" is not a valid version")
				}
				a = &v
			}
			return a
		}, wrong, limited),
		Requests: []Request{
			sends("anthropic-sdk-go", "key", "POST", "https://api.anthropic.com/v1/messages",
				"X-Api-Key: {key}\nAnthropic-Version: 2023-06-01\nContent-Type: application/json\nUser-Agent: Anthropic/Go 1.14.0\nX-Stainless-Lang: go",
				`{"model":"claude-sonnet-4-5","max_tokens":16,"messages":[{"role":"user","content":"hi"}]}`),
			sends("anthropic-sdk-python", "key", "GET", "https://api.anthropic.com/v1/models",
				"X-Api-Key: {key}\nAnthropic-Version: 2023-06-01\nAccept: application/json\nUser-Agent: Anthropic/Python 0.70.0\nX-Stainless-Lang: python", ""),
		},
	}
}

func openai() Service {
	says := func(status int, kind, code, message string) answer {
		return answer{status: status, body: fmt.Sprintf(`{"error":{"message":%q,"type":%q,"param":null,"code":%s}}`, message, kind, code)}
	}
	missing := says(http.StatusUnauthorized, "invalid_request_error", "null", "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY), or as the password field (with blank username) if you're accessing the API from your browser and are prompted for a username and password. You can obtain an API key from https://platform.openai.com/account/api-keys.")
	wrong := says(http.StatusUnauthorized, "invalid_request_error", `"invalid_api_key"`, "Incorrect API key provided: %s. You can find your API key at https://platform.openai.com/account/api-keys.")
	expired := says(http.StatusUnauthorized, "invalid_request_error", `"invalid_api_key"`, "Incorrect API key provided: sk-proj-********. You can find your API key at https://platform.openai.com/account/api-keys.")
	limited := says(http.StatusTooManyRequests, "requests", `"rate_limit_exceeded"`, "Rate limit reached for gpt-5 on requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in 20s.")
	limited.header = []string{"Retry-After", "20", "X-Ratelimit-Limit-Requests", "3", "X-Ratelimit-Remaining-Requests", "0", "X-Ratelimit-Reset-Requests", "20s"}
	return Service{
		Name: "openai", Hosts: []string{"api.openai.com"},
		api: apiOf(places(missing, wrong, bearer("key")), expired, limited),
		Requests: []Request{
			sends("openai-go", "key", "POST", "https://api.openai.com/v1/chat/completions",
				"Authorization: Bearer {key}\nContent-Type: application/json\nUser-Agent: OpenAI/Go 3.0.0\nX-Stainless-Lang: go",
				`{"model":"gpt-5","messages":[{"role":"user","content":"hi"}]}`),
			sends("openai-python", "key", "GET", "https://api.openai.com/v1/models", "Authorization: Bearer {key}\nAccept: application/json\nUser-Agent: OpenAI/Python 2.3.0\nX-Stainless-Lang: python", ""),
		},
	}
}

func openrouter() Service {
	says := func(status int, message string) answer {
		return answer{status: status, body: fmt.Sprintf(`{"error":{"message":%q,"code":%d}}`, message, status)}
	}
	wrong := says(http.StatusUnauthorized, "User not found.")
	limited := says(http.StatusTooManyRequests, "Rate limit exceeded: free-models-per-min. ")
	limited.header = []string{"X-Ratelimit-Limit", "20", "X-Ratelimit-Remaining", "0", "X-Ratelimit-Reset", "1900000000000"}
	return Service{
		Name: "openrouter", Hosts: []string{"openrouter.ai"},
		api: apiOf(places(says(http.StatusUnauthorized, "No auth credentials found"), wrong, bearer("key")), wrong, limited),
		Requests: []Request{
			sends("openai-go", "key", "POST", "https://openrouter.ai/api/v1/chat/completions",
				"Authorization: Bearer {key}\nContent-Type: application/json\nHttp-Referer: https://acme.example\nX-Title: Acme",
				`{"model":"openai/gpt-5","messages":[{"role":"user","content":"hi"}]}`),
		},
	}
}
