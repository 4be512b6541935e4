package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"

	"github.com/danielgtaylor/huma/v2"

	"ambit/agent"
	"ambit/api"
	"ambit/control"
	"ambit/internal/sqldb"
	"ambit/kek"
	"ambit/manifest"
)

func problem(status int, detail string) *api.Problem {
	return &api.Problem{Title: http.StatusText(status), Status: status, Detail: detail}
}

// problemOf is the one table from errors to HTTP. The callers are the home's
// owner and root, so causes are not hidden from them.
func problemOf(err error) *api.Problem {
	var p *api.Problem
	var m manifest.Errors
	var w *control.Error
	var kms *kek.KMSError
	var r *refusal
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, errConnectorFile):
		return connectorProblem(err)
	case errors.As(err, &m):
		return manifestProblem(m, "the manifest is refused; nothing was changed")
	case errors.Is(err, agent.ErrNotFound):
		return problem(http.StatusNotFound, "there is no such agent: `ambit agents` lists those that there are")
	case errors.Is(err, agent.ErrVersion):
		return problem(http.StatusNotFound, "there is no such version: `ambit versions AGENT` lists those that there are")
	case errors.Is(err, kek.ErrPassphrase):
		return problem(http.StatusUnprocessableEntity, err.Error())
	case errors.As(err, &r):
		return problem(http.StatusConflict, err.Error())
	case errors.As(err, &kms):
		return problem(http.StatusBadGateway, err.Error())
	case errors.As(err, &w) && w.Status/100 == 4:
		return problem(w.Status, err.Error())
	case errors.As(err, &w):
		return problem(http.StatusBadGateway, "the agent's worker failed: "+err.Error())
	case errors.Is(err, sqldb.ErrFull):
		return problem(http.StatusInsufficientStorage, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return problem(http.StatusGatewayTimeout, "it took too long and was given up: "+err.Error())
	case errors.Is(err, context.Canceled):
		return problem(http.StatusServiceUnavailable, "ambit serve is ending: try again when it is back")
	}
	return problem(http.StatusInternalServerError, err.Error())
}

// connectorProblem is about connector files, which are read like manifests.
func connectorProblem(err error) *api.Problem {
	var m manifest.Errors
	if errors.As(err, &m) {
		return manifestProblem(m, errConnectorFile.Error()+"; nothing was changed")
	}
	return problem(http.StatusUnprocessableEntity, err.Error())
}

func manifestProblem(m manifest.Errors, detail string) *api.Problem {
	p := problem(http.StatusUnprocessableEntity, detail)
	for _, e := range m {
		text := e.Text
		if e.Path != "" {
			text = e.Path + ": " + text
		}
		p.Errors = append(p.Errors, api.ProblemError{Message: text, File: e.File, Line: e.Line, Column: e.Column, Hint: e.Hint, Excerpt: e.Excerpt()})
	}
	return p
}

// ownProblems makes the HTTP library's problems into ours, without the values
// that were sent: a manifest is long.
func ownProblems(_ huma.Context, _ string, v any) (any, error) {
	m, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	p := problem(m.Status, m.Detail)
	for _, e := range m.Errors {
		p.Errors = append(p.Errors, api.ProblemError{Message: e.Message, Location: e.Location})
	}
	return p, nil
}

func writeProblem(w http.ResponseWriter, p *api.Problem) {
	b, err := json.Marshal(p)
	if err != nil { // it has strings and numbers only
		b = []byte(`{"title":"Internal Server Error","status":500,"detail":""}`)
	}
	w.Header().Set("Content-Type", api.ProblemType)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(b, '\n'))
}

// recoverer turns a bug into an answer and a log entry.
func (s *Server) recoverer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			x := recover()
			if x == nil {
				return
			}
			s.log.Error("a request failed by a mistake in this program", slog.Any("method", r.Method), slog.Any("path", r.URL.Path), slog.Any("panic", fmt.Sprint(x)), slog.Any("stack", string(debug.Stack())))
			writeProblem(w, problem(http.StatusInternalServerError, "a mistake in Ambit: the log of ambit serve says more; please report it"))
		}()
		next.ServeHTTP(w, r)
	})
}

// misses answers in problems where the mux would in plain text: 404 and 405.
func misses(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h, pattern := mux.Handler(r)
		if pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		probe := &statusOnly{header: http.Header{}}
		h.ServeHTTP(probe, r)
		text := "there is nothing at this path: GET /openapi.json says what there is"
		if allow := probe.header.Get("Allow"); allow != "" {
			w.Header().Set("Allow", allow)
			text = "this path has no " + r.Method + ", only " + allow
		}
		writeProblem(w, problem(probe.status, text))
	})
}

// statusOnly is a ResponseWriter that keeps the head and drops the body.
type statusOnly struct {
	header http.Header
	status int
}

func (s *statusOnly) Header() http.Header         { return s.header }
func (s *statusOnly) Write(p []byte) (int, error) { return len(p), nil }
func (s *statusOnly) WriteHeader(status int)      { s.status = status }
