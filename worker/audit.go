package worker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"ambit"
	"ambit/audit"
	"ambit/audit/sink/format"
	"ambit/control"
	"ambit/internal/inert"
	"ambit/manifest"
)

func (w *Worker) serveAudit(mux *http.ServeMux) {
	mux.HandleFunc("GET "+control.PathHead, answer(func(ctx context.Context, _ struct{}) (audit.Head, error) { return w.audit.Head(ctx) }))
	mux.HandleFunc("POST "+control.PathVerify, answer(func(ctx context.Context, heads [][]byte) (audit.Report, error) { return w.audit.Verify(ctx, heads...) }))
	mux.HandleFunc("POST "+control.PathSearch, answer(w.audit.Find))
	mux.HandleFunc("POST "+control.PathTrace, answer(func(ctx context.Context, q control.Trace) (audit.Trail, error) {
		return w.audit.Trace(ctx, q.Subjects, q.Query)
	}))
	mux.HandleFunc("POST "+control.PathProve, answer(w.audit.ProveInclusion))
	mux.HandleFunc("POST "+control.PathErase, answer(w.erase))
	mux.HandleFunc("POST "+control.PathHold, answer(func(ctx context.Context, q control.Hold) (struct{}, error) {
		return struct{}{}, w.audit.Hold(ctx, q.On, q.By, q.Why)
	}))
	mux.HandleFunc("GET "+control.PathHold, answer(func(ctx context.Context, _ struct{}) (*audit.Hold, error) { return w.audit.Held(ctx) }))
	mux.HandleFunc("POST "+control.PathEvents, answer(w.eventsFor))
	mux.HandleFunc("POST "+control.PathDelivered, answer(w.noteDelivered))
	mux.HandleFunc("POST "+control.PathExport, w.export)
}

// eventsFor answers a sink.
func (w *Worker) eventsFor(ctx context.Context, q control.Events) (control.EventsAnswer, error) {
	if q.Wait && w.audit.Size() <= q.From {
		wait, cancel := context.WithTimeout(ctx, control.EventsPatience)
		err := w.audit.Wait(wait, max(q.From, 1)-1)
		cancel()
		if err != nil && wait.Err() == nil {
			return control.EventsAnswer{}, err
		}
	}
	a := control.EventsAnswer{Events: []ambit.Event{}, Next: q.From, End: w.audit.Size()}
	if q.Limit <= 0 || q.From >= a.End {
		return a, nil
	}
	var err error
	a.Events, a.Next, err = w.audit.Events(ctx, q.From, q.Limit)
	return a, err
}

// erase erases everything that touches the subjects, or everything at all.
func (w *Worker) erase(ctx context.Context, q control.Erase) ([]audit.Receipt, error) {
	if q.All {
		r, err := w.audit.Erase(ctx, q.By, "wipe", [][2]uint64{{0, w.audit.Size()}}, nil)
		return []audit.Receipt{r}, err
	}
	receipts := []audit.Receipt{}
	for _, s := range q.Subjects {
		r, err := w.audit.EraseSubject(ctx, q.By, s)
		if err != nil {
			return receipts, err
		}
		receipts = append(receipts, r)
	}
	return receipts, w.eraseApprovals(ctx, q.Subjects)
}

// export writes a bundle as it is made. One that breaks off has no end.
func (w *Worker) export(rw http.ResponseWriter, r *http.Request) {
	var q control.Export
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
		http.Error(rw, "reading the question: "+err.Error(), http.StatusBadRequest)
		return
	}
	o := audit.ExportOptions{Checkpoint: q.Note}
	var err error
	if o.Select, err = w.audit.Matcher(q.Query); err == nil {
		o.Extra, err = w.extras(r.Context(), q.Formats)
	}
	if err != nil {
		http.Error(rw, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	rw.Header().Set("Content-Type", "application/x-tar")
	out := bufio.NewWriterSize(rw, 64<<10)
	if err := w.audit.Export(r.Context(), out, o); err != nil {
		w.log.Warn("an export broke off", slog.Any("error", err))
		if c, _, err := http.NewResponseController(rw).Hijack(); err == nil {
			_ = c.Close() // the reader must not take the part for the whole
		}
		return
	}
	_ = out.Flush()
}

// extras are the further files of a bundle.
func (w *Worker) extras(ctx context.Context, formats []string) ([]audit.Extra, error) {
	head, err := w.audit.Head(ctx)
	if err != nil {
		return nil, err
	}
	var out []audit.Extra
	for _, f := range slices.Compact(slices.Sorted(slices.Values(formats))) {
		switch f {
		case "csv":
			out = append(out, audit.Extra{Name: "events.csv", Write: func(to io.Writer, events iter.Seq[ambit.Event]) error {
				return writeAll(to, events, format.AppendCSVHeader(nil), func(b []byte, e *ambit.Event) ([]byte, error) {
					return format.AppendCSV(b, head.Origin, e), nil
				})
			}})
		case "ocsf":
			out = append(out, audit.Extra{Name: "events.ocsf.jsonl", Write: func(to io.Writer, events iter.Seq[ambit.Event]) error {
				return writeAll(to, events, nil, func(b []byte, e *ambit.Event) ([]byte, error) {
					return format.OCSF{Version: w.config.Version}.Append(b, head.Origin, e)
				})
			}})
		default:
			return nil, fmt.Errorf("there is no format %q: csv and ocsf are known, and every bundle has events.jsonl", f)
		}
	}
	return out, nil
}

func writeAll(to io.Writer, events iter.Seq[ambit.Event], head []byte, form func([]byte, *ambit.Event) ([]byte, error)) error {
	b := head
	for e := range events {
		var err error
		if b, err = form(b, &e); err != nil {
			return err
		}
		if len(b) >= 32<<10 {
			if _, err := to.Write(b); err != nil {
				return err
			}
			b = b[:0]
		}
	}
	_, err := to.Write(b)
	return err
}

func (w *Worker) retainFailed(err error) {
	w.log.Warn("erasing what is too old", slog.Any("error", err))
	if !errors.Is(err, audit.ErrHeld) {
		w.alerts.Raise(ambit.High, "retention-failed", "what is too old could not be erased from the log: "+inert.Text(err.Error()), 0)
	}
}

// retainEvery is how often what is too old is erased. It is kept for days, and
// overwriting what is left of it in the file reads all of that.
const retainEvery = 12 * time.Hour

// retain erases what is older than the manifest says, and what an erasure that
// was cut short left, until ctx ends.
func (w *Worker) retain(ctx context.Context) {
	tick := time.NewTicker(retainEvery)
	defer tick.Stop()
	for {
		if _, err := w.audit.Finish(ctx); err != nil && ctx.Err() == nil {
			w.retainFailed(err)
		}
		if keep := time.Duration(w.retention.Load()); keep != time.Duration(manifest.Forever) {
			if r, err := w.audit.Retain(ctx, keep); err != nil && ctx.Err() == nil {
				w.retainFailed(err)
			} else if r.Bodies > 0 {
				w.log.Info("erased by retention", slog.Any("bodies", r.Bodies))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
