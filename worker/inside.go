package worker

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"ambit"
)

// inside is what the agent's programs find at http://ambit.internal. Who asks is
// this worker's agent, whatever the request says: the way here is its socket.
func (w *Worker) inside() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", w.greet)
	mux.HandleFunc("/mcp", func(rw http.ResponseWriter, r *http.Request) { w.tools.gateway.ServeHTTP(rw, r) })
	mux.HandleFunc("/", func(rw http.ResponseWriter, r *http.Request) {
		problem(rw, http.StatusNotFound, ambit.Reason{
			Code: "no-such-page", Text: "there is nothing here at " + r.URL.EscapedPath(), Remedy: "http://" + ambit.InternalHost + "/ says what there is",
		})
	})
	return mux
}

func (w *Worker) greet(rw http.ResponseWriter, _ *http.Request) {
	rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
	rw.Header().Set("Cache-Control", "no-store")
	var b strings.Builder
	fmt.Fprintf(&b, "This is Ambit, inside the computer of the agent %s.\n\n", w.config.Agent)
	b.WriteString("What leaves this computer is judged by the agent's manifest; a refusal says why.\n")
	fmt.Fprintf(&b, "/mcp is a server of the Model Context Protocol with %d tools.\n", len(*w.tools.given.Load()))
	_, _ = rw.Write([]byte(b.String()))
}

// problem answers with a problem document (RFC 9457).
func problem(rw http.ResponseWriter, status int, reason ambit.Reason) {
	b, err := json.Marshal(struct {
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
		Remedy string `json:"remedy,omitempty"`
	}{"urn:ambit:problem:" + reason.Code, http.StatusText(status), status, reason.Text, reason.Remedy})
	if err != nil { // strings and numbers always marshal
		b = []byte("{}")
	}
	rw.Header().Set("Content-Type", "application/problem+json")
	rw.Header().Set("Cache-Control", "no-store")
	rw.WriteHeader(status)
	_, _ = rw.Write(append(b, '\n'))
}
