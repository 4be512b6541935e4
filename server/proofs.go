package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"

	"ambit"
	"ambit/alert"
	"ambit/api"
	"ambit/audit"
)

func (s *Server) auditHead(ctx context.Context, in *AgentPath) (*body[api.Head], error) {
	w, err := s.worker(ctx, in.Agent)
	if err != nil {
		return nil, err
	}
	return s.headOf(ctx, in.Agent, w)
}

func (s *Server) controlHead(ctx context.Context, _ *struct{}) (*body[api.Head], error) {
	return s.headOf(ctx, "", s.cfg.ControlLog)
}

// headOf is a head that was proved now to continue the one before.
func (s *Server) headOf(ctx context.Context, id ambit.AgentID, p prover) (*body[api.Head], error) {
	h, err := s.witness.look(ctx, id, p, 0)
	if err != nil {
		return nil, err
	}
	key, err := s.witness.verifierKey(ctx, id)
	if err != nil {
		return nil, err
	}
	return &body[api.Head]{api.Head{Head: h, Key: key, Witness: s.cfg.ControlLog.cosigner.VerifierKey()}}, nil
}

type verifyInput struct {
	AgentPath
	Body api.Verify
}

// auditVerify lets the worker prove its log against the heads that the caller
// brought and the one that the control plane kept, and lets the witness look.
func (s *Server) auditVerify(ctx context.Context, in *verifyInput) (*body[api.Verified], error) {
	w, err := s.worker(ctx, in.Agent)
	if err != nil {
		return nil, err
	}
	return s.verify(ctx, in.Agent, w, in.Body.Heads, w.Verify)
}

type controlVerifyInput struct{ Body api.Verify }

func (s *Server) controlVerify(ctx context.Context, in *controlVerifyInput) (*body[api.Verified], error) {
	verify := func(ctx context.Context, heads [][]byte) (audit.Report, error) {
		return s.cfg.ControlLog.log.Verify(ctx, heads...)
	}
	return s.verify(ctx, "", s.cfg.ControlLog, in.Body.Heads, verify)
}

// verify answers once the result is in the log of the control plane.
func (s *Server) verify(ctx context.Context, id ambit.AgentID, p prover, heads [][]byte, verify func(context.Context, [][]byte) (audit.Report, error)) (*body[api.Verified], error) {
	kept, err := s.witness.kept(ctx, id)
	if err != nil {
		return nil, err
	}
	if kept != nil {
		heads = append(slices.Clone(heads), kept)
	}
	report, err := verify(ctx, heads)
	if err != nil {
		return nil, err
	}
	out := api.Verified{Report: report, OK: report.OK}
	if _, err := s.witness.look(ctx, id, p, 0); err != nil {
		out.OK, out.Witness = false, err.Error()
	}
	e := ambit.Event{Kind: ambit.KindAuditVerify, Agent: id, Decision: ambit.Allow, Detail: fmt.Sprintf("%d events, root %s, heads that agree: %d", report.Events, report.Root, report.Heads)}
	if !out.OK {
		e.Decision = ambit.Deny
		e.Detail = fmt.Sprintf("%d events, problems: %d, the witness: %s", report.Events, len(report.Problems)+report.More, out.Witness)
	}
	if err := s.note(ctx, e); err != nil {
		return nil, err
	}
	s.log.Info("verified a log", slog.Any("agent", id), slog.Any("ok", out.OK), slog.Any("events", report.Events), slog.Any("witness", out.Witness), slog.Any("by", principal(ctx)))
	return &body[api.Verified]{out}, nil
}

type controlAckInput struct {
	ID int64 `path:"id" doc:"the alert's"`
}

// ackControl marks an alert of the control plane's as seen. For one about a
// refused log that means more: the witness looks at the log again. So that is
// written first, and done last.
func (s *Server) ackControl(ctx context.Context, in *controlAckInput) (*struct{}, error) {
	book := s.cfg.ControlLog.alerts
	all, err := book.List(ctx, alert.Query{})
	if err != nil {
		return nil, err
	}
	keys, found := make([]string, 0, len(all)), ""
	for _, a := range all {
		keys = append(keys, a.Key)
		if a.ID == in.ID {
			found = a.Key
		}
	}
	if err := s.acknowledge(ctx, found, keys); err != nil {
		return nil, err
	}
	if err := book.Ack(ctx, in.ID, principal(ctx)); errors.Is(err, alert.ErrNotFound) {
		return nil, problem(http.StatusNotFound, err.Error())
	} else if err != nil {
		return nil, err
	}
	return nil, nil
}
