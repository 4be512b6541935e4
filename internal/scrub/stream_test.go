package scrub

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// slow hands out its data in pieces and its error with the last of them.
type slow struct {
	data []byte
	step int
	err  error // instead of io.EOF
}

func (s *slow) Read(p []byte) (int, error) {
	n := copy(p[:min(len(p), s.step)], s.data)
	s.data = s.data[n:]
	if len(s.data) > 0 {
		return n, nil
	}
	if s.err != nil {
		return n, s.err
	}
	return n, io.EOF
}

// events hands out one event a read.
type events struct {
	list []string
	next int
}

func (e *events) Read(p []byte) (int, error) {
	if e.next == len(e.list) {
		return 0, io.EOF
	}
	e.next++
	return copy(p, e.list[e.next-1]), nil
}

// TestStreamHoldsBackOnlyWhatCouldBegin looks at what has come out after which
// event went in.
func TestStreamHoldsBackOnlyWhatCouldBegin(t *testing.T) {
	src := &events{list: []string{
		"data: hello\n\n", "data: the sec\n\n", "data: the sec", "ret\n\n", "data: the secret-v", "alue and secret-",
		"valu", "e", "\n\n", "secret-valu", "secret-value", "secret-v",
	}}
	st := scrubber(t, "secret-value").Stream()
	out := st.Reader(src)
	for _, want := range []struct {
		after int // events
		text  string
	}{
		{1, "data: hello\n\n"}, {2, "data: the sec\n\n"}, {3, "data: the "}, {4, "secret\n\n"}, {5, "data: the "},
		{6, "XXXXXXXXXXXX and "}, {8, "XXXXXXXXXXXX"}, {9, "\n\n"}, {11, "secret-valuXXXXXXXXXXXX"}, {12, "secret-v"},
	} {
		buf := make([]byte, 4096)
		n, err := out.Read(buf)
		if got := string(buf[:n]); err != nil || got != want.text || src.next != want.after {
			t.Errorf("after %d events came %q, %v; want %q after %d", src.next, got, err, want.text, want.after)
		}
	}
	if st.Found() != 3 {
		t.Errorf("found %d", st.Found())
	}
}

func TestReader(t *testing.T) {
	s := scrubber(t, "secret-value")
	boom := errors.New("boom")
	for name, c := range map[string]struct {
		src  io.Reader
		want string
		err  error
	}{
		"EOF with the last bytes":    {&slow{data: []byte("a secret-value, a secr"), step: 100}, "a XXXXXXXXXXXX, a secr", nil},
		"EOF alone":                  {strings.NewReader("a secret-value, a secr"), "a XXXXXXXXXXXX, a secr", nil},
		"empty":                      {strings.NewReader(""), "", nil},
		"an error with bytes":        {&slow{data: []byte("a secret-value, b"), step: 9, err: boom}, "a XXXXXXXXXXXX, b", boom},
		"cut off inside the secret":  {&slow{data: []byte("a secret-valu"), step: 9, err: boom}, "a ", boom},
		"bytes one by one":           {iotest.OneByteReader(strings.NewReader("a secret-value")), "a XXXXXXXXXXXX", nil},
		"a source that says nothing": {iotest.ErrReader(nil), "", io.ErrNoProgress},
	} {
		got, err := readAll(s.Stream().Reader(c.src), 5000)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for name, lie := range map[string]int{"negative": -1, "too much": 5001} {
		if _, err := readAll(s.Stream().Reader(liar(lie)), 5000); err == nil {
			t.Errorf("a source that says %s is believed", name)
		}
	}
	r := s.Stream().Reader(strings.NewReader("text"))
	if n, err := r.Read(nil); n != 0 || err != nil {
		t.Errorf("a read of nothing: %d, %v", n, err)
	}
	if got, err := readAll(r, 5000); got != "text" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("after the end: %d, %v", n, err)
	}
	if err := iotest.TestReader(s.Stream().Reader(strings.NewReader("a secret-value, a secr")), []byte("a XXXXXXXXXXXX, a secr")); err != nil {
		t.Error(err)
	}
}

type liar int

func (l liar) Read([]byte) (int, error) { return int(l), nil }

// TestManyEmptyOrHeldReads: bytes that are held back are progress.
func TestManyEmptyOrHeldReads(t *testing.T) {
	secret := strings.Repeat("s", 400) + "t"
	text := strings.Repeat("s", 390)
	got, err := readAll(scrubber(t, secret).Stream().Reader(iotest.OneByteReader(strings.NewReader(text))), 4096)
	if got != text || err != nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// TestNothingHeldBackIsInTheBuffer: the caller's buffer may be shown to the
// agent as a whole by a careless caller.
func TestNothingHeldBackIsInTheBuffer(t *testing.T) {
	buf := make([]byte, 4096)
	n, err := scrubber(t, "secret-value").Stream().Reader(&slow{data: []byte("text secret-valu!"), step: 16}).Read(buf)
	if err != nil || string(buf[:n]) != "text " || bytes.Contains(buf, []byte("sec")) {
		t.Errorf("%q, %v", bytes.TrimRight(buf, "\x00"), err)
	}
}
