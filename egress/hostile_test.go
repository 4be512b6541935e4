package egress_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// K1: an attempt to send a reference somewhere else is in the log and alerted, also
// where the host answers before it has the body.
func TestK1RefusedAfterTheAnswerIsLogged(t *testing.T) {
	s := newShop(t, echo)
	for _, h2 := range []bool{false, true} {
		other := newShop(t, func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).EnableFullDuplex()
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			_, _ = io.Copy(io.Discard, r.Body)
		})
		w := newWallet(t, s, other.rule())
		w.connect()
		body, send := io.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		q, err := http.NewRequestWithContext(ctx, "POST", other.url("/"), body)
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("Content-Type", "text/plain")
		done := make(chan struct{})
		go func() {
			defer close(done)
			resp, err := w.client(h2).Do(q)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}()
		_, _ = io.WriteString(send, "here it is: ")
		time.Sleep(100 * time.Millisecond)
		_, _ = io.WriteString(send, w.reference+strings.Repeat(" ", 600))
		for range 50 {
			if w.alerts.raised("reference-misplaced") {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		if !w.alerts.raised("reference-misplaced") {
			t.Errorf("h2 %v: nobody was told", h2)
		}
		cancel()
		send.Close()
		<-done
	}
}
