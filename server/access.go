package server

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"ambit"
	"ambit/api"
)

const (
	// loginEvery is how long a caller is known after one access.login: it is the
	// callers that are logged, not their requests.
	loginEvery = time.Hour
	// maxRefused is how many different refused callers are told apart within
	// that time; the rest share one event.
	maxRefused = 256
	// loginPatience is how long a refusal waits for the log. It stays a refusal.
	loginPatience = 5 * time.Second

	doorSocket = "socket"
	doorPort   = "port"

	// principalUnknown is a caller that did not show who it is.
	principalUnknown ambit.Principal = "unknown"
)

// logins says in the log of the control plane who was let in and who was not.
type logins struct {
	log   *ControlLog
	slog  *slog.Logger
	clock func() time.Time

	admitting sync.Mutex // held while an admission is written
	admitted  map[string]time.Time

	mu      sync.Mutex // held for moments
	refused map[string]refusedAt
}

func newLogins(l *ControlLog, log *slog.Logger) *logins {
	return &logins{log: l, slog: log, clock: time.Now, admitted: map[string]time.Time{}, refused: map[string]refusedAt{}}
}

// admit writes who is let in, durably, if nobody wrote it within the hour. A
// caller that cannot be written is not let in.
func (l *logins) admit(ctx context.Context, door string, who ambit.Principal) error {
	l.admitting.Lock()
	defer l.admitting.Unlock()
	key := door + " " + string(who)
	now := l.clock()
	if at, ok := l.admitted[key]; ok && now.Sub(at) < loginEvery && !now.Before(at) {
		return nil
	}
	_, err := l.log.log.Append(ctx, ambit.Event{Kind: ambit.KindLogin, Principal: who, Decision: ambit.Allow, Detail: door})
	if err == nil {
		l.admitted[key] = now // there are as many as there are users and doors: three
	}
	return err
}

// refuse writes who was not let in, once within the hour, and lets the rules of
// alerts count every time.
func (l *logins) refuse(ctx context.Context, door string, who ambit.Principal, code, text string) {
	e := ambit.Event{Kind: ambit.KindLogin, Principal: who, Decision: ambit.Deny, Reason: &ambit.Reason{Code: code, Text: text}, Detail: door}
	seq, news := l.noted(door + " " + code + " " + string(who))
	if news {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loginPatience)
		defer cancel()
		var err error
		if seq, err = l.log.log.Append(ctx, e); err != nil {
			l.slog.Error("noting a refused caller", slog.Any("principal", who), slog.String("door", door), slog.Any("error", err))
		}
		l.written(door+" "+code+" "+string(who), seq)
	}
	l.log.rules.See(seq, &e)
}

// refusedAt is when a refused caller was last written, and where.
type refusedAt struct {
	time time.Time
	seq  uint64
}

// noted notes a refused caller, and returns where the log has it, or that it is
// to be written. Callers beyond maxRefused are one.
func (l *logins) noted(key string) (seq uint64, news bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clock()
	if len(l.refused) >= maxRefused {
		for k, at := range l.refused {
			if now.Sub(at.time) >= loginEvery {
				delete(l.refused, k)
			}
		}
	}
	if _, known := l.refused[key]; !known && len(l.refused) >= maxRefused {
		key = "(others)"
	}
	if at, ok := l.refused[key]; ok && now.Sub(at.time) < loginEvery && !now.Before(at.time) {
		return at.seq, false
	}
	l.refused[key] = refusedAt{time: now}
	return 0, true
}

// written notes where the log has a refused caller.
func (l *logins) written(key string, seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at, ok := l.refused[key]; ok {
		at.seq = seq
		l.refused[key] = at
	}
}

// enter lets a request through to next as who, or answers it.
func (l *logins) enter(w http.ResponseWriter, r *http.Request, next http.Handler, door string, who ambit.Principal) {
	if err := l.admit(r.Context(), door, who); err != nil && !takesAway(r) {
		p := problemOf(err)
		p.Detail = "nothing was done, because it could not be written to the log of the control plane who asks for it: " + err.Error()
		writeProblem(w, p)
		return
	}
	next.ServeHTTP(w, r.WithContext(withPrincipal(r.Context(), who)))
}

// takesAway says whether a request is to stop or wipe an agent, which happens
// also when nothing can be written.
func takesAway(r *http.Request) bool {
	rest, ok := strings.CutPrefix(r.URL.Path, "/v1/agents/")
	name, action, _ := strings.Cut(rest, "/")
	return ok && name != "" && (r.Method == http.MethodDelete && action == "" || r.Method == http.MethodPost && action == "stop")
}

// turnAway answers a caller that may not come in.
func (l *logins) turnAway(w http.ResponseWriter, r *http.Request, door string, who ambit.Principal, code string, p *api.Problem) {
	l.refuse(r.Context(), door, who, code, p.Detail)
	writeProblem(w, p)
}
