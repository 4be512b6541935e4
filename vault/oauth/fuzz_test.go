package oauth

import (
	"bytes"
	"encoding/json"
	"net/http"
	"testing"
	"time"
)

// FuzzToken gives the parser of token answers hostile bytes.
func FuzzToken(f *testing.F) {
	for _, body := range []string{
		`{"access_token":"a","token_type":"Bearer","expires_in":3600,"refresh_token":"r","scope":"read"}`,
		`{"access_token":"a","token_type":"bearer","expires_in":"-1"}`, `{"error":"invalid_grant"}`,
		`{"access_token":"a","access_token":"b","token_type":"Bearer"}`, `{"access_token":"a b","token_type":"Bearer"}`,
		`{"access_token":"a","token_type":"Bearer","expires_in":1e999}`, `{}`, `[]`, `null`, `{"a":`, "\xff", `{"":{"":[]}} `,
	} {
		f.Add(200, "application/json", []byte(body))
		f.Add(400, "application/json", []byte(body))
	}
	f.Add(302, "text/html", []byte("<html>"))
	now := time.Unix(1_800_000_000, 0)
	c := &Client{Config{Now: func() time.Time { return now }, DefaultExpiry: time.Hour, Scopes: []string{"read"}}}
	f.Fuzz(func(t *testing.T, status int, media string, body []byte) {
		var naive map[string]any
		d := json.NewDecoder(bytes.NewReader(body))
		d.UseNumber()
		valid := d.Decode(&naive) == nil
		token, err := c.token(&answer{status, http.Header{"Content-Type": {media}}, body})
		for _, b := range body {
			if b != 0 {
				t.Fatal("the answer was not cleared")
			}
		}
		if (token == nil) != (err != nil) {
			t.Fatalf("token %v and error %v", token, err)
		}
		if err != nil {
			return
		}
		if status != 200 && status != 201 || !valid || naive["access_token"] != string(token.Access.Reveal()) || !visible(string(token.Access.Reveal())) {
			t.Errorf("accepted status %d, %v", status, naive)
		}
		if !token.Expires.IsZero() && (!token.Expires.After(now) || token.Expires.After(now.AddDate(11, 0, 0))) {
			t.Errorf("expires %s", token.Expires)
		}
	})
}
