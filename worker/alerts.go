package worker

import (
	"context"
	"errors"
	"net/http"

	"ambit"
	"ambit/alert"
	"ambit/control"
	"ambit/manifest"
)

// watch puts the rules of alerts behind the log. The policy is there already.
func (w *Worker) watch(c *compiled) (err error) {
	w.rules, err = alert.NewRules(alert.RulesConfig{
		Book: w.alerts, Own: c.rules, Tunings: c.tunings,
		Named: func(host string) bool { return w.policy.Load().Names(host) },
	})
	if err != nil {
		return err
	}
	w.events = alert.Watch(w.audit, w.rules)
	return nil
}

// alertRules are the rules that a manifest has, and its changes to those of the
// catalogue.
func alertRules(m *manifest.Manifest) (own []alert.Rule, tunings []alert.Tuning) {
	for i := range m.Alerts {
		a := &m.Alerts[i]
		switch {
		case a.Builtin:
			tunings = append(tunings, alert.Tuning{Code: a.Name, Off: a.Off, Severity: a.Severity, Count: a.Count, Within: a.Within})
		case !a.Off:
			own = append(own, ownRule(a))
		}
	}
	return own, tunings
}

func ownRule(a *manifest.Alert) alert.Rule {
	r := alert.Rule{
		Name: a.Name, Severity: ambit.Medium, Kinds: a.Kinds, Count: a.Count, Within: a.Within, Per: alert.Field(a.Per), First: alert.Field(a.First),
		When: alert.Condition{
			Decision: a.Decision, Hosts: a.Hosts, Methods: a.Methods, Paths: a.Paths, Tools: a.Tools, Effects: a.Effects, Connections: a.Connections,
			Codes: a.Codes, Principals: a.Principals, StatusFrom: a.StatusFrom, StatusTo: a.StatusTo, IntentMissing: a.IntentMissing,
		},
	}
	if a.Severity != nil {
		r.Severity = *a.Severity
	}
	if a.Per == "agent" { // whose book this is
		r.Per = ""
	}
	return r
}

func (w *Worker) serveAlerts(mux *http.ServeMux) {
	type none = struct{}
	mux.HandleFunc("POST "+control.PathAlerts, answer(func(ctx context.Context, q alert.Query) ([]alert.Alert, error) { return w.alerts.List(ctx, q) }))
	mux.HandleFunc("POST "+control.PathNews, answer(func(ctx context.Context, q alert.NewsQuery) (alert.News, error) { return w.alerts.News(ctx, q) }))
	mux.HandleFunc("POST "+control.PathAck, answer(func(ctx context.Context, q control.OnAlert) (none, error) {
		return none{}, alertError(w.alerts.Ack(ctx, q.ID, by(q)))
	}))
	mux.HandleFunc("POST "+control.PathMute, answer(func(ctx context.Context, q control.OnAlert) (none, error) {
		return none{}, alertError(w.alerts.Mute(ctx, q.ID, by(q), q.For, q.Why))
	}))
	mux.HandleFunc("POST "+control.PathUnmute, answer(func(ctx context.Context, q control.OnAlert) (none, error) {
		return none{}, alertError(w.alerts.Unmute(ctx, q.ID, by(q)))
	}))
}

// by is who does something to an alert: the control plane says so.
func by(q control.OnAlert) ambit.Principal {
	if q.By == "" {
		return ambit.PrincipalAmbit
	}
	return q.By
}

func alertError(err error) error {
	if errors.Is(err, alert.ErrNotFound) {
		return statusError{http.StatusNotFound, err}
	}
	return err
}
