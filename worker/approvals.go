package worker

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"ambit"
	"ambit/alert"
	"ambit/approval"
	"ambit/control"
	"ambit/internal/secretbytes"
	"ambit/manifest"
	"ambit/scan"
)

// openApprovals opens the questions that wait for a person. Events about them are
// looked at by the rules of alerts, and are not held up by sinks: see delivery.
func (w *Worker) openApprovals(ctx context.Context, key secretbytes.Bytes) (err error) {
	w.approvals, err = approval.Open(ctx, approval.Config{
		DB: w.db, Agent: w.config.Agent, Key: key, Log: w.events, Alerts: w.rules, Keep: w.keepApprovals,
	})
	return err
}

// keepApprovals is how long a question that has ended is kept: as long as the log
// keeps what it says, and for ever under a legal hold.
func (w *Worker) keepApprovals(ctx context.Context) time.Duration {
	if hold, err := w.audit.Held(ctx); err != nil || hold != nil {
		return 0
	}
	if keep := time.Duration(w.retention.Load()); keep != time.Duration(manifest.Forever) {
		return keep
	}
	return 0
}

func (w *Worker) serveApprovals(mux *http.ServeMux) {
	mux.HandleFunc("POST "+control.PathApprovals, answer(func(ctx context.Context, q control.ApprovalsQuery) ([]approval.Question, error) {
		list, err := w.approvals.List(ctx, q.State, q.Limit)
		return list, approvalError(err)
	}))
	mux.HandleFunc("POST "+control.PathApproval, answer(func(ctx context.Context, id string) (approval.Question, error) {
		q, err := w.approvals.Get(ctx, id)
		return q, approvalError(err)
	}))
	mux.HandleFunc("POST "+control.PathApprovalAnswer, answer(func(ctx context.Context, a control.ApprovalAnswer) (approval.Question, error) {
		q, err := w.approvals.Answer(ctx, a.ID, a.Digest, a.Answer)
		if err == nil {
			w.saw(ctx, ambit.AlertApproval+" "+q.Tool, a.Answer.By)
			w.tools.answered.Add(1)
			w.runAgreed(w.life, q)
		}
		return q, approvalError(err)
	}))
	mux.HandleFunc("GET "+control.PathApprovalStats, answer(func(ctx context.Context, _ struct{}) ([]approval.Stats, error) {
		return w.approvals.Stats(ctx)
	}))
}

// saw marks an alert as seen by who dealt with what it is about, so that the next
// one is news.
func (w *Worker) saw(ctx context.Context, key string, by ambit.Principal) {
	all, err := w.alerts.List(ctx, alert.Query{})
	for _, a := range all {
		if err == nil && a.Key == key && !a.Acked {
			err = w.alerts.Ack(ctx, a.ID, by)
		}
	}
	if err != nil { // what was done counts all the same
		w.log.Warn("marking an alert as seen", slog.String("alert", key), slog.Any("error", err))
	}
}

func approvalError(err error) error {
	for _, is := range []struct {
		err    error
		status int
	}{
		{approval.ErrNotFound, http.StatusNotFound}, {approval.ErrAgent, http.StatusNotFound},
		{approval.ErrPrincipal, http.StatusForbidden}, {approval.ErrNotAsked, http.StatusForbidden},
		{approval.ErrDigest, http.StatusConflict}, {approval.ErrDecided, http.StatusConflict},
		{approval.ErrExpired, http.StatusConflict}, {approval.ErrAgain, http.StatusConflict},
	} {
		if errors.Is(err, is.err) {
			return statusError{is.status, err}
		}
	}
	return err
}

// eraseApprovals empties the questions that are about somebody.
func (w *Worker) eraseApprovals(ctx context.Context, whom []ambit.Subject) error {
	subjects := w.subjects.Load()
	_, err := w.approvals.Erase(ctx, func(text string) bool {
		s := subjects.Stream()
		_, _ = io.WriteString(s, text)
		s.Close()
		return slices.ContainsFunc(scan.Plain(s.Subjects()), func(found ambit.Subject) bool { return slices.Contains(whom, found) })
	})
	return err
}
