package httpstrict

import (
	"bufio"
	"errors"
	"io"
)

const (
	maxChunkLine = 256     // a chunk's size line with its extensions
	maxTrailer   = 8 << 10 // the trailer section, which is read and dropped
	maxFraming   = 16      // framing may be this many times the data ...
	freeFraming  = 64 << 10
)

// NewBody returns the body of a request whose head said length: -1 for
// chunked. It reads from br exactly what belongs to the body. Read returns
// io.EOF at its proper end, io.ErrUnexpectedEOF when the connection ended
// before that, and *Error when the framing is wrong; the connection is of no
// use after an error.
func NewBody(br *bufio.Reader, length int64) io.Reader {
	if length < 0 {
		return &chunked{br: br}
	}
	return &counted{br: br, left: length}
}

type counted struct {
	br   *bufio.Reader
	left int64
}

func (c *counted) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.br.Read(p)
	c.left -= int64(n)
	if err == io.EOF && c.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	if err == nil && c.left == 0 {
		err = io.EOF // saves the caller a call
	}
	return n, err
}

// chunked reads the chunked coding (RFC 9112 section 7.1). Extensions are
// bounded and dropped, trailers are checked and dropped.
type chunked struct {
	br      *bufio.Reader
	left    int64 // of the current chunk
	inside  bool  // a chunk was begun: its CRLF is still to come
	data    int64
	framing int64 // bytes that were not data
	err     error // sticky
}

func (c *chunked) Read(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if c.left == 0 {
		if c.err = c.next(); c.err != nil {
			return 0, c.err
		}
	}
	if int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.br.Read(p)
	c.left -= int64(n)
	c.data += int64(n)
	c.err = unexpected(err)
	return n, c.err
}

// next finishes the chunk before and begins the next; io.EOF after the last.
func (c *chunked) next() error {
	if c.inside {
		var end [2]byte
		if _, err := io.ReadFull(c.br, end[:]); err != nil {
			return unexpected(err)
		}
		if end != [2]byte{'\r', '\n'} {
			return bad("a chunk is not followed by CRLF")
		}
		c.inside = false
	}
	line, err := c.line(maxChunkLine)
	if err != nil {
		return err
	}
	size, err := chunkSize(line)
	if err != nil {
		return err
	}
	if size == 0 {
		return c.trailer()
	}
	c.left, c.inside = size, true
	if c.framing > freeFraming+maxFraming*c.data {
		return bad("the chunks are mostly framing")
	}
	return nil
}

// line reads one line without its CRLF; it is valid until the next read.
func (c *chunked) line(limit int) ([]byte, error) {
	line, err := c.br.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) || len(line) > limit {
		return nil, bad("a chunk's size line is too long")
	}
	if err != nil {
		return nil, unexpected(err)
	}
	c.framing += int64(len(line)) + 2
	if len(line) < 2 || line[len(line)-2] != '\r' {
		return nil, bad("a chunk's size line ends in a bare LF")
	}
	line = line[:len(line)-2]
	for _, b := range line {
		if b < ' ' && b != '\t' || b == 0x7f {
			return nil, bad("a chunk's size line has a control character")
		}
	}
	return line, nil
}

// chunkSize reads 1 to 15 hexadecimal digits, alone or followed at once by
// ";" and an extension.
func chunkSize(line []byte) (int64, error) {
	var n int64
	for i, b := range line {
		var d byte
		switch {
		case '0' <= b && b <= '9':
			d = b - '0'
		case 'a' <= b && b <= 'f':
			d = b - 'a' + 10
		case 'A' <= b && b <= 'F':
			d = b - 'A' + 10
		case b == ';' && i > 0:
			return n, nil
		default:
			return 0, bad("a chunk's size is not a hexadecimal number")
		}
		if i >= 15 {
			return 0, bad("a chunk's size is too large")
		}
		n = n<<4 | int64(d)
	}
	if len(line) == 0 {
		return 0, bad("a chunk has no size")
	}
	return n, nil
}

func (c *chunked) trailer() error {
	raw, _, err := readLines(c.br, nil, Limits{Head: maxTrailer, Fields: 64})
	if err != nil {
		return unexpected(err)
	}
	for start := 0; ; {
		end := start
		for raw[end] != '\n' {
			end++
		}
		if end == start {
			return io.EOF
		}
		if _, _, err := field(string(raw[start:end])); err != nil {
			return err
		}
		start = end + 1
	}
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
