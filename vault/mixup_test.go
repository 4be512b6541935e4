package vault_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"ambit"
)

// Places in memory are used again and again, by values of different accounts
// whose requests overlap and whose connections are revoked and made in between:
// a host never gets anything but its own account's credential.
func TestK5CredentialsAreNotMixedUp(t *testing.T) {
	const accounts, rounds = 4, 80
	var connections []string
	for i := range accounts {
		connections = append(connections, fmt.Sprintf("{name: bearer, as: c%d, hosts: [host%d.example]}", i, i))
	}
	w := newWorld(t, connections...)
	value := func(i int) string {
		return fmt.Sprintf("real-%d-%s", i, strings.Repeat(string(rune('a'+i)), 20+40*i))
	}
	connect := func(i int) { w.connect(fmt.Sprintf("c%d", i), "", "token", value(i)) }
	w.serve = func(rw http.ResponseWriter, r *http.Request) {
		var i int
		if _, err := fmt.Sscanf(r.Host, "host%d.example", &i); err != nil || r.Header.Get("Authorization") != "Bearer "+value(i) {
			t.Errorf("%s got %q", r.Host, r.Header.Get("Authorization"))
		}
		_, _ = io.WriteString(rw, "echo "+r.Header.Get("Authorization"))
	}
	var ask, revoke sync.WaitGroup
	done := make(chan struct{})
	for i := range accounts {
		connect(i)
		c := get(fmt.Sprintf("https://host%d.example/", i), "Authorization", "Bearer "+w.env(fmt.Sprintf("C%d_TOKEN", i)))
		for range 3 {
			ask.Go(func() {
				for range rounds {
					if body := w.try(c); strings.Contains(body, "real") {
						t.Errorf("host %d's answer has %q", i, body)
					}
				}
			})
		}
	}
	revoke.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-done:
				return
			default:
			}
			if _, err := w.vault.Revoke(context.Background(), fmt.Sprintf("c%d", n%accounts), "uid:1000"); err != nil {
				t.Error(err)
			}
			connect(n % accounts)
		}
	})
	ask.Wait()
	close(done)
	revoke.Wait()
	if whole, _ := w.reached(); whole == 0 {
		t.Error("nothing ever arrived")
	}
}

// try is do where anything may happen in between. It returns what was read.
func (w *world) try(c call) string {
	request, q := w.request(c)
	plan, verdict := w.vault.Examine(request)
	grant, err := w.gate.CheckWith(w.t.Context(), request, verdict)
	if err != nil {
		return ""
	}
	defer grant.Finish(ambit.Outcome{})
	ctx, cancel := context.WithCancel(w.t.Context())
	defer cancel()
	lease, err := w.vault.Use(ctx, grant, plan, q, cancel)
	if err != nil {
		return ""
	}
	defer lease.Done()
	resp, err := w.send.RoundTrip(q.WithContext(ctx))
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	if lease.Answer(resp) != nil {
		return ""
	}
	b, _ := io.ReadAll(resp.Body)
	return string(b)
}
