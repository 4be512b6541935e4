package openapi

import (
	"slices"
	"strings"
	"unicode"

	"ambit"
)

// guess says what an operation may do: by its method, and by words of its path
// and name. Of two guesses the worse is taken.
func guess(method, path, name string) []ambit.Effect {
	all := []ambit.Effect{}
	add := func(e ambit.Effect) {
		if !slices.Contains(all, e) {
			all = append(all, e)
		}
	}
	words := split(path + " " + name)
	has := func(stems ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool {
			return slices.ContainsFunc(stems, func(s string) bool { return strings.HasPrefix(w, s) })
		})
	}
	if method == "GET" {
		return []ambit.Effect{ambit.EffectRead}
	}
	if has("refund", "pay", "charge", "transfer", "purchase", "invoice", "credit", "withdraw", "checkout", "subscri", "capture", "order") {
		add(ambit.EffectSpend)
	}
	if method == "DELETE" || has("delete", "remove", "destroy", "purge", "cancel", "archive", "revoke") {
		add(ambit.EffectDelete)
	}
	if has("invit", "permission", "role", "member", "grant", "access", "token", "key", "share", "sharing", "collaborator", "user", "password", "webhook") {
		add(ambit.EffectAccess)
	}
	if has("publish", "release", "deploy", "public") {
		add(ambit.EffectPublish)
	}
	if has("send", "message", "mail", "email", "notif", "sms", "comment", "repl", "post", "chat", "call") {
		add(ambit.EffectSend)
	}
	if has("bulk", "batch", "mass") {
		add(ambit.EffectBulk)
	}
	if has("customer", "refund", "ticket", "order", "subscri") {
		add(ambit.EffectCustomer)
	}
	if len(all) == 0 || !slices.Contains(all, ambit.EffectDelete) && method != "DELETE" {
		add(ambit.EffectWrite)
	}
	return all
}

// split takes words apart, also in camelCase, in lower case.
func split(s string) []string {
	var words []string
	word := ""
	before := rune(0)
	for _, r := range s {
		switch {
		case !unicode.IsLetter(r):
			if word != "" {
				words = append(words, word)
			}
			word = ""
		case unicode.IsUpper(r) && unicode.IsLower(before):
			words = append(words, word)
			word = string(unicode.ToLower(r))
		default:
			word += string(unicode.ToLower(r))
		}
		before = r
	}
	if word != "" {
		words = append(words, word)
	}
	return words
}

// clean makes text of one line that is short and has no control characters and
// no placeholders.
func clean(s string, most int) string {
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == 0x2028 || r == 0x2029 || r == unicode.ReplacementChar
	}), " ")
	if len(s) > most {
		cut := most - len("…")
		for cut > 0 && s[cut]&0xC0 == 0x80 {
			cut--
		}
		s = strings.TrimSpace(s[:cut]) + "…"
	}
	return s
}

// slug makes a word of a-z, 0-9 and the separator.
func slug(s, separator string, most int) string {
	words := splitDigits(s)
	out := strings.Join(words, separator)
	for len(out) > most && len(words) > 1 {
		words = words[:len(words)-1]
		out = strings.Join(words, separator)
	}
	if len(out) > most {
		out = out[:most]
	}
	return strings.Trim(out, separator)
}

// splitDigits is split for words that may have digits, and ASCII only. The first
// starts with a letter.
func splitDigits(s string) []string {
	var words []string
	word := ""
	before := rune(0)
	flush := func() {
		if word != "" && (len(words) > 0 || word[0] >= 'a' && word[0] <= 'z') {
			words = append(words, word)
		}
		word = ""
	}
	for _, r := range s {
		lower := unicode.ToLower(r)
		switch {
		case (lower < 'a' || lower > 'z') && (r < '0' || r > '9'):
			flush()
		case unicode.IsUpper(r) && unicode.IsLower(before):
			flush()
			word = string(lower)
		default:
			word += string(lower)
		}
		before = r
	}
	flush()
	return words
}
