package forward

import (
	"bufio"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRoundTrip(t *testing.T) {
	for _, h := range []Header{
		{Kind: TCP, Host: "api.example", Port: 443},
		{Kind: TCP, Host: "api.example", Port: 1, Intent: "look up order 7 / 100%\nü"},
		{Kind: Proxy}, {Kind: Program}, {Kind: Name, Host: "x"},
		{Kind: Output, Stream: "stderr"},
	} {
		got, err := Read(bufio.NewReaderSize(strings.NewReader(h.String()+"rest"), MaxLine))
		if err != nil {
			t.Fatalf("%q: %v", h.String(), err)
		}
		if d := cmp.Diff(h, got); d != "" {
			t.Error(d)
		}
	}
}

func TestMalformed(t *testing.T) {
	for _, line := range []string{
		"", "\n", "AMBIT/1\n", "AMBIT/2 proxy\n", "AMBIT/1 proxy", "AMBIT/1 proxy x\n", "AMBIT/1  proxy\n",
		"AMBIT/1 tcp h 0\n", "AMBIT/1 tcp h 65536\n", "AMBIT/1 tcp h 0443\n", "AMBIT/1 tcp h +443\n", "AMBIT/1 tcp  443\n",
		"AMBIT/1 tcp h 443 \n", "AMBIT/1 tcp h 443 %zz\n", "AMBIT/1 tcp h 443 a b\n", "AMBIT/1 tcp h\x00 443\n",
		"AMBIT/1 tcp h\x7f 443\n", "AMBIT/1 proxy\r\n", "AMBIT/1 output stdin\n", "AMBIT/1 name\n", "AMBIT/1 admin\n", "GET / HTTP/1.1\n",
		"AMBIT/1 name " + strings.Repeat("a", MaxLine) + "\n",
	} {
		if h, err := Read(bufio.NewReaderSize(strings.NewReader(line), MaxLine)); err == nil {
			t.Errorf("%q was read as %+v", line, h)
		}
		if _, err := Parse(line); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %v", line, err)
		}
	}
}

func TestPorts(t *testing.T) {
	for _, ports := range [][]uint16{nil, {443}, {80, 8443}} {
		got, err := ParsePorts(FormatPorts(ports))
		if err != nil || cmp.Diff(ports, got) != "" {
			t.Errorf("%v: %v, %v", ports, got, err)
		}
	}
	for _, line := range []string{"", "ok\n", "yes 1\n", "ok 0\n", "ok 70000\n", "no 443\n"} {
		if p, err := ParsePorts(line); err == nil {
			t.Errorf("%q was read as %v", line, p)
		}
	}
}

// FuzzParse: whatever is accepted says the same when written and read again.
func FuzzParse(f *testing.F) {
	f.Add("AMBIT/1 tcp api.example 443 a%20b\n")
	f.Add("AMBIT/1 name x\n")
	f.Add("AMBIT/1 output stdout\n")
	f.Fuzz(func(t *testing.T, line string) {
		h, err := Parse(line)
		if err != nil {
			return
		}
		again, err := Parse(h.String())
		if err != nil || again != h {
			t.Fatalf("%q: %+v, then %+v, %v", line, h, again, err)
		}
	})
}
