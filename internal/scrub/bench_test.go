package scrub

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"ambit/internal/secretbytes"
)

// twenty secrets as they are in practice: tokens of the common shapes, a few
// passwords, the URL of a webhook, a key in PEM.
func twenty() []secretbytes.Bytes {
	r := rand.New(rand.NewPCG(1, 20))
	token := func(prefix string, n int) secretbytes.Bytes {
		const letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
		b := []byte(prefix)
		for range n {
			b = append(b, letters[r.IntN(len(letters))])
		}
		return secretbytes.New(b)
	}
	list := []secretbytes.Bytes{
		secretbytes.New([]byte("correct horse battery staple")), secretbytes.New([]byte(`p&ss/w0rd <"'+=`)), secretbytes.New([]byte("12345678")),
		token("https://hooks.slack.com/services/T000/B000/", 24), secretbytes.New([]byte(pem)),
	}
	for _, prefix := range []string{"ghp_", "glpat-", "sk_live_", "shpat_", "xoxb-1234567890-", "sk-ant-api03-", "AKIA", "ya29.", "lin_api_", "SG.", "", "", "", "", ""} {
		list = append(list, token(prefix, 36))
	}
	return list
}

// answer is JSON as a shop's or a code host's API gives it.
func answer(size int) []byte {
	r := rand.New(rand.NewPCG(5, 6))
	var b []byte
	for i := 0; len(b) < size; i++ {
		b = fmt.Appendf(b, `{"id":%d,"node_id":"MDQ6VXNlcj%d","login":"octocat%d","url":"https://api.example/users/octocat%d","html_url":"https://shop.example/%x","type":"User","site_admin":false,"note":"Refunds are sent within %d days, \u003cb\u003eno questions\u003c/b\u003e"},`,
			r.Uint32(), r.Uint64(), i, i, r.Uint64(), i%31)
	}
	return b[:size]
}

func twentyScrubber(b *testing.B) *Scrubber {
	s, err := New(twenty())
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// BenchmarkScrub10KiB is one JSON answer of 10 KiB with its stream made and
// read to the end, to be compared with BenchmarkCopy10KiB.
func BenchmarkScrub10KiB(b *testing.B) { body10KiB(b, twentyScrubber(b)) }

func BenchmarkCopy10KiB(b *testing.B) { body10KiB(b, nil) }

func body10KiB(b *testing.B, s *Scrubber) {
	body, buf := answer(10<<10), make([]byte, 32<<10)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		var r io.Reader = bytes.NewReader(body)
		if s != nil {
			r = s.Stream().Reader(r)
		}
		n := 0
		for {
			k, err := r.Read(buf)
			n += k
			if err != nil {
				break
			}
		}
		if n != len(body) {
			b.Fatal(n)
		}
	}
}

// BenchmarkStream is a long stream in reads of 32 KiB, to be compared with
// BenchmarkStreamCopy, which only copies, and with multimatch's
// BenchmarkIndexByte.
func BenchmarkStream(b *testing.B) {
	s := twentyScrubber(b)
	for name, body := range map[string][]byte{"json": answer(1 << 20), "random": noise(1 << 20)} {
		b.Run(name, func(b *testing.B) {
			r := s.Stream().Reader(&endless{data: body})
			drain(b, r, len(body))
		})
	}
}

func BenchmarkStreamCopy(b *testing.B) {
	body := answer(1 << 20)
	drain(b, &endless{data: body}, len(body))
}

func drain(b *testing.B, r io.Reader, size int) {
	buf := make([]byte, 32<<10)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		for n := 0; n < size; {
			k, err := r.Read(buf)
			if err != nil {
				b.Fatal(err)
			}
			n += k
		}
	}
}

// endless repeats its data.
type endless struct {
	data []byte
	at   int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.data[e.at:])
	e.at = (e.at + n) % len(e.data)
	return n, nil
}

func noise(size int) []byte {
	r := rand.New(rand.NewPCG(7, 8))
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// BenchmarkEvent is one event of 60 bytes on a long stream.
func BenchmarkEvent(b *testing.B) {
	event := []byte("data: {\"delta\":{\"type\":\"text\",\"text\":\" the refund of\"}}\n\n")
	drain(b, twentyScrubber(b).Stream().Reader(&endless{data: event}), len(event))
}

func BenchmarkNew(b *testing.B) {
	list := twenty()
	for name, secrets := range map[string][]secretbytes.Bytes{"one token": list[5:6], "twenty": list} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := New(secrets); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
