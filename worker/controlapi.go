package worker

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"time"

	"ambit"
	"ambit/audit"
	"ambit/control"
	"ambit/scan"

	"golang.org/x/sys/unix"
)

// maxQuestion bounds a question of the control plane's, in bytes: a manifest in
// JSON is the largest.
const maxQuestion = 8 << 20

// serveControl answers the control plane until the listener is closed.
func (w *Worker) serveControl(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+control.PathStatus, answer(func(_ context.Context, _ struct{}) (control.Status, error) { return w.status(), nil }))
	mux.HandleFunc("POST "+control.PathApply, answer(func(ctx context.Context, p control.Policy) (struct{}, error) { return struct{}{}, w.apply(ctx, p) }))
	mux.HandleFunc("POST "+control.PathRecord, answer(w.record))
	mux.HandleFunc("POST "+control.PathCalls, w.calls)
	w.serveAlerts(mux)
	w.serveApprovals(mux)
	w.serveTools(mux)
	mux.HandleFunc("POST "+control.PathTask, answer(w.beginTask))
	w.serveAudit(mux)
	mux.HandleFunc("POST "+control.PathConsistency, answer(w.consistency))
	mux.HandleFunc("GET "+control.PathOutput, w.showOutput)
	mux.HandleFunc("POST "+control.PathKeys, answer(w.rekey))
	mux.HandleFunc("GET "+control.PathConnections, answer(w.connections))
	mux.HandleFunc("POST "+control.PathConnection, answer(w.connection))
	mux.HandleFunc("POST "+control.PathConnect, answer(w.connect))
	mux.HandleFunc("POST "+control.PathOAuthStart, answer(w.startOAuth))
	mux.HandleFunc("POST "+control.PathOAuthFinish, answer(w.finishOAuth))
	mux.HandleFunc("POST "+control.PathRevoke, answer(w.revoke))
	mux.HandleFunc("GET "+control.PathPlacement, answer(w.placement))
	mux.HandleFunc("POST "+control.PathStop, answer(func(context.Context, struct{}) (struct{}, error) { w.stop(); return struct{}{}, nil }))
	s := &http.Server{
		Handler: w.authenticate(mux), ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10,
		ErrorLog:    slog.NewLogLogger(w.log.Handler(), slog.LevelWarn),
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, peerUID(c))
		},
	}
	stop := context.AfterFunc(ctx, func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_ = s.Shutdown(ctx)
	})
	defer stop()
	err := s.Serve(l)
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

type peerKey struct{}

// peerUID is the user of the process at the other end; -1 if it is unknown.
func peerUID(c net.Conn) int {
	uid := -1
	u, ok := c.(*net.UnixConn)
	if !ok {
		return uid
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return uid
	}
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			uid = int(cred.Uid)
		}
	})
	return uid
}

func (w *Worker) authenticate(next http.Handler) http.Handler {
	want := []byte("Bearer " + w.config.Token)
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		uid, _ := r.Context().Value(peerKey{}).(int)
		got := []byte(r.Header.Get("Authorization"))
		if uid != 0 && uid != w.config.Caller || subtle.ConstantTimeCompare(got, want) != 1 {
			w.rules.Raise(ambit.Critical, "control-refused", "user "+strconv.Itoa(uid)+" tried to command this agent's worker without its token", 0)
			http.Error(rw, "only the control plane may ask", http.StatusForbidden)
			return
		}
		r.Body = http.MaxBytesReader(rw, r.Body, maxQuestion)
		next.ServeHTTP(rw, r)
	})
}

// answer turns a function into a handler: the question is JSON, or nothing for
// GET, and so is the answer.
func answer[In, Out any](f func(context.Context, In) (Out, error)) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		var in In
		if r.Method == http.MethodPost && r.ContentLength != 0 {
			if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
				http.Error(rw, "reading the question: "+err.Error(), http.StatusBadRequest)
				return
			}
		}
		out, err := f(r.Context(), in)
		if err != nil {
			status := http.StatusUnprocessableEntity
			var own statusError
			if errors.As(err, &own) {
				status = own.status
			}
			http.Error(rw, err.Error(), status)
			return
		}
		rw.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(rw).Encode(out)
	}
}

func (w *Worker) status() control.Status {
	s := control.Status{
		Agent: w.config.Agent, PID: os.Getpid(), Version: w.config.Version, Manifest: int(w.version.Load()),
		Started: w.started, Never: w.config.Never, Events: w.audit.Size(), CA: string(w.ca.CertificatePEM()),
	}
	if p := w.program.Load(); p != nil {
		s.Exit = p.exit
		if p.running {
			s.Program = "running"
		}
	}
	return s
}

// recordable are the kinds that the control plane may add to an agent's log.
var recordable = []ambit.Kind{
	ambit.KindAgentDeploy, ambit.KindAgentWipe, ambit.KindAgentStart, ambit.KindAgentStop, ambit.KindAgentExec, ambit.KindAgentExecEnd, ambit.KindAgentKey,
}

func (w *Worker) record(ctx context.Context, e ambit.Event) (uint64, error) {
	if !slices.Contains(recordable, e.Kind) {
		return 0, errors.New("the control plane may not write events of the kind " + string(e.Kind))
	}
	if e.Kind == ambit.KindAgentStart {
		w.program.Store(nil)
	}
	e.Agent, e.Touched = w.config.Agent, w.touched(&e)
	return w.events.Append(ctx, e)
}

// consistency proves that the log only grew. One that is shorter than what is
// asked for says so with its head: the control plane decides what that means.
func (w *Worker) consistency(ctx context.Context, q control.ConsistencyQuery) (audit.Consistency, error) {
	if q.To != nil {
		return w.audit.ProveBetween(ctx, q.Old, q.To)
	}
	c, err := w.audit.ProveConsistency(ctx, q.Old)
	if errors.Is(err, audit.ErrNoEvent) {
		return c, nil
	}
	return c, err
}

// touched finds whom what a person did is about: the arguments of a command, for
// instance.
func (w *Worker) touched(e *ambit.Event) []ambit.Subject {
	s := w.subjects.Load().Stream()
	_, _ = io.WriteString(s, e.Detail+"\n"+e.Intent)
	s.Close()
	return scan.Plain(s.Subjects())
}

func (w *Worker) showOutput(rw http.ResponseWriter, r *http.Request) {
	tail, err := strconv.Atoi(r.FormValue("tail"))
	if err != nil || tail < 0 {
		http.Error(rw, "tail is a number of bytes", http.StatusBadRequest)
		return
	}
	rw.Header().Set("Content-Type", "application/octet-stream")
	_ = w.output.copyTo(r.Context(), flusher{rw}, tail, r.FormValue("follow") != "")
}

// flusher writes through at once.
type flusher struct{ http.ResponseWriter }

// Flush implements http.Flusher.
func (f flusher) Flush() {
	if fl, ok := f.ResponseWriter.(http.Flusher); ok {
		fl.Flush()
	}
}

func (w *Worker) calls(rw http.ResponseWriter, r *http.Request) {
	var q audit.CallQuery
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
		http.Error(rw, "reading the question: "+err.Error(), http.StatusBadRequest)
		return
	}
	if r.FormValue("follow") == "" {
		list, err := w.audit.Calls(r.Context(), q)
		if err != nil {
			http.Error(rw, err.Error(), http.StatusUnprocessableEntity)
			return
		}
		_ = json.NewEncoder(rw).Encode(list)
		return
	}
	rw.Header().Set("Content-Type", "application/x-ndjson")
	enc := json.NewEncoder(rw)
	_ = w.follow(r.Context(), q, func(c audit.Call) error { // ends with the question or the log
		if err := enc.Encode(c); err != nil {
			return err
		}
		flusher{rw}.Flush()
		return nil
	})
}
