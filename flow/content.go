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
		j, dot, colon, at := i, false, false, false
		for ; j < len(folded) && !parts(folded[j]); j++ {
			switch folded[j] {
			case '.':
				dot = true
			case ':':
				colon = true
			case '@':
				at = true
			}
		}
		word := folded[i:j]
		i = j + 1
		// Most words can be none, and it need not be looked at why.
		if at && !colon || !dot && !colon && len(word) < minIBAN {
			continue
		}
		word = strings.Trim(word, ".:?*_~")
		scheme, rest, has := strings.Cut(word, "://")
		switch {
		case has && scheme != "" && rest != "":
			links = append(links, word)
		case at: // a mail address, for people to read
		case isHost(word), isIBAN(word):
			links = append(links, word)
		}
	}
	return links
}

// parts reports whether a character parts words that could be links.
func parts(c byte) bool {
	switch c {
	case ' ', '"', '\'', '`', '<', '>', '(', ')', '[', ']', '{', '}', '|', ',', ';', '!':
		return true
	}
	return false
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

// minIBAN is the length of the shortest account number (Norway's).
const minIBAN = 15

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
