package reference_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"ambit/internal/reference"
	"ambit/internal/secretbytes"
)

func parse(t testing.TB, text string) reference.Shape {
	t.Helper()
	s, err := reference.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func key(seed string) secretbytes.Bytes { return secretbytes.New(bytes.Repeat([]byte(seed), 32)[:32]) }

// shapes have a pattern each, as the service or its SDKs publish it.
func shapes() map[string]string {
	return map[string]string{
		"ghp_{base62:30}{crc32:6}": `^ghp_[0-9A-Za-z]{36}$`,
		"sk_live_{base62:24}":      `^sk_live_[0-9A-Za-z]{24}$`,
		"AKIA{base32:16}":          `^AKIA[A-Z2-7]{16}$`,
		"{base62:40}":              `^[0-9A-Za-z]{40}$`,
		"shpat_{hex:32}":           `^shpat_[0-9a-f]{32}$`,
		"{HEX:32}":                 `^[0-9A-F]{32}$`,
		"xoxb-{digits:12}-{digits:13}-{base62:24}":           `^xoxb-[0-9]{12}-[0-9]{13}-[0-9A-Za-z]{24}$`,
		"sk-ant-api03-{base64url:93}AA":                      `^sk-ant-api03-[0-9A-Za-z_-]{93}AA$`,
		"pat-na1-{hex:8}-{hex:4}-4{hex:3}-a{hex:3}-{hex:12}": `^pat-na1-[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}$`,
		"ref-{base32l:16}@login.invalid":                     `^ref-[a-z2-7]{16}@login\.invalid$`,
		"{base36:25}":                                        `^[0-9a-z]{25}$`,
		"weak:{digits:6}":                                    `^[0-9]{6}$`,
	}
}

func TestDerivedHasTheShape(t *testing.T) {
	for text, pattern := range shapes() {
		s := parse(t, text)
		rapid.Check(t, func(t *rapid.T) {
			seed := rapid.StringN(1, 32, -1).Draw(t, "key")
			label := rapid.SliceOfN(rapid.String(), 0, 4).Draw(t, "label")
			ref := s.Derive(key(seed), label...)
			if !regexp.MustCompile(pattern).MatchString(ref) || !s.Match(ref) || len(ref) != s.Len() {
				t.Fatalf("%s gave %q", text, ref)
			}
			if again := s.Derive(key(seed), label...); again != ref {
				t.Fatalf("%s gave %q and then %q", text, ref, again)
			}
			i := rapid.IntRange(0, len(ref)-1).Draw(t, "at")
			if bad := ref[:i] + "!" + ref[i+1:]; s.Match(bad) || s.Match(ref+"0") || s.Match(ref[1:]) || s.Match("") {
				t.Fatalf("%s matches what is not %q", text, ref)
			}
		})
		if s.String() != text || s.Weak() != strings.HasPrefix(text, "weak:") {
			t.Errorf("%s: %s, weak %v", text, s, s.Weak())
		}
	}
}

// TestVectors pins the derivation. References are in agents' files and
// environments, so it must never change: if this fails, the code is wrong.
func TestVectors(t *testing.T) {
	raw, err := hex.DecodeString("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f")
	if err != nil {
		t.Fatal(err)
	}
	k := secretbytes.New(raw)
	for text, want := range map[string]string{
		"ghp_{base62:30}{crc32:6}": "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",
		"AKIA{base32:16}":          "AKIAHCAZ7N7E6YEWLWTE",
		"{hex:64}":                 "bf14688a8344afb7b156abdab92da881df5d9607e04c6bb388a6b7ed7228dd7d",
		"{HEX:64}":                 "A44666184269992B5CBFE0AD272DA77E0420F126D14D01A5559A27811FE3EBEA",
		"{base36:25}":              "ntfl61vyay8qqcs3ejo3ep2cv",
		"sk_{base64url:60}":        "sk_Ft2nR6XERnIdg869toHo2CvSK0OPHYTfUxkLPq9Lv2IYD_zSt-5MpHFRvOkY",
		"xoxb-{digits:12}-{digits:13}-{base62:24}": "xoxb-600630000621-9433887470963-OGbB8Z7S94jAzRGgFQWvBCxL",
		"ref-{base32l:16}@login.invalid":           "ref-urirrm4qddecuwkr@login.invalid",
		"weak:{digits:6}":                          "328270",
	} {
		if got := parse(t, text).Derive(k, "github", "token"); got != want {
			t.Errorf("%q: %q,", text, got)
		}
	}
}

// TestDerivationIsAsDocumented is a second implementation, from the comment on
// Derive, for an alphabet that drops no byte.
func TestDerivationIsAsDocumented(t *testing.T) {
	const text = "{hex:100}"
	raw := key("documented").Reveal()
	input := ""
	for _, s := range []string{"ambit reference v1", "connection", "field", text} {
		input += string([]byte{0, 0, 0, byte(len(s))}) + s
	}
	var want string
	for counter := byte(1); len(want) < 100; counter++ {
		mac := hmac.New(sha256.New, raw)
		mac.Write(append([]byte{0, 0, 0, counter}, input...))
		for _, b := range mac.Sum(nil) {
			want += fmt.Sprintf("%x", b%16)
		}
	}
	if got := parse(t, text).Derive(key("documented"), "connection", "field"); got != want[:100] {
		t.Errorf("got %s, want %s", got, want[:100])
	}
}

// Tokens that were published as examples after they were revoked, at
// github.com/therootcompany/base62-token.js.
func TestChecksumIsGitHubs(t *testing.T) {
	s := parse(t, "ghp_{base62:30}{crc32:6}")
	for _, token := range []string{
		"ghp_" + "zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ" + "0mLq17",
		"ghp_" + "adE7dp8rHP6gUTuPwxLTZjZdtya3sV" + "0UQzQM",
		"ghp_" + "H3xbiBdlzffNx7Y56iNsPw3joObj7U" + "2nO29h",
		"ghp_" + "Ul6eIUhXOWE75DeLfPndUU0GbceBq8" + "0KIha4",
	} {
		if !s.Match(token) {
			t.Errorf("%s is refused", token)
		}
		for i := 4; i < len(token); i++ {
			other := "0"
			if token[i] == '0' {
				other = "1"
			}
			if bad := token[:i] + other + token[i+1:]; s.Match(bad) {
				t.Errorf("%s is accepted", bad)
			}
		}
	}
}

func TestEverythingCounts(t *testing.T) {
	s := parse(t, "{base62:24}")
	seen := map[string]string{}
	for name, ref := range map[string]string{
		"one":             s.Derive(key("k"), "github", "token"),
		"another key":     s.Derive(key("l"), "github", "token"),
		"another field":   s.Derive(key("k"), "github", "user"),
		"split otherwise": s.Derive(key("k"), "githubtoken"),
		"moved":           s.Derive(key("k"), "githu", "btoken"),
		"an empty one":    s.Derive(key("k"), "github", "token", ""),
		"no label":        s.Derive(key("k")),
		"another order":   s.Derive(key("k"), "token", "github"),
		"another shape":   parse(t, "{base62:25}").Derive(key("k"), "github", "token")[:24],
	} {
		if before, ok := seen[ref]; ok {
			t.Errorf("%s and %s give the same", name, before)
		}
		seen[ref] = name
	}
}

// TestNoCharacterIsMoreLikely counts the characters of many references. With a
// plain remainder the first 8 of base 62 would come a quarter more often.
func TestNoCharacterIsMoreLikely(t *testing.T) {
	s := parse(t, "{base62:500}")
	count := make(map[rune]int)
	const refs = 200
	for i := range refs {
		for _, c := range s.Derive(key("k"), fmt.Sprint(i)) {
			count[c]++
		}
	}
	mean := float64(refs*500) / 62
	for c, n := range count {
		if f := float64(n) / mean; f < 0.9 || f > 1.1 {
			t.Errorf("%c comes %.2f times as often as it should", c, f)
		}
	}
	if len(count) != 62 {
		t.Errorf("%d characters are used", len(count))
	}
}

func TestParseRefuses(t *testing.T) {
	for text, why := range map[string]string{
		"":                           "0 bits",
		"ghp_":                       "0 bits",
		"{hex:15}":                   "60 bits",
		"{digits:6}":                 `start it with "weak:"`,
		"weak:{digits:3}":            "even a weak one",
		"weak:{hex:16}":              "is not weak",
		"weak:weak:{digits:6":        "{alphabet:length}",
		"{hex:32":                    "{alphabet:length}",
		"{hex}":                      "{alphabet:length}",
		"{}":                         "{alphabet:length}",
		"hex:32}":                    "braces",
		"{{hex:32}}":                 "no alphabet \"{hex\"",
		"{base58:32}":                "no alphabet \"base58\"",
		"{hex:0}":                    "from 1 to 512",
		"{hex:-1}":                   "from 1 to 512",
		"{hex:+32}":                  "from 1 to 512",
		"{hex:032}":                  "from 1 to 512",
		"{hex:32 }":                  "from 1 to 512",
		"{hex:513}":                  "from 1 to 512",
		"{hex:99999999999999999999}": "from 1 to 512",
		"{hex:512}{hex:1}":           "513 bytes",
		"{base62:30}{crc32:5}":       "{crc32:6}",
		"{crc32:6}{base62:30}":       "in front of it",
		"a b{hex:32}":                "the character ' '",
		"a\n{hex:32}":                "the character '\\n'",
		"ä{hex:32}":                  "ASCII",
	} {
		s, err := reference.Parse(text)
		if err == nil || !strings.Contains(err.Error(), why) || s.Len() != 0 {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestZeroAndNoKeyGiveNothing(t *testing.T) {
	var zero reference.Shape
	if zero.Derive(key("k"), "a") != "" || zero.Match("") || zero.Match("a") {
		t.Error("the zero shape is good for something")
	}
	s := parse(t, "{hex:32}")
	for _, k := range []secretbytes.Bytes{{}, secretbytes.New(make([]byte, reference.MinKeyLen-1))} {
		if got := s.Derive(k, "a"); got != "" {
			t.Errorf("a key of %d bytes gives %q", k.Len(), got)
		}
	}
	if s.Derive(secretbytes.New(make([]byte, reference.MinKeyLen)), "a") == "" {
		t.Error("the shortest key gives nothing")
	}
}

func FuzzParse(f *testing.F) {
	for text := range shapes() {
		f.Add(text, "0123456789abcdef")
	}
	f.Add("weak:{digits:3}{crc32:6}", "")
	f.Add("{base62:30}{crc32:6}{crc32:6}x", "a")
	f.Fuzz(func(t *testing.T, text, seed string) {
		s, err := reference.Parse(text)
		if err != nil {
			if s.Len() != 0 || s.Match(seed) {
				t.Errorf("%q is refused and yet good for something", text)
			}
			return
		}
		if s.String() != text || s.Len() < 1 || s.Len() > reference.MaxLen {
			t.Errorf("%q became %q with %d bytes", text, s, s.Len())
		}
		ref := s.Derive(key("k"+seed), seed)
		if !s.Match(ref) {
			t.Errorf("%q does not match its own %q", text, ref)
		}
		again, err := reference.Parse(s.String())
		if err != nil || again.Derive(key("k"+seed), seed) != ref {
			t.Errorf("%q parsed again is another: %v", text, err)
		}
		s.Match(seed)
	})
}
