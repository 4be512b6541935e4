package kek

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"ambit/internal/secretbytes"
)

// kmsTimeout bounds one question to a KMS, its own retries included.
const kmsTimeout = 30 * time.Second

// maxKMSAnswer bounds what the program answers, in bytes.
const maxKMSAnswer = 64 << 10

// Program is a Keeper that runs ambit-kms for each question: the drivers for
// the services are large and initialise themselves at each start, and what they
// read from the network is then not read in the control plane's memory.
//
// It is asked on its standard input, one line and then the bytes to wrap or to
// unwrap until the end: "wrap URL" or "unwrap URL". It answers "ok" in a line
// and then the bytes, or "error" in a line and then what is wrong, for people.
// It gets the environment of this process, which is where the services' own
// settings and credentials are.
type Program struct {
	Path string // of the program; "" is the one that this binary carries
}

// Wrap implements Keeper.
func (p Program) Wrap(ctx context.Context, url string, key secretbytes.Bytes) ([]byte, error) {
	return p.ask(ctx, "wrap", url, key.Reveal())
}

// Unwrap implements Keeper.
func (p Program) Unwrap(ctx context.Context, url string, wrapped []byte) (secretbytes.Bytes, error) {
	key, err := p.ask(ctx, "unwrap", url, wrapped)
	return secretbytes.New(key), err
}

func (p Program) ask(ctx context.Context, what, url string, in []byte) (_ []byte, err error) {
	defer func() {
		if err != nil {
			err = &KMSError{url, err}
		}
	}()
	if err := CheckURL(url); err != nil { // it would become part of a line
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, kmsTimeout)
	defer cancel()
	cmd, release, err := p.command(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	var said tail
	out := &bounded{left: maxKMSAnswer}
	defer func() { clear(out.b) }()
	cmd.Stdin = io.MultiReader(strings.NewReader(what+" "+url+"\n"), bytes.NewReader(in))
	cmd.Stdout, cmd.Stderr = out, &said
	err = cmd.Run()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("it did not answer in time: %w", context.Cause(ctx))
	}
	verdict, rest, _ := bytes.Cut(out.b, []byte("\n"))
	switch {
	case string(verdict) == "ok" && err == nil:
		return bytes.Clone(rest), nil
	case string(verdict) == "error":
		return nil, errors.New(strings.Join(strings.Fields(string(rest)), " "))
	case err != nil:
		return nil, fmt.Errorf("running ambit-kms: %w: %s", err, strings.Join(strings.Fields(string(said)), " "))
	}
	return nil, errors.New("ambit-kms did not answer in its own language")
}

func (p Program) command(ctx context.Context) (*exec.Cmd, func(), error) {
	if p.Path != "" {
		return exec.CommandContext(ctx, p.Path), func() {}, nil
	}
	return embedded(ctx)
}

// bounded keeps so many bytes, and fails on more.
type bounded struct {
	b    []byte
	left int
}

// Write implements io.Writer.
func (w *bounded) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		return 0, errors.New("the answer is too long")
	}
	w.b = append(w.b, p...)
	return len(p), nil
}

// tail keeps the last bytes.
type tail []byte

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	*t = append(*t, p...)
	if over := len(*t) - 2048; over > 0 {
		*t = (*t)[over:]
	}
	return len(p), nil
}
