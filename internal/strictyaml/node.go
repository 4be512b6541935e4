package strictyaml

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"ambit/internal/inert"
)

// Decoder reads nodes and collects what is wrong with them. Its methods return
// the default for a node that is not there, and a zero value after a refusal.
type Decoder struct {
	language *Language
	file     string
	lines    []string // of the source
	problems []*Error
}

// Err returns every problem that was found, as [Errors]; nil if there is none.
func (d *Decoder) Err() error {
	if len(d.problems) == 0 {
		return nil
	}
	return finish(d.problems, d.lines)
}

// At returns an Error for n that says nothing yet, for what is found wrong with
// it later: its Text and Hint are to be filled in, through [Error.Say].
func (d *Decoder) At(n Node) Error {
	line, column := n.Place()
	e := Error{File: d.file, Line: line, Column: column, Path: n.path}
	e.show(d.lines)
	return e
}

// Node is a value of the document. The zero Node is a key that is not there.
type Node struct {
	path string
	ast  ast.Node
}

// Check judges text. It returns what is wrong with it and what would be right,
// or "" and "".
type Check func(string) (text, hint string)

// Given says whether the key is there.
func (n Node) Given() bool { return n.ast != nil }

// IsList says whether n is a list.
func (n Node) IsList() bool { _, ok := n.ast.(*ast.SequenceNode); return ok }

// IsMapping says whether n is a mapping.
func (n Node) IsMapping() bool {
	switch n.ast.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return true
	}
	return false
}

// Item is the i-th entry of a list.
func (n Node) Item(i int) Node {
	return Node{path: n.path + "[" + strconv.Itoa(i) + "]", ast: n.ast.(*ast.SequenceNode).Values[i]}
}

var plainKey = pattern(`^[A-Za-z0-9_-]{1,60}$`)

// child is the path of a key of n.
func (n Node) child(key string) string {
	switch {
	case !plainKey().MatchString(key):
		return n.path + "[" + Quote(key) + "]"
	case n.path == "":
		return key
	}
	return n.path + "." + key
}

// Place returns line and column, from 1. A key that is not there is at the
// start of the file.
func (n Node) Place() (line, column int) {
	if !n.Given() {
		return 1, 1
	}
	t := n.ast.GetToken()
	if m, ok := n.ast.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		t = m.Values[0].Key.GetToken()
	}
	if t == nil || t.Position == nil {
		return 1, 1
	}
	return t.Position.Line, t.Position.Column
}

// Kind says what was found, for messages.
func (n Node) Kind() string {
	switch v := n.ast.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.StringNode:
		return "the text " + Quote(v.Value)
	case *ast.LiteralNode:
		return "a block of text"
	case *ast.BoolNode:
		return Quote(v.Token.Value)
	case *ast.NullNode:
		return "nothing"
	}
	return "the number " + Quote(n.ast.GetToken().Value)
}

// RefuseAt notes a problem. What it says may quote the file: it is made inert
// here, so that no message can be the exception.
func (d *Decoder) RefuseAt(line, column int, path, text, hint string) {
	d.problems = append(d.problems, &Error{
		File: d.file, Line: line, Column: column, Path: path, Text: inert.Text(text), Hint: inert.Text(hint),
	})
}

// Refuse notes a problem with n.
func (d *Decoder) Refuse(n Node, text, hint string) {
	line, column := n.Place()
	d.RefuseAt(line, column, n.path, text, hint)
}

// WrongKind refuses n because it is not what is wanted: "a list".
func (d *Decoder) WrongKind(n Node, want, hint string) {
	d.Refuse(n, "needs "+want+", found "+n.Kind(), hint)
}

// Missing refuses the mapping n because it has no such key.
func (d *Decoder) Missing(n Node, key, hint string) {
	line, column := n.Place()
	d.RefuseAt(line, column, n.child(key), "the key "+Quote(key)+" is missing", hint)
}

// NotEmpty refuses a list or mapping that is there but has nothing in it: it
// could be read as "any" and as "none".
func (d *Decoder) NotEmpty(n Node) {
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
	d.Refuse(n, "is empty", "leave the key out for the default, or remove what it belongs to")
}

// Pairs visits the keys of a mapping, those that are there twice only once.
func (d *Decoder) Pairs(n Node, visit func(key string, k, v Node)) {
	var values []*ast.MappingValueNode
	switch m := n.ast.(type) {
	case *ast.MappingNode:
		values = m.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{m}
	default:
		d.WrongKind(n, `a mapping ("key: value")`, emptyHint)
		return
	}
	seen := make(map[string]int, len(values))
	for _, kv := range values {
		s, ok := kv.Key.(*ast.StringNode)
		if !ok {
			d.WrongKind(Node{path: n.path, ast: kv.Key}, "text as a key", "put it in quotes")
			continue
		}
		k := Node{path: n.child(s.Value), ast: s}
		line, _ := k.Place()
		if first, twice := seen[s.Value]; twice {
			d.Refuse(k, fmt.Sprintf("the key %s is here twice; the first is on line %d", Quote(s.Value), first), "keep one of them")
			continue
		}
		seen[s.Value] = line
		visit(s.Value, k, Node{path: k.path, ast: kv.Value})
	}
}

const emptyHint = "write a value, or leave the key out for its default"

// Fields reads a mapping whose keys are known. A node that is not there has
// none.
func (d *Decoder) Fields(n Node, known []string) map[string]Node {
	if !n.Given() {
		return nil
	}
	f := make(map[string]Node, len(known))
	d.Pairs(n, func(key string, k, v Node) {
		switch {
		case slices.Contains(known, key):
			f[key] = v
		case n.path == "" && slices.Contains(d.language.Later, key):
			d.Refuse(k, "the key "+Quote(key)+" is not available yet in this version of Ambit", "remove it; the keys here are: "+strings.Join(known, ", "))
		default:
			hint := "the keys here are: " + strings.Join(known, ", ")
			if near, ok := Nearest(key, known); ok {
				hint = "did you mean " + Quote(near) + "?"
				if !f[near].Given() {
					f[near] = v // judged as if it were, so that all problems come at once
				}
			}
			d.Refuse(k, "unknown key "+Quote(key), hint)
		}
	})
	return f
}

// List visits the entries of a list.
func (d *Decoder) List(n Node, visit func(i int, item Node)) {
	switch v := n.ast.(type) {
	case nil:
	case *ast.SequenceNode:
		for i := range v.Values {
			visit(i, n.Item(i))
		}
	case *ast.NullNode:
		d.WrongKind(n, "a list", emptyHint)
	case ast.ScalarNode:
		d.WrongKind(n, "a list", "write ["+Shorten(n.ast.GetToken().Value)+"]")
	default:
		d.WrongKind(n, "a list", `start each entry with "- "`)
	}
}

// Text reads text; a number or a truth value is none.
func (d *Decoder) Text(n Node, fallback string) (string, bool) {
	switch v := n.ast.(type) {
	case nil:
		return fallback, true
	case *ast.StringNode:
		return v.Value, true
	case *ast.LiteralNode:
		return v.Value.Value, true
	case *ast.NullNode:
		d.WrongKind(n, "text", emptyHint)
	case ast.ScalarNode:
		d.WrongKind(n, "text", "put it in quotes: "+Quote(n.ast.GetToken().Value))
	default:
		d.WrongKind(n, "text", "")
	}
	return "", false
}

// Checked reads text and judges it.
func (d *Decoder) Checked(n Node, fallback string, c Check) string {
	s, ok := d.Text(n, fallback)
	if !ok || n.Given() && !d.Complain(n, c, s) {
		return ""
	}
	return s
}

// Complain refuses n with what c says about s, and returns true if that is
// nothing.
func (d *Decoder) Complain(n Node, c Check, s string) bool {
	text, hint := c(s)
	if text != "" {
		d.Refuse(n, text, hint)
	}
	return text == ""
}

// Texts reads a list of texts and judges each. The result has as many entries
// as the list.
func (d *Decoder) Texts(n Node, c Check) []string {
	var all []string
	d.List(n, func(_ int, item Node) { all = append(all, d.Checked(item, "", c)) })
	return all
}

// Choice reads one of some words; the first is the default.
func (d *Decoder) Choice(n Node, words ...string) string {
	s, ok := d.Text(n, words[0])
	if !ok {
		return ""
	}
	if !slices.Contains(words, s) {
		d.Refuse(n, Quote(s)+" is no value of this key", "write one of: "+strings.Join(words, ", "))
		return ""
	}
	return s
}

// Boolean reads true or false; a key that is not there is false.
func (d *Decoder) Boolean(n Node) bool {
	switch v := n.ast.(type) {
	case nil:
		return false
	case *ast.BoolNode:
		return v.Value
	case *ast.StringNode:
		for word, b := range map[string]string{"yes": "true", "on": "true", "no": "false", "off": "false", "true": "true", "false": "false"} {
			if strings.EqualFold(v.Value, word) {
				d.WrongKind(n, "true or false", "write "+b+" without quotes")
				return false
			}
		}
	}
	d.WrongKind(n, "true or false", "")
	return false
}

var (
	decimal  = pattern(`^(0|[1-9][0-9]{0,17})$`)
	fraction = pattern(`^(0|[1-9][0-9]{0,17})(\.[0-9]{1,9})?$`)
)

// pattern compiles a regular expression when it is first used: every start of
// the program would pay for all of them otherwise.
func pattern(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}

// Whole returns the whole number that n is, as it is written, or "".
func (n Node) Whole() string { return n.digits(decimal()) }

// Decimal returns the number that n is, as it is written, or "".
func (n Node) Decimal() string { return n.digits(fraction()) }

// Scalar returns the text that n is, if it is written on one line.
func (n Node) Scalar() (string, bool) {
	s, ok := n.ast.(*ast.StringNode)
	if !ok {
		return "", false
	}
	return s.Value, true
}

// Integer reads a whole number in decimal notation.
func (d *Decoder) Integer(n Node, least, most, fallback int) int {
	if !n.Given() {
		return fallback
	}
	i, err := strconv.Atoi(n.Whole())
	if err != nil || i < least || i > most {
		d.WrongKind(n, fmt.Sprintf("a whole number from %d to %d", least, most), n.unquoteHint(decimal()))
		return 0
	}
	return i
}

// Number reads a number in decimal notation.
func (d *Decoder) Number(n Node, least, most, fallback float64) float64 {
	if !n.Given() {
		return fallback
	}
	x, err := strconv.ParseFloat(n.Decimal(), 64)
	if err != nil || x < least || x > most {
		d.WrongKind(n, fmt.Sprintf("a number from %v to %v", least, most), n.unquoteHint(fraction()))
		return 0
	}
	return x
}

// digits returns the number that n is, if it is written as form says, and else
// "".
func (n Node) digits(form *regexp.Regexp) string {
	t := n.ast.GetToken()
	switch t.Type {
	case token.IntegerType, token.FloatType:
		return form.FindString(t.Value)
	}
	return ""
}

// unquoteHint is for a number that was written as text.
func (n Node) unquoteHint(form *regexp.Regexp) string {
	if s, ok := n.ast.(*ast.StringNode); ok && form.MatchString(s.Value) {
		return "write " + s.Value + " without quotes"
	}
	return ""
}

// Nearest finds the word that s may be a slip of.
func Nearest(s string, words []string) (string, bool) {
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

// Within returns the place in the file of a line and column, from 1, of the
// text that n is: for the problems of another language that is written in it.
func (d *Decoder) Within(n Node, line, column int) (int, int) {
	first, at := n.Place()
	v, ok := n.ast.(*ast.LiteralNode)
	if !ok {
		return first, at
	}
	if t := v.Start; t != nil && t.Position != nil {
		first = t.Position.Line
	}
	line += first
	if line > len(d.lines) {
		return len(d.lines), 1
	}
	for _, s := range d.lines[first:] {
		if text := strings.TrimLeft(s, " "); text != "" {
			return line, column + len(s) - len(text)
		}
	}
	return line, column
}

// Block reports whether n is text in lines that keep their line breaks (|).
func (n Node) Block() bool {
	v, ok := n.ast.(*ast.LiteralNode)
	return ok && v.Start != nil && strings.HasPrefix(v.Start.Value, "|")
}

// Truth returns the truth value that n is.
func (n Node) Truth() (value, ok bool) {
	v, ok := n.ast.(*ast.BoolNode)
	return ok && v.Value, ok
}
