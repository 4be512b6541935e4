// Package forward is the first line on every connection that init, inside the
// agent's computer, opens to the agent's gate: it says what the rest of the
// connection is.
//
//	AMBIT/1 tcp <host> <port> [<intent, percent-encoded>]\n   a program's connection to host:port
//	AMBIT/1 proxy\n                                          a program's connection to the proxy port
//	AMBIT/1 name <host>\n                                    may this name be resolved, on which ports?
//	AMBIT/1 output <stdout|stderr>\n                         what the agent's program writes
//	AMBIT/1 program\n                                        JSON lines about the agent's program
//
// The grammar is closed: single spaces, printable ASCII, at most MaxLine bytes
// with the newline, nothing optional but the intent.
//
// Trust: the line comes from inside the computer and is hostile input. It names
// what the agent says it wants; the worker judges that as it judges any claim.
package forward

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
)

// MaxLine is the longest header line in bytes, the newline included. It holds
// the longest name (253) and the longest intent (512, percent-encoded).
const MaxLine = 2048

// Kind is what a connection is for.
type Kind string

// The kinds.
const (
	TCP     Kind = "tcp"
	Proxy   Kind = "proxy"
	Name    Kind = "name"
	Output  Kind = "output"
	Program Kind = "program"
)

// Header is a parsed first line. Host is not canonical yet.
type Header struct {
	Kind   Kind
	Host   string // of TCP and Name
	Port   uint16 // of TCP
	Intent string // of TCP, "" if unstated
	Stream string // of Output: "stdout" or "stderr"
}

// ErrMalformed is wrapped by every error about a line that is not of the grammar.
var ErrMalformed = errors.New("malformed forward header")

// String writes the line, with its newline. Parse(h.String()) is h.
func (h Header) String() string {
	switch h.Kind {
	case TCP:
		s := "AMBIT/1 tcp " + h.Host + " " + strconv.Itoa(int(h.Port))
		if h.Intent != "" {
			s += " " + url.PathEscape(h.Intent)
		}
		return s + "\n"
	case Name:
		return "AMBIT/1 name " + h.Host + "\n"
	case Output:
		return "AMBIT/1 output " + h.Stream + "\n"
	default:
		return "AMBIT/1 " + string(h.Kind) + "\n"
	}
}

// Read reads one line from r, which must hold at least MaxLine bytes of buffer.
func Read(r *bufio.Reader) (Header, error) {
	line, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) || len(line) > MaxLine {
		return Header{}, fmt.Errorf("%w: line too long", ErrMalformed)
	}
	if err != nil {
		if errors.Is(err, io.EOF) && len(line) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return Header{}, fmt.Errorf("reading the forward header: %w", err)
	}
	return Parse(string(line))
}

// Parse parses one line with its newline.
func Parse(line string) (Header, error) {
	if len(line) > MaxLine || !strings.HasSuffix(line, "\n") {
		return Header{}, fmt.Errorf("%w: no newline within %d bytes", ErrMalformed, MaxLine)
	}
	line = line[:len(line)-1]
	for i := range len(line) {
		if line[i] < 0x20 || line[i] > 0x7e {
			return Header{}, fmt.Errorf("%w: byte 0x%02x", ErrMalformed, line[i])
		}
	}
	f := strings.Split(line, " ")
	if len(f) < 2 || f[0] != "AMBIT/1" {
		return Header{}, fmt.Errorf("%w: not AMBIT/1", ErrMalformed)
	}
	h, args := Header{Kind: Kind(f[1])}, f[2:]
	switch {
	case h.Kind == TCP && (len(args) == 2 || len(args) == 3):
		return parseTCP(h, args)
	case h.Kind == Name && len(args) == 1 && args[0] != "":
		h.Host = args[0]
	case h.Kind == Output && len(args) == 1 && (args[0] == "stdout" || args[0] == "stderr"):
		h.Stream = args[0]
	case (h.Kind == Proxy || h.Kind == Program) && len(args) == 0:
	default:
		return Header{}, fmt.Errorf("%w: unknown kind or wrong number of words", ErrMalformed)
	}
	return h, nil
}

func parseTCP(h Header, args []string) (Header, error) {
	port, err := strconv.ParseUint(args[1], 10, 16)
	if err != nil || port == 0 || strconv.FormatUint(port, 10) != args[1] || args[0] == "" {
		return Header{}, fmt.Errorf("%w: host or port", ErrMalformed)
	}
	h.Host, h.Port = args[0], uint16(port)
	if len(args) == 3 {
		if h.Intent, err = url.PathUnescape(args[2]); err != nil || h.Intent == "" {
			return Header{}, fmt.Errorf("%w: intent", ErrMalformed)
		}
	}
	return h, nil
}

// FormatPorts writes the answer to a Name question: "ok 443 8443\n", or
// "no\n" when no rule names the host.
func FormatPorts(ports []uint16) string {
	if len(ports) == 0 {
		return "no\n"
	}
	var b strings.Builder
	b.WriteString("ok")
	for _, p := range ports {
		b.WriteByte(' ')
		b.WriteString(strconv.Itoa(int(p)))
	}
	b.WriteByte('\n')
	return b.String()
}

// ParsePorts reads FormatPorts' line.
func ParsePorts(line string) ([]uint16, error) {
	f := strings.Fields(line)
	if len(f) == 1 && f[0] == "no" {
		return nil, nil
	}
	if len(f) < 2 || f[0] != "ok" {
		return nil, fmt.Errorf("%w: answer to a name question", ErrMalformed)
	}
	ports := make([]uint16, 0, len(f)-1)
	for _, s := range f[1:] {
		p, err := strconv.ParseUint(s, 10, 16)
		if err != nil || p == 0 {
			return nil, fmt.Errorf("%w: port %q", ErrMalformed, s)
		}
		ports = append(ports, uint16(p))
	}
	return ports, nil
}

// ProgramEvent is one JSON line of a Program connection: init tells how the
// agent's program fares.
type ProgramEvent struct {
	Event string `json:"event"`          // "started" or "exited"
	Code  int    `json:"code,omitempty"` // of exited: exit code, 128+signal if killed, 127 not found, 126 not executable
	Text  string `json:"text,omitempty"` // why, for people
}
