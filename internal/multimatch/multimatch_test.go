package multimatch

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// naive is the leftmost, then longest match at or after from.
func naive(patterns [][]byte, b []byte, from int) (Match, bool) {
	for start := max(from, 0); from >= 0 && start < len(b); start++ {
		best := Match{}
		for i, p := range patterns {
			if bytes.HasPrefix(b[start:], p) && start+len(p) > best.End {
				best = Match{i, start, start + len(p)}
			}
		}
		if best.End > 0 {
			return best, true
		}
	}
	return Match{}, false
}

// naiveEnds is the longest match at each place where one ends.
func naiveEnds(patterns [][]byte, b []byte) (found []Match) {
	for end := range len(b) + 1 {
		best := Match{Start: end}
		for i, p := range patterns {
			if bytes.HasSuffix(b[:end], p) && end-len(p) < best.Start {
				best = Match{i, end - len(p), end}
			}
		}
		if best.Start < end {
			found = append(found, best)
		}
	}
	return found
}

// naivePending is the longest end of b that a pattern begins with and goes on
// from.
func naivePending(patterns [][]byte, b []byte) int {
	for n := len(b); n > 0; n-- {
		for _, p := range patterns {
			if n < len(p) && bytes.HasPrefix(p, b[len(b)-n:]) {
				return n
			}
		}
	}
	return 0
}

// check compares everything a Matcher says about b, cut into pieces, with the
// naive search.
func check(t interface {
	Fatalf(string, ...any)
	Helper()
}, patterns [][]byte, b []byte, cuts []int) {
	t.Helper()
	m, err := New(patterns)
	if err != nil {
		t.Fatalf("New(%q): %v", patterns, err)
	}
	for from := -1; from <= len(b)+1; from++ {
		got, ok := m.Find(b, from)
		want, wantOK := naive(patterns, b, from)
		if got != want || ok != wantOK {
			t.Fatalf("%q in %q from %d: got %v %v, want %v %v", patterns, b, from, got, ok, want, wantOK)
		}
	}
	s, found, at := m.Scan(), []Match(nil), 0
	for _, cut := range append(cuts, len(b)) {
		for {
			hit, ok := s.Next(b[:cut], at)
			if !ok {
				break
			}
			found, at = append(found, hit), hit.End
		}
		at = cut
		if got, want := s.Pending(), naivePending(patterns, b[:cut]); got != want {
			t.Fatalf("%q behind %q: %d bytes pending, want %d", patterns, b[:cut], got, want)
		}
	}
	if want := naiveEnds(patterns, b); !slices.Equal(found, want) {
		t.Fatalf("%q in %q cut at %d: got %v, want %v", patterns, b, cuts, found, want)
	}
}

func TestAgainstNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		letters := rapid.SliceOfN(rapid.SampledFrom([]byte("ab\x00\xff")), 0, 24)
		shortest := rapid.IntRange(MinLen, 20).Draw(t, "shortest")
		patterns := rapid.SliceOfN(rapid.SliceOfN(rapid.SampledFrom([]byte("ab\x00\xff")), shortest, 24), 0, 12).Draw(t, "patterns")
		var b []byte
		for range rapid.IntRange(0, 8).Draw(t, "pieces") {
			if len(patterns) > 0 && rapid.Bool().Draw(t, "hit") {
				p := rapid.SampledFrom(patterns).Draw(t, "pattern")
				b = append(b, p[:rapid.IntRange(1, len(p)).Draw(t, "of it")]...)
			} else {
				b = append(b, letters.Draw(t, "noise")...)
			}
		}
		cuts := rapid.SliceOfN(rapid.IntRange(0, len(b)), 0, 6).Draw(t, "cuts")
		slices.Sort(cuts)
		check(t, patterns, b, cuts)
	})
}

func FuzzAgainstNaive(f *testing.F) {
	f.Add([]byte("abcd\nbcde\ncdef"), []byte("xxabcdefxx"), 4)
	f.Add([]byte("aaaa\naaaaaaab\naaaaaaaaaaaaaaaab"), []byte(strings.Repeat("a", 40)), 7)
	f.Add([]byte("abababab\nbabababa\nababababab"), []byte(strings.Repeat("ab", 20)), 3)
	f.Add([]byte("0123456789abcdefghij"), []byte("0123456789abcdefghij0123456789abcdefghi"), 25)
	f.Fuzz(func(t *testing.T, list, b []byte, cut int) {
		if len(b) > 300 || len(list) > 300 {
			return
		}
		patterns := bytes.Split(list, []byte("\n"))
		patterns = slices.DeleteFunc(patterns, func(p []byte) bool { return len(p) < MinLen })
		check(t, patterns, b, []int{min(max(cut, 0), len(b))})
	})
}

func TestFindIsLeftmostThenLongest(t *testing.T) {
	patterns := [][]byte{[]byte("bcde"), []byte("abcdefgh"), []byte("abcdef"), []byte("abcdef"), []byte("efghijkl")}
	m, err := New(patterns)
	if err != nil {
		t.Fatal(err)
	}
	var got []Match
	text := []byte("--abcdefghijkl--abcdefg--bcde")
	for at := 0; ; {
		hit, ok := m.Find(text, at)
		if !ok {
			break
		}
		got, at = append(got, hit), hit.End
	}
	want := []Match{{1, 2, 10}, {2, 16, 22}, {0, 25, 29}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestNewRefuses(t *testing.T) {
	for name, n := range map[string]int{"short": MinLen - 1, "long": MaxLen + 1, "empty": 0} {
		_, err := New([][]byte{[]byte("fine"), bytes.Repeat([]byte("Z"), n)})
		if err == nil || strings.Contains(err.Error(), "Z") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, n := range []int{MinLen, MaxLen} {
		p := bytes.Repeat([]byte("Z"), n)
		m, err := New([][]byte{p})
		if err != nil {
			t.Fatal(err)
		}
		if hit, ok := m.Find(append([]byte("z"), p...), 0); !ok || hit != (Match{0, 1, n + 1}) {
			t.Errorf("%d bytes: %v %v", n, hit, ok)
		}
	}
}

func TestZeroAndWipedFindNothing(t *testing.T) {
	m, err := New([][]byte{[]byte("secret")})
	if err != nil {
		t.Fatal(err)
	}
	s := m.Scan()
	s.Next([]byte("-secre"), 0)
	nodes, in := m.nodes, m.in
	m.Wipe()
	for _, m := range []*Matcher{m, {}} {
		if hit, ok := m.Find([]byte("secret"), 0); ok || m.MaxLen() != 0 {
			t.Errorf("found %v", hit)
		}
	}
	if hit, ok := s.Next([]byte("-secret"), 6); ok || s.Pending() != 0 {
		t.Errorf("found %v", hit)
	}
	var zero Scan
	if hit, ok := zero.Next([]byte("secret"), 0); ok || zero.Pending() != 0 {
		t.Errorf("found %v", hit)
	}
	if !bytes.Equal(in, make([]byte, len(in))) || slices.ContainsFunc(nodes, func(n node) bool { return n != node{} }) {
		t.Error("the patterns are still in memory")
	}
}

// TestHostileTextIsLinear counts what is looked at for each byte of texts that
// are made to look like the patterns.
func TestHostileTextIsLinear(t *testing.T) {
	const size = 1 << 17
	periodic := func(p string, n int) []byte { return []byte(strings.Repeat(p, n/len(p)+1)[:n]) }
	long := append(periodic("a", 4000), 'b')
	var prefixes, suffixes [][]byte
	for i := MinLen; i <= 1000; i += 7 {
		prefixes = append(prefixes, append(periodic("a", i), 'b'))
		suffixes = append(suffixes, append([]byte("b"), periodic("a", i)...))
	}
	secrets := random(600, 40)
	var own []byte
	for r := rand.New(rand.NewPCG(1, 2)); len(own) < size; {
		p := secrets[r.IntN(len(secrets))]
		own = append(own, p[:1+r.IntN(len(p))]...)
	}
	for name, c := range map[string]struct {
		patterns [][]byte
		text     []byte
	}{
		"nearly the pattern":            {[][]byte{long}, periodic("a", size)},
		"many that differ at the end":   {prefixes, periodic("a", size)},
		"many that differ at the start": {suffixes, periodic("a", size)},
		"all match everywhere":          {[][]byte{periodic("a", 4), periodic("a", 64), periodic("a", 4096)}, periodic("a", size)},
		"a period of two":               {[][]byte{append(periodic("ab", 3000), 'c'), append(periodic("ba", 3000), 'c')}, periodic("ab", size)},
		"broken just before the end":    {[][]byte{append(periodic("a", 4000), 'b')}, periodic(strings.Repeat("a", 3999)+"c", size)},
		"the table's windows only":      {[][]byte{append(periodic("abcdefghijklmnop", 16), []byte("qrstuvwxyz")...)}, periodic("abcdefghijklmnop", size)},
		"pieces of the patterns":        {secrets, own},
	} {
		m, err := New(c.patterns)
		if err != nil {
			t.Fatal(err)
		}
		for _, piece := range []int{1, 7, 4096, size} { // a stream in pieces is no worse
			s := m.Scan()
			for at := 0; at < size; {
				end := min(size, at-at%piece+piece)
				hit, ok := s.Next(c.text[:end], at)
				if at = end; ok {
					at = hit.End
				}
			}
			// Each byte is read at most twice, and costs at most one step
			// down the trie and one back.
			if s.steps > 4*size {
				t.Errorf("%s in pieces of %d: %d steps for %d bytes", name, piece, s.steps, size)
			}
		}
	}
}

// random returns n patterns of the length in base64's letters.
func random(n, length int) [][]byte {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	r := rand.New(rand.NewPCG(3, uint64(n)))
	patterns := make([][]byte, n)
	for i := range patterns {
		for range length {
			patterns[i] = append(patterns[i], letters[r.IntN(len(letters))])
		}
	}
	return patterns
}

func texts(size int) map[string][]byte {
	r := rand.New(rand.NewPCG(5, 6))
	noise := make([]byte, size)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	var object []byte
	for i := 0; len(object) < size; i++ {
		object = fmt.Appendf(object, `{"id":%d,"node_id":"MDQ6VXNlcj%d","login":"octocat%d","url":"https://api.example/users/octocat%d","html_url":"https://shop.example/%x","type":"User","note":"Refunds are sent within %d days \u00e9"},`,
			r.Uint32(), r.Uint64(), i, i, r.Uint64(), i%31)
	}
	return map[string][]byte{"json": object[:size], "random": noise, "base64": bytes.Join(random(size/64, 64), nil)}
}

// BenchmarkScan is to be read beside BenchmarkIndexByte, which looks for one
// byte that is not there.
func BenchmarkScan(b *testing.B) {
	text := texts(1 << 20)
	for _, count := range []int{20, 600, 2000} {
		for _, length := range []int{8, 10, 20, 40} {
			m, err := New(random(count, length))
			if err != nil {
				b.Fatal(err)
			}
			for _, name := range []string{"json", "random", "base64"} {
				b.Run(fmt.Sprintf("%dx%d/%s", count, length, name), func(b *testing.B) {
					b.SetBytes(int64(len(text[name])))
					for b.Loop() {
						s := m.Scan()
						if hit, ok := s.Next(text[name], 0); ok {
							b.Fatal(hit)
						}
					}
				})
			}
		}
	}
}

func BenchmarkIndexByte(b *testing.B) {
	text := bytes.Repeat([]byte("a"), 1<<20)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if bytes.IndexByte(text, 'z') >= 0 {
			b.Fatal("found")
		}
	}
}

// BenchmarkHostile is the worst there is: every byte goes through the trie.
func BenchmarkHostile(b *testing.B) {
	m, err := New([][]byte{append(bytes.Repeat([]byte("a"), 4000), 'b')})
	if err != nil {
		b.Fatal(err)
	}
	text := bytes.Repeat([]byte("a"), 1<<20)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		s := m.Scan()
		s.Next(text, 0)
	}
}

func BenchmarkNew(b *testing.B) {
	patterns := random(600, 64)
	for b.Loop() {
		if _, err := New(patterns); err != nil {
			b.Fatal(err)
		}
	}
}
