package sign

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strconv"
	"strings"
)

// hashed passes a body on and fails before its end if it has another SHA-256
// than was signed.
type hashed struct {
	body io.ReadCloser
	hash hash.Hash
	want string
	left int64 // of the Content-Length; negative if unknown
	err  error // sticky
}

func newHashed(body io.ReadCloser, want string, length int64) *hashed {
	return &hashed{body: body, hash: sha256.New(), want: want, left: length}
}

// Read hands out the bytes that complete the Content-Length only after the
// hash was checked: the upstream takes a body that it has all of.
func (h *hashed) Read(p []byte) (int, error) {
	if h.err != nil {
		return 0, h.err
	}
	n, err := h.body.Read(p)
	h.hash.Write(p[:n])
	h.left -= int64(n)
	last := err == io.EOF || h.left == 0 && n > 0
	if last && hex.EncodeToString(h.hash.Sum(nil)) != h.want {
		h.err = fmt.Errorf("%w: the body has another hash", ErrMismatch)
		return 0, h.err
	}
	h.err = err
	return n, err
}

// Close implements io.Closer.
func (h *hashed) Close() error { return h.body.Close() }

// Bounds of a body in signed chunks. S3 wants at least 8 KiB in a chunk, and
// programs send 64 KiB to 1 MiB.
const (
	maxChunk    = MaxBody
	maxLine     = 4 << 10
	maxTrailers = 16
)

// rolling is a chain of signatures: each covers the one before.
type rolling struct {
	signer
	previous string
}

func (r *rolling) chunk(sum string) string {
	r.previous = r.sign(signedChunks, r.previous, emptyHash, sum)
	return r.previous
}

func (r *rolling) trailer(sum string) string {
	r.previous = r.sign(algorithm+"-TRAILER", r.previous, sum)
	return r.previous
}

// chunks reads a body of the aws-chunked coding with signatures, checks each
// chunk, and passes it on with a signature of the real key. A signature is
// always 64 digits, and sizes and borders stay, so the length does too. One
// chunk is held at a time, because its signature stands in front of it. See
// https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html and
// .../sigv4-streaming-trailers.html.
type chunks struct {
	body        io.ReadCloser
	src         *bufio.Reader
	agent, real rolling
	left        int64 // of X-Amz-Decoded-Content-Length
	trailing    bool
	names       []string // the trailers that may come
	ready       []byte   // what of out was not read yet
	out         bytes.Buffer
	err         error // after ready; sticky
}

func newChunks(body io.ReadCloser, agent, real rolling, length int64, trailing bool, names string) *chunks {
	c := &chunks{body: body, src: bufio.NewReaderSize(body, maxLine), agent: agent, real: real, left: length, trailing: trailing}
	for name := range strings.SplitSeq(names, ",") {
		c.names = append(c.names, strings.TrimSpace(name))
	}
	return c
}

// Read implements io.Reader.
func (c *chunks) Read(p []byte) (int, error) {
	for len(c.ready) == 0 {
		if c.err != nil {
			return 0, c.err
		}
		c.out.Reset()
		c.err = c.next()
		if c.err == nil || errors.Is(c.err, io.EOF) {
			c.ready = c.out.Bytes()
		}
	}
	n := copy(p, c.ready)
	c.ready = c.ready[n:]
	return n, nil
}

// Close implements io.Closer.
func (c *chunks) Close() error { return c.body.Close() }

// next puts one chunk into out; with the last one it returns io.EOF.
func (c *chunks) next() error {
	line, err := c.line()
	if err != nil {
		return err
	}
	digits, signature, ok := strings.Cut(line, ";chunk-signature=")
	size, err := strconv.ParseUint(digits, 16, 32)
	if err != nil || !ok || !isHash(signature) || strings.Trim(digits, "0123456789abcdefABCDEF") != "" {
		return fmt.Errorf("%w: a chunk does not begin with its size and signature", ErrMalformed)
	}
	if size > maxChunk {
		return fmt.Errorf("%w: a chunk is longer than %d MiB", ErrBody, maxChunk>>20)
	}
	if c.left -= int64(size); c.left < 0 || size == 0 && c.left > 0 {
		return fmt.Errorf("%w: it has not the length that X-Amz-Decoded-Content-Length says", ErrBody)
	}
	const head = len(";chunk-signature=") + sha256.Size*2 + 2
	c.out.Write(make([]byte, len(digits)+head)) // filled in below
	if _, err := io.CopyN(&c.out, c.src, int64(size)); err != nil {
		return early(err)
	}
	data := c.out.Bytes()[len(digits)+head:]
	sum := digest(data)
	if !same(c.agent.chunk(sum), signature) {
		return fmt.Errorf("%w: a chunk of the body has another signature", ErrMismatch)
	}
	copy(c.out.Bytes(), digits+";chunk-signature="+c.real.chunk(sum)+"\r\n")
	if size == 0 && c.trailing {
		if err := c.trailer(); err != nil {
			return err
		}
	}
	if line, err := c.line(); err != nil || line != "" {
		return malformed(err, "a chunk does not end where it should")
	}
	c.out.WriteString("\r\n")
	if size > 0 {
		return nil
	}
	if _, err := c.src.ReadByte(); err != io.EOF {
		return malformed(err, "something follows the last chunk")
	}
	return io.EOF
}

// trailer reads the trailers up to their signature, and signs them.
func (c *chunks) trailer() error {
	const signature = "x-amz-trailer-signature"
	var canonical []string
	for range maxTrailers {
		line, err := c.line()
		if err != nil {
			return err
		}
		name, value, ok := strings.Cut(line, ":")
		lower := strings.ToLower(name)
		if lower == signature {
			slices.Sort(canonical)
			sum := digest([]byte(strings.Join(canonical, "")))
			if !same(c.agent.trailer(sum), value) {
				return fmt.Errorf("%w: the trailers have another signature", ErrMismatch)
			}
			c.out.WriteString(name + ":" + c.real.trailer(sum) + "\r\n")
			return nil
		}
		if !ok || !slices.Contains(c.names, lower) {
			return fmt.Errorf("%w: a trailer is not one that X-Amz-Trailer names", ErrMalformed)
		}
		canonical = append(canonical, lower+":"+strings.TrimSpace(value)+"\n")
		c.out.WriteString(line + "\r\n")
	}
	return fmt.Errorf("%w: there are more than %d trailers", ErrMalformed, maxTrailers)
}

// line reads one line without its CRLF.
func (c *chunks) line() (string, error) {
	line, err := c.src.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return "", fmt.Errorf("%w: a line between the chunks is too long", ErrMalformed)
	}
	if err != nil {
		return "", early(err)
	}
	text, ok := strings.CutSuffix(string(line), "\r\n")
	if !ok || strings.ContainsAny(text, "\r\x00") {
		return "", fmt.Errorf("%w: a line between the chunks does not end in CRLF", ErrMalformed)
	}
	return text, nil
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// early makes the end of a body where there should be more of it an error.
func early(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: it ends before its last chunk", ErrBody)
	}
	return fmt.Errorf("reading the body to sign it: %w", err)
}

// malformed prefers the error that reading had.
func malformed(err error, text string) error {
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return fmt.Errorf("%w: %s", ErrMalformed, text)
}
