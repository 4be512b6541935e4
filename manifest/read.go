package manifest

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"ambit/internal/inert"
)

// decoder reads nodes and collects what is wrong with them. Its methods return
// the default for a node that is not there, and a zero value after a refusal.
type decoder struct {
	file     string
	problems []*Error
}

// node is a value of the document. The zero node is a key that is not there.
type node struct {
	path string
	ast  ast.Node
}

// check judges text. It returns what is wrong with it and what would be right,
// or "" and "".
type check func(string) (text, hint string)

func (n node) given() bool { return n.ast != nil }

func (n node) isList() bool { _, ok := n.ast.(*ast.SequenceNode); return ok }

func (n node) isMapping() bool {
	switch n.ast.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return true
	}
	return false
}

// item is the i-th entry of a list.
func (n node) item(i int) node {
	return node{path: n.path + "[" + strconv.Itoa(i) + "]", ast: n.ast.(*ast.SequenceNode).Values[i]}
}

var plainKey = pattern(`^[A-Za-z0-9_-]{1,60}$`)

// child is the path of a key of n.
func (n node) child(key string) string {
	switch {
	case !plainKey().MatchString(key):
		return n.path + "[" + quote(key) + "]"
	case n.path == "":
		return key
	}
	return n.path + "." + key
}

// place returns line and column, from 1.
func (n node) place() (line, column int) {
	t := n.ast.GetToken()
	if m, ok := n.ast.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		t = m.Values[0].Key.GetToken()
	}
	if t == nil || t.Position == nil {
		return 1, 1
	}
	return t.Position.Line, t.Position.Column
}

// kind says what was found, for messages.
func (n node) kind() string {
	switch v := n.ast.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.StringNode:
		return "the text " + quote(v.Value)
	case *ast.LiteralNode:
		return "a block of text"
	case *ast.BoolNode:
		return quote(v.Token.Value)
	case *ast.NullNode:
		return "nothing"
	}
	return "the number " + quote(n.ast.GetToken().Value)
}

// refuseAt notes a problem. What it says may quote the file: it is made inert
// here, so that no message can be the exception.
func (d *decoder) refuseAt(line, column int, path, text, hint string) {
	d.problems = append(d.problems, &Error{
		File: d.file, Line: line, Column: column, Path: path, Text: inert.Text(text), Hint: inert.Text(hint),
	})
}

func (d *decoder) refuse(n node, text, hint string) {
	line, column := n.place()
	d.refuseAt(line, column, n.path, text, hint)
}

func (d *decoder) wrongKind(n node, want, hint string) {
	d.refuse(n, "needs "+want+", found "+n.kind(), hint)
}

func (d *decoder) missing(n node, key, hint string) {
	line, column := n.place()
	d.refuseAt(line, column, n.child(key), "the key "+quote(key)+" is missing", hint)
}

// notEmpty refuses a list or mapping that is there but has nothing in it: it
// could be read as "any" and as "none".
func (d *decoder) notEmpty(n node) {
	switch v := n.ast.(type) {
	case *ast.SequenceNode:
		if len(v.Values) > 0 {
			return
		}
	case *ast.MappingNode:
		if len(v.Values) > 0 {
			return
		}
	default:
		return
	}
	d.refuse(n, "is empty", "leave the key out for the default, or remove what it belongs to")
}

// pairs visits the keys of a mapping, those that are there twice only once.
func (d *decoder) pairs(n node, visit func(key string, k, v node)) {
	var values []*ast.MappingValueNode
	switch m := n.ast.(type) {
	case *ast.MappingNode:
		values = m.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{m}
	default:
		d.wrongKind(n, `a mapping ("key: value")`, emptyHint)
		return
	}
	seen := make(map[string]int, len(values))
	for _, kv := range values {
		s, ok := kv.Key.(*ast.StringNode)
		if !ok {
			d.wrongKind(node{path: n.path, ast: kv.Key}, "text as a key", "put it in quotes")
			continue
		}
		k := node{path: n.child(s.Value), ast: s}
		line, _ := k.place()
		if first, twice := seen[s.Value]; twice {
			d.refuse(k, fmt.Sprintf("the key %s is here twice; the first is on line %d", quote(s.Value), first), "keep one of them")
			continue
		}
		seen[s.Value] = line
		visit(s.Value, k, node{path: k.path, ast: kv.Value})
	}
}

const emptyHint = "write a value, or leave the key out for its default"

// fields reads a mapping whose keys are known. A node that is not there has
// none.
func (d *decoder) fields(n node, known []string) map[string]node {
	if !n.given() {
		return nil
	}
	f := make(map[string]node, len(known))
	d.pairs(n, func(key string, k, v node) {
		switch {
		case slices.Contains(known, key):
			f[key] = v
		case n.path == "" && slices.Contains(laterKeys, key):
			d.refuse(k, "the key "+quote(key)+" is not available yet in this version of Ambit", "remove it; the keys here are: "+strings.Join(known, ", "))
		default:
			hint := "the keys here are: " + strings.Join(known, ", ")
			if near, ok := nearest(key, known); ok {
				hint = "did you mean " + quote(near) + "?"
				if !f[near].given() {
					f[near] = v // judged as if it were, so that all problems come at once
				}
			}
			d.refuse(k, "unknown key "+quote(key), hint)
		}
	})
	return f
}

// list visits the entries of a list.
func (d *decoder) list(n node, visit func(i int, item node)) {
	switch v := n.ast.(type) {
	case nil:
	case *ast.SequenceNode:
		for i := range v.Values {
			visit(i, n.item(i))
		}
	case *ast.NullNode:
		d.wrongKind(n, "a list", emptyHint)
	case ast.ScalarNode:
		d.wrongKind(n, "a list", "write ["+shorten(n.ast.GetToken().Value)+"]")
	default:
		d.wrongKind(n, "a list", `start each entry with "- "`)
	}
}

// text reads text; a number or a truth value is none.
func (d *decoder) text(n node, fallback string) (string, bool) {
	switch v := n.ast.(type) {
	case nil:
		return fallback, true
	case *ast.StringNode:
		return v.Value, true
	case *ast.LiteralNode:
		return v.Value.Value, true
	case *ast.NullNode:
		d.wrongKind(n, "text", emptyHint)
	case ast.ScalarNode:
		d.wrongKind(n, "text", "put it in quotes: "+quote(n.ast.GetToken().Value))
	default:
		d.wrongKind(n, "text", "")
	}
	return "", false
}

// checked reads text and judges it.
func (d *decoder) checked(n node, fallback string, c check) string {
	s, ok := d.text(n, fallback)
	if !ok || n.given() && !d.complain(n, c, s) {
		return ""
	}
	return s
}

// complain refuses n with what c says about s, and returns true if that is
// nothing.
func (d *decoder) complain(n node, c check, s string) bool {
	text, hint := c(s)
	if text != "" {
		d.refuse(n, text, hint)
	}
	return text == ""
}

// texts reads a list of texts and judges each. The result has as many entries
// as the list.
func (d *decoder) texts(n node, c check) []string {
	var all []string
	d.list(n, func(_ int, item node) { all = append(all, d.checked(item, "", c)) })
	return all
}

// choice reads one of some words; the first is the default.
func (d *decoder) choice(n node, words ...string) string {
	s, ok := d.text(n, words[0])
	if !ok {
		return ""
	}
	if !slices.Contains(words, s) {
		d.refuse(n, quote(s)+" is no value of this key", "write one of: "+strings.Join(words, ", "))
		return ""
	}
	return s
}

func (d *decoder) boolean(n node) bool {
	switch v := n.ast.(type) {
	case nil:
		return false
	case *ast.BoolNode:
		return v.Value
	case *ast.StringNode:
		for word, b := range map[string]string{"yes": "true", "on": "true", "no": "false", "off": "false", "true": "true", "false": "false"} {
			if strings.EqualFold(v.Value, word) {
				d.wrongKind(n, "true or false", "write "+b+" without quotes")
				return false
			}
		}
	}
	d.wrongKind(n, "true or false", "")
	return false
}

var (
	decimal  = pattern(`^(0|[1-9][0-9]{0,17})$`)
	fraction = pattern(`^(0|[1-9][0-9]{0,17})(\.[0-9]{1,9})?$`)
)

// integer reads a whole number in decimal notation.
func (d *decoder) integer(n node, least, most, fallback int) int {
	if !n.given() {
		return fallback
	}
	i, err := strconv.Atoi(n.digits(decimal()))
	if err != nil || i < least || i > most {
		d.wrongKind(n, fmt.Sprintf("a whole number from %d to %d", least, most), n.unquoteHint(decimal()))
		return 0
	}
	return i
}

// number reads a number in decimal notation.
func (d *decoder) number(n node, least, most, fallback float64) float64 {
	if !n.given() {
		return fallback
	}
	x, err := strconv.ParseFloat(n.digits(fraction()), 64)
	if err != nil || x < least || x > most {
		d.wrongKind(n, fmt.Sprintf("a number from %v to %v", least, most), n.unquoteHint(fraction()))
		return 0
	}
	return x
}

// digits returns the number that n is, if it is written as form says, and else
// "".
func (n node) digits(form *regexp.Regexp) string {
	t := n.ast.GetToken()
	switch t.Type {
	case token.IntegerType, token.FloatType:
		return form.FindString(t.Value)
	}
	return ""
}

// unquoteHint is for a number that was written as text.
func (n node) unquoteHint(form *regexp.Regexp) string {
	if s, ok := n.ast.(*ast.StringNode); ok && form.MatchString(s.Value) {
		return "write " + s.Value + " without quotes"
	}
	return ""
}

// nearest finds the word that s may be a slip of.
func nearest(s string, words []string) (string, bool) {
	if utf8.RuneCountInString(s) > 40 {
		return "", false
	}
	best, least := "", 3
	for _, w := range words {
		if n := distance(strings.ToLower(s), strings.ToLower(w)); n < least && n < len(w)-1 {
			best, least = w, n
		}
	}
	return best, best != ""
}

// distance is the number of insertions, deletions and replacements that make b
// of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
