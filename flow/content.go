package flow

import (
	"strings"
	"unicode/utf8"

	"golang.org/x/net/publicsuffix"

	"ambit"
)

// personsWords reports whether a text is what the person wrote: nearly all of
// its words are, and never are three others in a row. An agent may turn "you"
// into "I"; it may not add a sentence.
func (t *Task) personsWords(text string) bool {
	known := map[string]bool{}
	for _, s := range t.sources {
		if s.label == ambit.Person {
			eachFolded(s.text, func(w string) { known[w] = true })
		}
	}
	words, others, row, longest := 0, 0, 0, 0
	folded := fold(text)
	eachFolded(folded, func(w string) {
		words++
		if known[w] {
			row = 0
			return
		}
		others++
		row++
		longest = max(longest, row)
	})
	return words > 0 && longest < 3 && others*5 <= words && len(linksIn(folded)) == 0
}

func eachFolded(s string, f func(string)) {
	for i := 0; i < len(s); {
		start, end := nextWord(s, i)
		if start < 0 {
			return
		}
		f(s[start:end])
		i = end
	}
}

// linksIn are the links in a folded text, with a scheme or without, and account
// numbers (IBAN, ISO 13616).
func linksIn(folded string) (links []string) {
	for i := 0; i < len(folded); {
		j, dot, colon := i, false, false
		for ; j < len(folded) && !parts(folded[j]); j++ {
			switch folded[j] {
			case '.':
				dot = true
			case ':':
				colon = true
			}
		}
		word := folded[i:j]
		i = j + 1
		// Most words can be none, and it need not be looked at why.
		if !dot && !colon && len(word) < minIBAN {
			continue
		}
		word = strings.Trim(word, ".:?*_~")
		scheme, rest, has := strings.Cut(word, "://")
		switch {
		case has && scheme != "" && rest != "":
			links = append(links, word)
		case isIBAN(word):
			links = append(links, word)
		default:
			if link := hostIn(word); link != "" {
				links = append(links, link)
			}
		}
	}
	return append(links, printedIBANs(folded)...)
}

// parts reports whether a character parts words that could be links.
func parts(c byte) bool {
	switch c {
	case ' ', '"', '\'', '`', '<', '>', '(', ')', '[', ']', '{', '}', '|', ',', ';', '!':
		return true
	}
	return false
}

// hostIn is the link without a scheme in a word, with what stands behind its host;
// "" if there is none. A part of a path is none, nor is a mail address, which is
// for people to read.
func hostIn(word string) string {
	inHost := func(r rune) bool { return isWord(r) || r == '.' || r == '-' }
	for i := 0; i < len(word); {
		n := strings.IndexFunc(word[i:], func(r rune) bool { return !inHost(r) })
		if n < 0 {
			n = len(word) - i
		}
		before, run, after := word[:i], word[i:i+n], word[i+n:]
		path := strings.HasSuffix(before, "/") && !strings.HasSuffix(before, "//") && before != "/"
		if host := strings.Trim(run, ".-_"); !path && !strings.HasSuffix(before, "@") && !strings.HasPrefix(after, "@") && isHost(host) {
			if after != "" && strings.ContainsRune("/:?#", rune(after[0])) {
				return host + after
			}
			return host
		}
		_, skip := utf8.DecodeRuneInString(after)
		i += n + skip
	}
	return ""
}

// isHost reports whether a text is a host name of the internet, by the public
// suffix list.
func isHost(host string) bool {
	i := strings.LastIndexByte(host, '.')
	if i <= 0 || i == len(host)-1 || strings.Contains(host, "..") {
		return false
	}
	_, icann := publicsuffix.PublicSuffix(host)
	return icann
}

// minIBAN is the length of the shortest account number (Norway's).
const minIBAN = 15

// printedIBANs are account numbers in groups, as banks print them. What happens to
// follow one may look like a group of it, so that the check digits decide.
func printedIBANs(text string) (found []string) {
	const most = 34 // characters
	group := func(i int) (start, end int) {
		for start = i; start < len(text) && !alphanumeric(text[start]); start++ {
		}
		for end = start; end < len(text) && alphanumeric(text[end]); end++ {
		}
		return start, end
	}
	for i := 0; i < len(text); {
		start, end := group(i)
		i = end
		if end-start < 4 || !digits(text[start+2:start+4]) {
			continue
		}
		compact := text[start:end]
		for {
			next, until := group(end)
			if next == until || next-end > 2 || len(compact)+until-next > most {
				break
			}
			compact, end = compact+text[next:until], until
			if isIBAN(compact) && checks(compact) {
				found = append(found, text[start:end])
				i = end
				break
			}
		}
	}
	return found
}

func alphanumeric(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

// compact is a printed account number without what is between its groups.
func compact(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= utf8.RuneSelf || !alphanumeric(byte(r)) {
			return -1
		}
		return r
	}, s)
}

// checks reports whether the check digits of an account number are right.
func checks(iban string) bool {
	rest := 0
	for _, c := range []byte(iban[4:] + iban[:4]) {
		if c >= 'a' {
			rest = (rest*100 + int(c-'a') + 10) % 97
		} else {
			rest = (rest*10 + int(c-'0')) % 97
		}
	}
	return rest == 1
}

// isIBAN reports whether a word is an account number in form: two letters, two
// digits and 11 to 30 more letters or digits.
func isIBAN(word string) bool {
	if len(word) < minIBAN || len(word) > 34 || word[0] < 'a' || word[0] > 'z' || word[1] < 'a' || word[1] > 'z' || !digits(word[2:4]) {
		return false
	}
	n := 0
	for i := 4; i < len(word); i++ {
		switch c := word[i]; {
		case c >= '0' && c <= '9':
			n++
		case c < 'a' || c > 'z':
			return false
		}
	}
	return n >= 6
}
