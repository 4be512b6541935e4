package flow

import (
	"strings"

	"golang.org/x/net/publicsuffix"

	"ambit"
)

// personsWords reports whether a text is what the person wrote: nearly all of
// its words are, and never are three others in a row. An agent may turn "you"
// into "I"; it may not add a sentence.
func (t *Task) personsWords(text string) bool {
	known := map[string]bool{}
	for _, s := range t.sources {
		if s.label == ambit.Person || s.label == ambit.Operator {
			eachFolded(s.text, func(w string) { known[w] = true })
		}
	}
	words, others, row, longest := 0, 0, 0, 0
	eachFolded(fold(text), func(w string) {
		words++
		if known[w] {
			row = 0
			return
		}
		others++
		row++
		longest = max(longest, row)
	})
	return words > 0 && longest < 3 && others*5 <= words && len(linksIn(text)) == 0
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

// linksIn are the links in a text, with a scheme or without, and account
// numbers (IBAN, ISO 13616).
func linksIn(text string) (links []string) {
	text = fold(text)
	for _, word := range strings.FieldsFunc(text, func(r rune) bool {
		switch r {
		case ' ', '"', '\'', '`', '<', '>', '(', ')', '[', ']', '{', '}', '|', ',', ';', '!':
			return true
		}
		return false
	}) {
		word = strings.TrimRight(word, ".:?*_~")
		word = strings.TrimLeft(word, ".:?*_~")
		scheme, rest, has := strings.Cut(word, "://")
		switch {
		case has && scheme != "" && rest != "":
			links = append(links, word)
		case strings.ContainsRune(word, '@'): // a mail address, for people to read
		case isHost(word), isIBAN(word):
			links = append(links, word)
		}
	}
	return links
}

// isHost reports whether a word begins with a host name of the internet, by the
// public suffix list.
func isHost(word string) bool {
	host := word
	if i := strings.IndexAny(host, "/:?#"); i >= 0 {
		host = host[:i]
	}
	i := strings.LastIndexByte(host, '.')
	if i <= 0 || i == len(host)-1 || strings.Contains(host, "..") {
		return false
	}
	_, icann := publicsuffix.PublicSuffix(host)
	return icann
}

// isIBAN reports whether a word is an account number in form: two letters, two
// digits and 11 to 30 more letters or digits.
func isIBAN(word string) bool {
	if len(word) < 15 || len(word) > 34 || word[0] < 'a' || word[0] > 'z' || word[1] < 'a' || word[1] > 'z' || !digits(word[2:4]) {
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
