package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"ambit"
	"ambit/api"
	"ambit/internal/inert"
)

const (
	// heartbeat is how often an empty frame finds out whether the caller is
	// still there, when its input is not read because the program does not.
	heartbeat = 15 * time.Second
	// maxArgs bounds the arguments and the environment of a program, in bytes.
	maxArgs = 48 << 10
	// endPatience is how long the log has for how a program ended.
	endPatience = 10 * time.Second
)

// exec upgrades the connection and runs a program in the computer.
func (s *Server) exec(ctx context.Context, in *AgentPath) (*huma.StreamResponse, error) {
	if _, err := s.cfg.Store.Get(ctx, in.Agent); err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		r, w := humago.Unwrap(hc)
		if !strings.EqualFold(r.Header.Get("Upgrade"), api.ExecProtocol) {
			w.Header().Set("Upgrade", api.ExecProtocol)
			w.Header().Set("Connection", "Upgrade")
			writeProblem(w, problem(http.StatusUpgradeRequired, "exec needs a connection upgraded to "+api.ExecProtocol+": use `ambit exec`"))
			return
		}
		s.streams.Add(1)
		defer s.streams.Done()
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			writeProblem(w, problem(http.StatusInternalServerError, "the connection cannot be upgraded: "+err.Error()))
			return
		}
		defer func() { _ = conn.Close() }()
		if err := s.execOn(hc.Context(), in.Agent, conn, buf.Reader); err != nil {
			s.log.Warn("an exec ended early", slog.Any("agent", in.Agent), slog.Any("error", err))
		}
	}}, nil
}

// execOn speaks the frames. What goes wrong after the upgrade is told in a
// frame; the error is for what could not even be told.
func (s *Server) execOn(ctx context.Context, id ambit.AgentID, conn net.Conn, r *bufio.Reader) error {
	head := "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + api.ExecProtocol + "\r\n\r\n"
	if err := conn.SetDeadline(time.Now().Add(readTimeout)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, head); err != nil {
		return err
	}
	frames := api.NewFrameWriter(conn)
	spec, err := readSpec(r)
	if err != nil {
		return writeFailure(frames, problem(http.StatusUnprocessableEntity, err.Error()))
	}
	spec.By = principal(ctx)
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	exit, err := s.runLogged(ctx, id, spec, frames, r)
	if err != nil {
		return writeFailure(frames, problemOf(err))
	}
	return frames.Write(api.FrameExit, api.ExitPayload(exit))
}

func writeFailure(frames *api.FrameWriter, p *api.Problem) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return frames.Write(api.FrameError, b[:min(len(b), api.MaxFrame)])
}

// runLogged writes to the log what is run, runs it, and writes how it ended.
func (s *Server) runLogged(ctx context.Context, id ambit.AgentID, spec ExecSpec, frames *api.FrameWriter, r io.Reader) (int, error) {
	seq, err := s.record(ctx, ambit.Event{Kind: ambit.KindAgentExec, Agent: id, Intent: spec.Intent, Detail: inert.Quote(spec.Argv)})
	if err != nil {
		return 0, err
	}
	began := time.Now()
	exit, err := s.run(ctx, id, spec, frames, r)
	end := ambit.Event{Kind: ambit.KindAgentExecEnd, Agent: id, Of: &seq, Status: exit, Duration: time.Since(began)}
	if err != nil {
		end.Detail = inert.Text(err.Error())
	}
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), endPatience)
	defer cancel()
	if _, err := s.record(late, end); err != nil {
		s.log.Warn("how a program ended could not be logged", slog.Any("agent", id), slog.Any("event", seq), slog.Any("error", err))
	}
	return exit, err
}

// run connects the frames to the program. It returns when the program has
// ended and nothing reads or writes frames on its behalf but the reader, which
// ends when the connection is closed.
func (s *Server) run(ctx context.Context, id ambit.AgentID, spec ExecSpec, frames *api.FrameWriter, r io.Reader) (int, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stdin, toStdin := io.Pipe()
	resize := make(chan Size, 1)
	s.streams.Go(func() {
		err := pump(r, toStdin, resize)
		close(resize)
		cancel(err) // the caller is gone, or talks nonsense: the program ends
	})
	s.streams.Go(func() {
		beat := time.NewTicker(heartbeat)
		defer beat.Stop()
		for {
			select {
			case <-ctx.Done():
				_ = stdin.Close() // unblocks pump
				return
			case <-beat.C:
				if err := frames.Write(api.FrameStdout, nil); err != nil {
					cancel(errGone)
				}
			}
		}
	})
	exit, err := s.cfg.Runner.Exec(ctx, id, spec, ExecIO{
		Stdin:  stdin,
		Stdout: frames.Stream(api.FrameStdout), Stderr: frames.Stream(api.FrameStderr),
		Resize: resize,
	})
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	return exit, err
}

var errGone = errors.New("the caller went away")

// pump moves frames from the caller to the program until the caller goes away
// or breaks the rules. A size that is not taken is replaced by the next one.
func pump(r io.Reader, stdin *io.PipeWriter, resize chan Size) error {
	for {
		t, p, err := api.ReadFrame(r)
		if err != nil {
			_ = stdin.CloseWithError(errGone)
			if errors.Is(err, api.ErrFrame) {
				return err
			}
			return errGone
		}
		switch t {
		case api.FrameStdin:
			_, _ = stdin.Write(p) // a program that closed its input does not want it
		case api.FrameStdinEOF:
			_ = stdin.Close()
		case api.FrameResize:
			rows, cols, err := api.ParseResize(p)
			if err != nil {
				return err
			}
			select {
			case <-resize:
			default:
			}
			resize <- Size{rows, cols} // there is room: nobody else sends
		default:
			return fmt.Errorf("%w: type %d from a caller", api.ErrFrame, t)
		}
	}
}

// readSpec reads the first frame.
func readSpec(r io.Reader) (ExecSpec, error) {
	t, p, err := api.ReadFrame(r)
	if err != nil {
		return ExecSpec{}, fmt.Errorf("reading what to run: %w", err)
	}
	if t != api.FrameStart {
		return ExecSpec{}, fmt.Errorf("the first frame has type %d, and must have type %d: what to run", t, api.FrameStart)
	}
	dec := json.NewDecoder(bytes.NewReader(p))
	dec.DisallowUnknownFields()
	var e api.Exec
	if err := dec.Decode(&e); err != nil {
		return ExecSpec{}, fmt.Errorf("reading what to run: %w", err)
	}
	if err := checkExec(&e); err != nil {
		return ExecSpec{}, err
	}
	return ExecSpec{Argv: e.Argv, Env: e.Env, Dir: e.Dir, TTY: e.TTY, Rows: e.Rows, Cols: e.Cols, Intent: e.Intent}, nil
}

func checkExec(e *api.Exec) error {
	if len(e.Argv) == 0 || e.Argv[0] == "" {
		return errors.New("there is no program to run: write it after --, as in: ambit exec AGENT -- ls -l")
	}
	size := 0
	for _, a := range append(append([]string{e.Dir, e.Intent}, e.Argv...), e.Env...) {
		size += len(a) + 1
		if strings.ContainsRune(a, 0) {
			return errors.New("an argument has a zero byte in it, which no program can be given")
		}
	}
	if size > maxArgs {
		return fmt.Errorf("the arguments have %d bytes and may have %d: put what is long into a file in /workspace, or into standard input", size, maxArgs)
	}
	for _, v := range e.Env {
		if name, _, ok := strings.Cut(v, "="); !ok || name == "" {
			return fmt.Errorf("the environment entry %s is not NAME=value", inert.Quote([]string{v}))
		}
	}
	if e.Dir != "" && !strings.HasPrefix(e.Dir, "/") {
		return fmt.Errorf("the folder %s is not an absolute path", inert.Quote([]string{e.Dir}))
	}
	if len(e.Intent) > ambit.MaxIntent {
		return fmt.Errorf("the intent has %d bytes and may have %d: say it shorter", len(e.Intent), ambit.MaxIntent)
	}
	return nil
}
