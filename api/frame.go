package api

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// ExecProtocol is what an exec connection is upgraded to (RFC 9110 section
// 7.8). After the 101 answer both sides send frames.
const ExecProtocol = "ambit-exec"

// MaxFrame bounds a frame's payload, in bytes.
const MaxFrame = 64 << 10

// FrameType says what a frame is for.
type FrameType uint8

// The frames of an exec stream. The first frame from the client is FrameStart.
const (
	FrameStdin    FrameType = 0 // to the program's standard input
	FrameStdout   FrameType = 1 // from its standard output, or its terminal
	FrameStderr   FrameType = 2 // from its standard error
	FrameResize   FrameType = 3 // rows and columns, two big-endian uint16
	FrameExit     FrameType = 4 // the exit code, a big-endian int32; the last frame
	FrameStdinEOF FrameType = 5 // no more standard input; empty
	FrameError    FrameType = 6 // a Problem, JSON: the program did not run or was lost; the last frame
	FrameStart    FrameType = 7 // an Exec, JSON
)

const maxFrameType = FrameStart

// ErrFrame is what ReadFrame returns for bytes that are no frame.
var ErrFrame = errors.New("malformed frame")

// FrameWriter writes frames. It is safe for concurrent use.
type FrameWriter struct {
	mu sync.Mutex
	w  io.Writer
}

// NewFrameWriter returns a FrameWriter to w.
func NewFrameWriter(w io.Writer) *FrameWriter { return &FrameWriter{w: w} }

// Write sends p as one frame, or as several if it is longer than MaxFrame.
func (f *FrameWriter) Write(t FrameType, p []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for first := true; first || len(p) > 0; first = false {
		n := min(len(p), MaxFrame)
		b := make([]byte, 5, 5+n)
		b[0] = byte(t)
		binary.BigEndian.PutUint32(b[1:], uint32(n))
		if _, err := f.w.Write(append(b, p[:n]...)); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// Stream is an io.Writer whose bytes become frames of one type.
func (f *FrameWriter) Stream(t FrameType) io.Writer { return frameStream{f, t} }

type frameStream struct {
	f *FrameWriter
	t FrameType
}

func (s frameStream) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := s.f.Write(s.t, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// ReadFrame reads one frame. It returns io.EOF only between frames, and
// ErrFrame for an unknown type or a length over MaxFrame.
func ReadFrame(r io.Reader) (FrameType, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	t, n := FrameType(head[0]), binary.BigEndian.Uint32(head[1:])
	if t > maxFrameType {
		return 0, nil, fmt.Errorf("%w: type %d", ErrFrame, t)
	}
	if n > MaxFrame {
		return 0, nil, fmt.Errorf("%w: %d bytes, more than %d", ErrFrame, n, MaxFrame)
	}
	p := make([]byte, n)
	if _, err := io.ReadFull(r, p); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return t, p, nil
}

// ResizePayload is the payload of a FrameResize.
func ResizePayload(rows, cols uint16) []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, rows), cols)
}

// ParseResize reads the payload of a FrameResize.
func ParseResize(p []byte) (rows, cols uint16, err error) {
	if len(p) != 4 {
		return 0, 0, fmt.Errorf("%w: a resize of %d bytes", ErrFrame, len(p))
	}
	return binary.BigEndian.Uint16(p), binary.BigEndian.Uint16(p[2:]), nil
}

// ExitPayload is the payload of a FrameExit.
func ExitPayload(code int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(int32(code))) }

// ParseExit reads the payload of a FrameExit.
func ParseExit(p []byte) (int, error) {
	if len(p) != 4 {
		return 0, fmt.Errorf("%w: an exit of %d bytes", ErrFrame, len(p))
	}
	return int(int32(binary.BigEndian.Uint32(p))), nil
}
