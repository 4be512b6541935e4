package clienthello

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
)

// hello is what crypto/tls sends for a configuration.
func hello(t testing.TB, c *tls.Config) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	go func() {
		_ = tls.Client(theirs, c).Handshake() // fails when the pipe closes
		theirs.Close()
	}()
	defer ours.Close()
	head := make([]byte, 5)
	if _, err := io.ReadFull(ours, head); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint16(head[3:]))
	if _, err := io.ReadFull(ours, body); err != nil {
		t.Fatal(err)
	}
	return append(head, body...)
}

// split cuts the message of one record over records of n bytes.
func split(record []byte, n int) []byte {
	var out []byte
	for body := record[5:]; len(body) > 0; {
		m := min(n, len(body))
		out = append(out, 22, 3, 1, byte(m>>8), byte(m))
		out = append(out, body[:m]...)
		body = body[m:]
	}
	return out
}

func TestRead(t *testing.T) {
	whole := hello(t, &tls.Config{ServerName: "shop.example"})
	for name, in := range map[string][]byte{"whole": whole, "split": split(whole, 50), "very split": split(whole, 3)} {
		tail := []byte("what comes after")
		r := bytes.NewReader(append(bytes.Clone(in), tail...))
		h, raw, err := Read(iotest.OneByteReader(r))
		if err != nil || h.ServerName != "shop.example" || h.ECH {
			t.Errorf("%s: %+v, %v", name, h, err)
		}
		if !bytes.Equal(raw, in) {
			t.Errorf("%s: the bytes taken are not the hello's", name)
		}
		if rest, _ := io.ReadAll(r); !bytes.Equal(rest, tail) {
			t.Errorf("%s: took more than the hello", name)
		}
	}
	h, _, err := Read(bytes.NewReader(hello(t, &tls.Config{ServerName: "192.0.2.1", InsecureSkipVerify: true})))
	if err != nil || h.ServerName != "" {
		t.Errorf("no SNI: %+v, %v", h, err)
	}
}

// build makes a hello with the given extensions.
func build(extensions ...[]byte) []byte {
	all := bytes.Join(extensions, nil)
	m := append([]byte{3, 3}, make([]byte, 32)...)
	m = append(m, 0, 0, 2, 0x13, 1, 1, 0)
	m = append(binary.BigEndian.AppendUint16(m, uint16(len(all))), all...)
	m = append([]byte{1, 0, byte(len(m) >> 8), byte(len(m))}, m...)
	return append([]byte{22, 3, 1, byte(len(m) >> 8), byte(len(m))}, m...)
}

func extension(kind uint16, body ...byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, kind)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(body))), body...)
}

func sni(name string) []byte {
	n := len(name)
	return extension(0, append([]byte{0, byte(n + 3), 0, 0, byte(n)}, name...)...)
}

func TestReadECH(t *testing.T) {
	h, _, err := Read(bytes.NewReader(build(sni("a.example"), extension(0xfe0d, 0))))
	if err != nil || !h.ECH || h.ServerName != "a.example" {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestReadRefuses(t *testing.T) {
	good := build(sni("a.example"))
	changed := func(at int, to byte) []byte {
		b := bytes.Clone(good)
		b[at] = to
		return b
	}
	for name, in := range map[string][]byte{
		"two names":          build(sni("a.example"), sni("b.example")),
		"two entries":        build(extension(0, 0, 8, 0, 0, 1, 'a', 0, 0, 1, 'b')),
		"other name type":    build(extension(0, 0, 4, 1, 0, 1, 'a')),
		"empty name":         build(extension(0, 0, 3, 0, 0, 0)),
		"NUL in name":        build(sni("a.example\x00.b")),
		"non-ASCII name":     build(sni("ä.example")),
		"surplus after list": build(extension(0, 0, 4, 0, 0, 1, 'a', 0)),
		"list too long":      build(extension(0, 0, 9, 0, 0, 1, 'a')),
		"not a handshake":    changed(0, 23),
		"not a hello":        changed(5, 2),
		"not TLS":            changed(1, 2),
		"empty record":       {22, 3, 1, 0, 0},
		"surplus in record":  append(append([]byte{22, 3, 1, 0, byte(len(good) - 4)}, good[5:]...), 0),
		"HTTP":               []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
	} {
		if h, _, err := Read(bytes.NewReader(in)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v", name, h, err)
		}
	}
	if _, _, err := Read(bytes.NewReader(split(build(extension(21, make([]byte, 17<<10)...)), 4000))); !errors.Is(err, ErrTooLarge) {
		t.Errorf("large: %v", err)
	}
	endless := io.MultiReader(strings.NewReader("\x16\x03\x01\x00\x04\x01\x00\x3f\xff"), &records{})
	if _, raw, err := Read(endless); !errors.Is(err, ErrTooLarge) || len(raw) > MaxSize {
		t.Errorf("endless records: %d bytes, %v", len(raw), err)
	}
	for n := range good {
		if _, _, err := Read(bytes.NewReader(good[:n])); err != io.ErrUnexpectedEOF && !(n == 0 && err == io.EOF) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
}

// records is an endless stream of handshake records of one byte.
type records struct{ at int }

func (r *records) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = "\x16\x03\x01\x00\x01\x00"[r.at%6]
		r.at++
	}
	return len(p), nil
}

func FuzzRead(f *testing.F) {
	f.Add(hello(f, &tls.Config{ServerName: "shop.example"}))
	f.Add(split(hello(f, &tls.Config{ServerName: "shop.example", NextProtos: []string{"h2"}}), 40))
	f.Add(build(sni("a.example"), extension(0xfe0d, 0)))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, raw, err := Read(bytes.NewReader(b))
		if len(raw) > MaxSize || !bytes.HasPrefix(b, raw) {
			t.Fatalf("took %d bytes that are not the input's", len(raw))
		}
		if err != nil {
			return
		}
		// Whatever crypto/tls makes of the same bytes, it sees the same name.
		ours, theirs := net.Pipe()
		go func() {
			_, _ = theirs.Write(raw)
			_, _ = io.Copy(io.Discard, theirs)
		}()
		stop := errors.New("seen")
		_ = tls.Server(ours, &tls.Config{GetConfigForClient: func(i *tls.ClientHelloInfo) (*tls.Config, error) {
			if strings.TrimSuffix(h.ServerName, ".") != strings.TrimSuffix(i.ServerName, ".") {
				t.Errorf("%q here, %q there", h.ServerName, i.ServerName)
			}
			return nil, stop
		}}).Handshake()
		ours.Close()
		theirs.Close()
	})
}
