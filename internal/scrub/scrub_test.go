package scrub

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	stdjson "encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"ambit/internal/secretbytes"
)

// scrubber is one for the secrets, given as text.
func scrubber(t testing.TB, secrets ...string) *Scrubber {
	t.Helper()
	list := make([]secretbytes.Bytes, len(secrets))
	for i, s := range secrets {
		list[i] = secretbytes.New([]byte(s))
	}
	s, err := New(list)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// naive overwrites every occurrence of every form.
func naive(text string, secrets ...string) string {
	out := []byte(text)
	for _, s := range secrets {
		for _, part := range parts([]byte(s)) {
			for _, form := range forms(part) {
				for at := 0; ; at++ {
					i := strings.Index(text[at:], string(form))
					if i < 0 {
						break
					}
					at += i
					copy(out[at:], strings.Repeat(string(Filler), len(form)))
				}
			}
		}
	}
	return string(out)
}

// readAll reads with buffers of the size.
func readAll(r io.Reader, size int) (string, error) {
	var out []byte
	buf := make([]byte, size)
	for {
		n, err := r.Read(buf)
		out = append(out, buf[:n]...)
		if err == io.EOF {
			return string(out), nil
		}
		if err != nil {
			return string(out), err
		}
	}
}

// encoders are other people's ways of writing a secret.
func encoders() map[string]func(string) string {
	b64 := func(e *base64.Encoding, before, after string) func(string) string {
		return func(s string) string { return e.EncodeToString([]byte(before + s + after)) }
	}
	list := map[string]func(string) string{
		"plain":            func(s string) string { return s },
		"hex":              func(s string) string { return hex.EncodeToString([]byte(s)) },
		"HEX":              func(s string) string { return fmt.Sprintf("%X", s) },
		"url.QueryEscape":  url.QueryEscape,
		"url.PathEscape":   url.PathEscape,
		"url twice":        func(s string) string { return url.QueryEscape(url.PathEscape(s)) },
		"lower percent":    func(s string) string { return lowerPercent(url.QueryEscape(s)) },
		"all percent":      func(s string) string { return "%" + spaced(s, "%02X", "%") },
		"all percent, low": func(s string) string { return "%" + spaced(s, "%02x", "%") },
		"json.Marshal":     jsonOf,
		"json, no HTML": func(s string) string {
			var b bytes.Buffer
			e := stdjson.NewEncoder(&b)
			e.SetEscapeHTML(false)
			_ = e.Encode(s)
			return strings.Trim(b.String(), "\"\n")
		},
		"json, PHP's slash":    func(s string) string { return strings.ReplaceAll(jsonOf(s), "/", `\/`) },
		"json twice":           func(s string) string { return jsonOf(jsonOf(s)) },
		"json, all \\u":        func(s string) string { return `\u00` + spaced(s, "%02x", `\u00`) },
		"json, all \\u, twice": func(s string) string { return `\\u00` + spaced(s, "%02x", `\\u00`) },
		"json, all \\u, upper": func(s string) string { return `\u00` + spaced(s, "%02X", `\u00`) },
		"html":                 html.EscapeString,
		"html, XML":            func(s string) string { return xmlEscaper().Replace(s) },
		"Basic":                b64(base64.StdEncoding, "user:", ""),
		"Basic in JSON of .NET": func(s string) string {
			return strings.ReplaceAll(b64(base64.StdEncoding, "user:", "")(s), "+", `\u002B`)
		},
		"Basic, percent-encoded": func(s string) string { return url.QueryEscape(b64(base64.StdEncoding, "a", "")(s)) },
		"JWT":                    b64(base64.RawURLEncoding, `{"sub":"`, `"}`),
	}
	for name, e := range map[string]*base64.Encoding{"std": base64.StdEncoding, "rawstd": base64.RawStdEncoding, "url": base64.URLEncoding, "rawurl": base64.RawURLEncoding} {
		for i := range 3 {
			list[fmt.Sprintf("base64 %s, %d before", name, i)] = b64(e, "..."[:i], "")
			list[fmt.Sprintf("base64 %s, %d before, more after", name, i)] = b64(e, "..."[:i], "\x00tail")
		}
	}
	return list
}

func jsonOf(s string) string {
	b, _ := stdjson.Marshal(s)
	return string(b[1 : len(b)-1])
}

func spaced(s, verb, between string) string {
	var out []string
	for _, c := range []byte(s) {
		out = append(out, fmt.Sprintf(verb, c))
	}
	return strings.Join(out, between)
}

func lowerPercent(s string) string {
	b := []byte(s)
	for i := range b {
		if b[i] == '%' {
			copy(b[i:], bytes.ToLower(b[i:i+3]))
		}
	}
	return string(b)
}

func xmlEscaper() *strings.Replacer {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "'", "&apos;")
}

// leaks says whether four bytes in a row of the secret are still in text: as
// they are, or behind base64.
func leaks(text, secret string) bool {
	seen := []string{text}
	for i := range min(4, len(text)) {
		digits := strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(text[i:], "="))
		b, _ := base64.RawStdEncoding.DecodeString(digits)
		seen = append(seen, string(b))
	}
	for i := range len(secret) - 3 {
		if slices.ContainsFunc(seen, func(s string) bool { return strings.Contains(s, secret[i:i+4]) }) {
			return true
		}
	}
	return false
}

// TestK3TheUpstreamEchoesTheSecret: ATTACKS K3.
func TestK3TheUpstreamEchoesTheSecret(t *testing.T) {
	for _, secret := range []string{
		"sk_live_4eC39HqLyjWDarjtT1zdp7dc", "p&ss/w0rd <\"'+=~*>", "pass word,!($)#?@:;", "12345678", "0123456789", "abcdefghi",
		`back\slash` + "`{|}^[]", "\x7f\x01binary\x1f!", "--__..~~--__", strings.Repeat("long/", 100), strings.Repeat("k3+Y/", 400),
	} {
		s := scrubber(t, "another secret", secret)
		for name, encode := range encoders() {
			text := encode(secret)
			answer := `{"echo":"` + text + `"}`
			out := s.String(answer)
			rest, ok := strings.CutPrefix(out, `{"echo":"`)
			rest, ok2 := strings.CutSuffix(rest, `"}`)
			if !ok || !ok2 || len(rest) != len(text) {
				t.Fatalf("%s: %q became %q", name, text, out)
			}
			if leaks(rest, secret) {
				t.Errorf("%s of %q is left in %q", name, secret, rest)
			}
			for _, step := range []int{1, 2, 3, 7, 600, 4096} {
				streamed, err := readAll(s.Stream().Reader(&slow{data: []byte(answer), step: step}), 4096)
				if err != nil || streamed != out {
					t.Errorf("%s of %q in pieces of %d: %q, %v", name, secret, step, streamed, err)
				}
			}
		}
	}
}

func TestNonASCIIInJSON(t *testing.T) {
	for text, out := range map[string]string{
		`p\u00e4ssw\u00f6rd \ud83d\udd11`: strings.Repeat("X", 31),
		`p\u00E4ssw\u00F6rd \uD83D\uDD11`: strings.Repeat("X", 31),
		`pässwörd 🔑`:                      strings.Repeat("X", 15),
		`passwort 🔑`:                      `passwort 🔑`,
	} {
		if got := scrubber(t, "pässwörd 🔑").String(text); got != out {
			t.Errorf("%s became %s", text, got)
		}
	}
}

const pem = `
-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIHvqtyGkQb/mPPkqzV8oTV0kGRvDnhnjbzL+pQYNwvW6
second+line/of+the+key0123456789
short=
-----END PRIVATE KEY-----
`

func TestLinesOfAKey(t *testing.T) {
	s := scrubber(t, pem)
	for text, out := range map[string]string{
		"a second+line/of+the+key0123456789 z":         "a XXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX z",
		"c2Vjb25kK2xpbmUvb2YrdGhlK2tleTAxMjM0NTY3ODk=": strings.Repeat("X", 44),
		"-----BEGIN PRIVATE KEY-----":                  "-----BEGIN PRIVATE KEY-----",
		"short=":                                       "short=",
		"<" + strings.TrimSpace(pem) + ">":             "<" + strings.Repeat("X", len(pem)-2) + ">",
		`"` + jsonOf(strings.TrimSpace(pem)) + `"`:     `"` + strings.Repeat("X", len(jsonOf(strings.TrimSpace(pem)))) + `"`,
		"key=" + url.QueryEscape("short=\r\nsecond+line/of+the+key0123456789\r\n"): "key=short%3D%0D%0A" + strings.Repeat("X", 40) + "%0D%0A",
	} {
		if got := s.String(text); got != out {
			t.Errorf("%q\nbecame %q\nwant   %q", text, got, out)
		}
	}
}

func TestWhatIsNotLookedFor(t *testing.T) {
	for secret, text := range map[string]string{
		"":            "anything",
		"123456":      `{"code":123456}`,
		"  1234567\n": "1234567",
		"sixlet":      "c2l4bGV0",
	} {
		if got := scrubber(t, secret).String(text); got != text {
			t.Errorf("%q: %q became %q", secret, text, got)
		}
	}
	if got := scrubber(t, " 12345678\n").String("12345678"); got != "XXXXXXXX" {
		t.Errorf("eight letters are looked for, but %q is left", got)
	}
}

func TestTooLongIsRefused(t *testing.T) {
	for n, want := range map[int]bool{MaxLen: true, MaxLen + 1: false} {
		_, err := New([]secretbytes.Bytes{secretbytes.New(bytes.Repeat([]byte("Zz"), n/2+1)[:n])})
		if (err == nil) != want || err != nil && strings.Contains(err.Error(), "Z") {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestOverlapsAreCovered(t *testing.T) {
	s := scrubber(t, "abcdefgh", "efghijkl", "defghijk-")
	b := []byte("1abcdefghijkl2abcdefghefghijkl3abcdefg4")
	if n := s.Bytes(b); n != 2 || string(b) != "1XXXXXXXXXXXX2XXXXXXXXXXXXXXXX3abcdefg4" {
		t.Errorf("%d: %s", n, b)
	}
}

func TestHeader(t *testing.T) {
	h := http.Header{
		"Location":   {"https://a.example/?token=se%2Fcret-value&x=1"},
		"Set-Cookie": {"a=1", "se/cret-value=se/cret-value", "c=3"},
		"Empty":      {},
	}
	if n := scrubber(t, "se/cret-value").Header(h); n != 3 {
		t.Errorf("%d found", n)
	}
	if got := fmt.Sprint(h); got != "map[Empty:[] Location:[https://a.example/?token=XXXXXXXXXXXXXXX&x=1] Set-Cookie:[a=1 XXXXXXXXXXXXX=XXXXXXXXXXXXX c=3]]" {
		t.Error(got)
	}
}

func TestZeroAndWipedLetNothingThrough(t *testing.T) {
	wiped := scrubber(t, "secret-value")
	before := wiped.Stream().Reader(strings.NewReader("before"))
	wiped.Wipe()
	for _, s := range []*Scrubber{wiped, {}} {
		if got := s.String("text"); got != "XXXX" {
			t.Error(got)
		}
		if got, err := readAll(s.Stream().Reader(strings.NewReader("text")), 100); got != "" || !errors.Is(err, ErrWiped) {
			t.Errorf("%q, %v", got, err)
		}
	}
	if got, err := readAll(before, 100); got != "" || !errors.Is(err, ErrWiped) {
		t.Errorf("%q, %v", got, err)
	}
}

// TestK6NothingPrintsTheSecret: ATTACKS K6.
func TestK6NothingPrintsTheSecret(t *testing.T) {
	const canary = "canary-secret-7f3a"
	s := scrubber(t, canary)
	st := s.Stream()
	r := st.Reader(strings.NewReader(canary[:10]))
	if _, err := r.Read(make([]byte, 1)); err != nil { // and 9 bytes wait
		t.Fatal(err)
	}
	decimal := strings.Trim(fmt.Sprint([]byte(canary[:8])), "[]")
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		for _, v := range []any{s, *s, st} {
			out := fmt.Sprintf(verb, v)
			if strings.Contains(out, canary[:8]) || strings.Contains(out, decimal) || strings.Contains(out, hex.EncodeToString([]byte(canary[:8]))) {
				t.Errorf("%s of %T: %s", verb, v, out)
			}
		}
	}
}

func drawSecret(t *rapid.T) string {
	return rapid.StringOfN(rapid.RuneFrom([]rune("ab/+&\" \\%ä")), MinLen, 20, -1).Draw(t, "secret")
}

func TestNoFormIsLeft(t *testing.T) {
	encoders := encoders()
	names := make([]string, 0, len(encoders))
	for name := range encoders {
		names = append(names, name)
	}
	slices.Sort(names)
	rapid.Check(t, func(t *rapid.T) {
		secrets := rapid.SliceOfN(rapid.Custom(drawSecret), 1, 4).Draw(t, "secrets")
		var text string
		for range rapid.IntRange(1, 8).Draw(t, "pieces") {
			encode := encoders[rapid.SampledFrom(names).Draw(t, "encoder")]
			piece := encode(rapid.SampledFrom(secrets).Draw(t, "which"))
			from := rapid.IntRange(0, min(3, len(piece))).Draw(t, "from")
			text += piece[from:] + rapid.StringOfN(rapid.RuneFrom([]rune("ab/+&\" \\%ä")), 0, 5, -1).Draw(t, "noise")
		}
		compare(t, text, secrets, rapid.IntRange(1, 40).Draw(t, "step"), rapid.SampledFrom([]int{1, 3, 600, 1024, 4096}).Draw(t, "buffer"))
	})
}

// compare scrubs in every way there is and compares with the naive way.
func compare(t interface {
	Fatalf(string, ...any)
	Helper()
}, text string, secrets []string, step, buffer int) {
	t.Helper()
	list := make([]secretbytes.Bytes, len(secrets))
	for i, s := range secrets {
		list[i] = secretbytes.New([]byte(s))
	}
	s, err := New(list)
	if err != nil {
		t.Fatalf("%v", err)
	}
	want := naive(text, secrets...)
	whole := []byte(text)
	found := s.Bytes(whole)
	if string(whole) != want || len(whole) != len(text) {
		t.Fatalf("%q in %q\nbecame %q\nwant   %q", secrets, text, whole, want)
	}
	st := s.Stream()
	streamed, err := readAll(st.Reader(&slow{data: []byte(text), step: step}), buffer)
	if streamed != want || err != nil {
		t.Fatalf("%q streamed in %q\nbecame %q\nwant   %q, %v", secrets, text, streamed, want, err)
	}
	if st.Found() != found || (found > 0) != (want != text) {
		t.Fatalf("%q in %q: found %d in the stream, %d in the whole", secrets, text, st.Found(), found)
	}
	if again := naive(want, secrets...); again != want && !holdsFiller(secrets) {
		t.Fatalf("%q in %q: a form is left in %q", secrets, text, want)
	}
}

// holdsFiller says whether a form has the filler's letter in it, so that
// what was overwritten beside a part of it can look like it.
func holdsFiller(secrets []string) bool {
	for _, s := range secrets {
		for _, p := range parts([]byte(s)) {
			if bytes.IndexByte(bytes.Join(forms(p), nil), Filler) >= 0 {
				return true
			}
		}
	}
	return false
}

func FuzzScrub(f *testing.F) {
	f.Add("secret-value\npass/word+1", "a secret-value%2F c2VjcmV0LXZhbHVl pass\\/word+1", 3, 700)
	f.Add("aaaaaaaa\naaaaaaaab", strings.Repeat("a", 50), 7, 1)
	f.Add("p&ss \"word\"", `p\u0026ss \"word\" p&amp;ss &quot;word&#34; p%26ss+%22word%22`, 1, 5000)
	f.Fuzz(func(t *testing.T, secrets, text string, step, buffer int) {
		if len(secrets) > 100 || len(text) > 1000 {
			return
		}
		list := strings.Split(secrets, "\n")
		compare(t, text, list, max(step%1500, 1), max(buffer%5000, 1))
	})
}
