package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"ambit"
	"ambit/api"
)

// Streams connect a program to whoever runs it.
type Streams struct {
	Stdin          io.Reader // nil is none
	Stdout, Stderr io.Writer
	Resize         <-chan [2]uint16 // rows and columns of the terminal; may be nil
}

// Exec runs a program in an agent's computer and returns its exit code. The
// error is for what kept it from running or from being followed. The end of
// ctx ends the program. A read from Stdin may be left waiting after Exec
// returns: only closing it ends that.
func (c *Client) Exec(ctx context.Context, id ambit.AgentID, e api.Exec, s Streams) (int, error) {
	start, err := json.Marshal(e)
	if err != nil {
		return 0, fmt.Errorf("encoding what to run: %w", err)
	}
	if len(start) > api.MaxFrame {
		return 0, errors.New("the arguments are too long: put what is long into a file in /workspace, or into standard input")
	}
	conn, err := c.dial(ctx)
	if err != nil {
		return 0, c.failure(ctx, err)
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()

	var req strings.Builder
	fmt.Fprintf(&req, "POST %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: %s\r\nContent-Length: 0\r\n", agentPath(id, "/exec"), c.host, api.ExecProtocol)
	if c.token != "" {
		fmt.Fprintf(&req, "Authorization: Bearer %s\r\n", c.token)
	}
	if _, err := conn.Write([]byte(req.String() + "\r\n")); err != nil {
		return 0, c.failure(ctx, err)
	}
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		return 0, c.failure(ctx, err)
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		defer func() { _ = res.Body.Close() }()
		return 0, readProblem(res)
	}
	frames := api.NewFrameWriter(conn)
	if err := frames.Write(api.FrameStart, start); err != nil {
		return 0, c.failure(ctx, err)
	}
	done := make(chan struct{})
	defer close(done)
	go sendInput(frames, s.Stdin)
	go sendSizes(frames, s.Resize, done)
	code, err := receive(r, s)
	if err != nil && ctx.Err() != nil {
		return 0, ctx.Err()
	}
	return code, err
}

// sendInput ends when the input does, or at the first write after the
// connection was closed.
func sendInput(frames *api.FrameWriter, stdin io.Reader) {
	if stdin != nil {
		if _, err := io.Copy(frames.Stream(api.FrameStdin), stdin); err != nil {
			return
		}
	}
	_ = frames.Write(api.FrameStdinEOF, nil)
}

func sendSizes(frames *api.FrameWriter, sizes <-chan [2]uint16, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case s, ok := <-sizes:
			if !ok || frames.Write(api.FrameResize, api.ResizePayload(s[0], s[1])) != nil {
				return
			}
		}
	}
}

func receive(r io.Reader, s Streams) (int, error) {
	for {
		t, p, err := api.ReadFrame(r)
		if err != nil {
			return 0, fmt.Errorf("the connection to the program was lost: %w", err)
		}
		switch t {
		case api.FrameStdout:
			_, err = s.Stdout.Write(p)
		case api.FrameStderr:
			_, err = s.Stderr.Write(p)
		case api.FrameExit:
			return api.ParseExit(p)
		case api.FrameError:
			problem := &api.Problem{}
			if json.Unmarshal(p, problem) != nil {
				return 0, errors.New("the program did not run, and the reason could not be read")
			}
			return 0, problem
		default:
			err = fmt.Errorf("%w: type %d from ambit serve", api.ErrFrame, t)
		}
		if err != nil {
			return 0, err
		}
	}
}
