package ambit_test

import (
	"encoding/json"
	"testing"

	"ambit"
)

func TestRequestURL(t *testing.T) {
	for want, r := range map[string]ambit.Request{
		"https://a.example/x?q=1":   {Scheme: "https", Host: "a.example", Port: 443, Path: "/x", RawQuery: "q=1"},
		"https://a.example:8443/":   {Scheme: "https", Host: "a.example", Port: 8443, Path: "/"},
		"http://a.example/":         {Scheme: "http", Host: "a.example", Port: 80, Path: "/"},
		"http://a.example:443/":     {Scheme: "http", Host: "a.example", Port: 443, Path: "/"},
		"tls://a.example:443":       {Scheme: "tls", Host: "a.example", Port: 443, Action: ambit.ActionPassthrough},
		"https://[2001:db8::1]:1/y": {Scheme: "https", Host: "2001:db8::1", Port: 1, Path: "/y"},
		"a.example":                 {Host: "a.example", Action: ambit.ActionName},
	} {
		if got := r.URL(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// TestDenyIsTheZeroValue: whatever is forgotten, misspelt or unknown refuses.
func TestDenyIsTheZeroValue(t *testing.T) {
	var v ambit.Verdict
	if v.Decision != ambit.Deny || v.Decision.String() != "deny" {
		t.Error("the zero verdict does not deny")
	}
	for _, s := range []string{`"deny"`, `""`, `"Allow"`, `"allow "`, `"yes"`} {
		d := ambit.Allow
		if err := json.Unmarshal([]byte(s), &d); err != nil || d != ambit.Deny {
			t.Errorf("%s was read as %v, %v", s, d, err)
		}
	}
	if ambit.Decision(7).String() != "deny" {
		t.Error("an unknown decision does not deny")
	}
}
