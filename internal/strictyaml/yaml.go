package strictyaml

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// The bounds that keep the YAML parser, which recurses on nesting and on the
// keys of a mapping and moves all later tokens for an empty value, from a stack
// overflow and from quadratic time. No file that somebody writes comes near them.
const (
	maxDepth = 16
	maxKeys  = 1024
	maxEmpty = 256
)

// Language is what is special about one kind of file.
type Language struct {
	Noun     string   // "manifest", for messages
	Start    string   // what to write into an empty file: `a manifest starts with "ambit: v1"`
	MaxSize  int      // bytes, checked before anything is parsed
	TooLarge string   // what to do about a file that is larger
	Second   string   // what to do about a second document
	Later    []string // keys of the root that this version does not read yet
}

// Decode reads src, which is called file in messages. The node is the root of
// the document; it is not given if there is none to read, and then the decoder
// has the reasons.
func Decode(l *Language, file string, src []byte) (*Decoder, Node) {
	d := &Decoder{language: l, file: file, lines: strings.Split(string(src), "\n")}
	root, _ := d.document(src)
	return d, root
}

// document checks the bytes, then the tokens, then parses. It returns false if
// there is nothing to decode; then it has said why.
func (d *Decoder) document(src []byte) (Node, bool) {
	if len(src) > d.language.MaxSize {
		d.RefuseAt(1, 1, "", fmt.Sprintf("the file has %d bytes, more than the %d (%s) that a %s may have", len(src), d.language.MaxSize, size(d.language.MaxSize), d.language.Noun),
			d.language.TooLarge)
		return Node{}, false
	}
	text, ok := d.characters(strings.TrimPrefix(string(src), "\uFEFF"))
	if !ok {
		return Node{}, false
	}
	tokens := lexer.Tokenize(text)
	if bad := tokens.InvalidToken(); bad != nil {
		d.RefuseAt(bad.Position.Line, bad.Position.Column, "", notYAML+bad.Error, tabHint(bad.Error))
		return Node{}, false
	}
	s := shape{d: d}
	if !s.check(tokens) {
		return Node{}, false
	}
	file, err := parse(tokens)
	if err != nil {
		d.syntax(err)
		return Node{}, false
	}
	for _, doc := range file.Docs {
		if doc.Body != nil {
			return Node{ast: doc.Body}, true
		}
	}
	d.RefuseAt(1, 1, "", "the file is empty", d.language.Start)
	return Node{}, false
}

func size(n int) string {
	if n%(1<<20) == 0 {
		return strconv.Itoa(n>>20) + " MiB"
	}
	return strconv.Itoa(n>>10) + " KiB"
}

// characters refuses what has no place in a text file that people review:
// bytes that are not UTF-8, control characters, and the marks that make a line
// read differently from what it says (CVE-2021-42574).
func (d *Decoder) characters(s string) (string, bool) {
	line, column := 1, 0
	for i, r := range s {
		column++
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			d.RefuseAt(line, column, "", fmt.Sprintf("byte 0x%02x is not UTF-8 text", s[i]), "save the file as UTF-8")
			return "", false
		case r == '\n':
			line, column = line+1, 0
		case r == '\t' || r == '\r' && strings.HasPrefix(s[i+1:], "\n"):
		case Invisible(r):
			d.RefuseAt(line, column, "", fmt.Sprintf("character %U may not be in a %s", r, d.language.Noun), "remove it; it changes how the file is shown")
			return "", false
		}
	}
	return s, true
}

// Invisible reports whether r is a control character, a mark that turns the
// direction of writing, or a line break that is none in YAML.
func Invisible(r rune) bool {
	return unicode.IsControl(r) || r == 0x2028 || r == 0x2029 || r == 0xFEFF ||
		r == 0x061C || r == 0x200E || r == 0x200F || r >= 0x202A && r <= 0x202E || r >= 0x2066 && r <= 0x2069
}

// parse runs the YAML parser, and turns a panic of it into an error.
func parse(tokens token.Tokens) (file *ast.File, err error) {
	defer func() {
		if x := recover(); x != nil {
			file, err = nil, errors.New("the YAML parser cannot read it")
		}
	}()
	return parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
}

const notYAML = "this is not valid YAML: "

func tabHint(message string) string {
	if strings.Contains(message, `'\t'`) {
		return "indent with spaces"
	}
	return ""
}

func (d *Decoder) syntax(err error) {
	var se *yaml.SyntaxError
	if errors.As(err, &se) && se.GetToken() != nil && se.GetToken().Position != nil {
		p := se.GetToken().Position
		d.RefuseAt(p.Line, p.Column, "", notYAML+se.GetMessage(), tabHint(se.GetMessage()))
		return
	}
	d.RefuseAt(1, 1, "", notYAML+err.Error(), "")
}

// shape walks the tokens once, before the parser sees them. It refuses what the
// language of manifests does not have and what would make the parser slow.
type shape struct {
	d       *Decoder
	stack   []frame
	empty   int
	content bool // a token of a document was seen
	ended   bool // "..." was seen
	prev    *token.Token
	key     int // the column of the last key
}

// frame is one open block or flow collection.
type frame struct {
	flow    token.Type // MappingStartType, SequenceStartType; 0 for a block
	column  int        // of a block
	entries int        // keys of a block mapping, commas of a flow collection
	filled  bool       // of a flow mapping: there is something since the last comma
	pairs   int        // of a flow collection: colons since the last comma
}

func (s *shape) check(tokens token.Tokens) bool {
	for i, t := range tokens {
		if t.Type == token.CommentType {
			continue
		}
		text, hint, stop := s.forbidden(t, tokens[i+1:])
		if text == "" {
			text, hint = s.nest(t)
			stop = text != ""
		}
		if text != "" {
			s.d.RefuseAt(t.Position.Line, t.Position.Column, "", text, hint)
		}
		if stop {
			return false
		}
		s.prev = t
	}
	if !s.content {
		s.d.RefuseAt(1, 1, "", "the file is empty", s.d.language.Start)
	}
	return len(s.d.problems) == 0
}

// forbidden names what the language does not have. stop says that the rest makes no
// sense any more.
func (s *shape) forbidden(t *token.Token, rest token.Tokens) (text, hint string, stop bool) {
	switch t.Type {
	case token.DocumentHeaderType:
		if s.content || s.ended {
			return "a second document starts here", s.d.language.Second, true
		}
		return "", "", false
	case token.DocumentEndType:
		s.ended = true
		return "", "", false
	}
	if s.ended {
		return "there is text after the end of the document", "remove it, or remove the line with ...", true
	}
	s.content = true
	switch t.Type {
	case token.AliasType:
		if len(rest) > 0 && strings.HasPrefix(rest[0].Value, ".") {
			return "a value that starts with * is a YAML alias, and " + s.d.language.Noun + "s have none", "for a wildcard write it in quotes: " + Quote("*"+rest[0].Value), false
		}
		return "aliases (*name) are not allowed", "write the value out; if it is meant as text, put it in quotes", false
	case token.AnchorType:
		return "anchors (&name) are not allowed", "write the value out; if it is meant as text, put it in quotes", false
	case token.TagType:
		return "tags (!name) are not allowed", "remove it; if it is meant as text, put it in quotes", false
	case token.MergeKeyType:
		return "merge keys (<<) are not allowed", "write the keys out", false
	case token.MappingKeyType:
		return "keys with ? are not allowed", `write "key: value"`, true
	case token.DirectiveType:
		return "directives (%) are not allowed", "remove the line", true
	}
	return "", "", false
}

// nest follows the nesting and counts what the parser is slow on.
func (s *shape) nest(t *token.Token) (text, hint string) {
	s.countEmpty(t)
	top := s.top()
	switch t.Type {
	case token.MappingStartType, token.SequenceStartType:
		if top.flow != 0 {
			top.filled = true
		}
		s.stack = append(s.stack, frame{flow: t.Type})
	case token.MappingEndType, token.SequenceEndType:
		if top.flow != 0 {
			s.stack = s.stack[:len(s.stack)-1]
		}
	case token.CollectEntryType:
		top.entries++
		top.filled, top.pairs = false, 0
	case token.MappingValueType:
		if s.prev != nil {
			s.key = s.prev.Position.Column
		}
		if top.flow != 0 {
			top.pairs++
		} else {
			s.block(s.key).entries++
		}
	case token.SequenceEntryType:
		if top.flow == 0 {
			s.block(t.Position.Column)
		}
	default:
		top.filled = true
	}
	top = s.top()
	switch {
	case len(s.stack) > maxDepth:
		return fmt.Sprintf("nested more than %d deep", maxDepth), "no key of a " + s.d.language.Noun + " is that deep"
	case top.flow != token.SequenceStartType && top.entries > maxKeys || top.pairs > maxKeys:
		return fmt.Sprintf("more than %d keys in one mapping", maxKeys), "use a list"
	case s.empty > maxEmpty:
		return fmt.Sprintf("more than %d keys or list entries have no value", maxEmpty), "remove them"
	}
	return "", ""
}

// top is the innermost open collection; a throw-away one if there is none.
func (s *shape) top() *frame {
	if len(s.stack) == 0 {
		return &frame{}
	}
	return &s.stack[len(s.stack)-1]
}

// block makes the block collection at column the innermost one.
func (s *shape) block(column int) *frame {
	for len(s.stack) > 0 && s.top().column > column {
		s.stack = s.stack[:len(s.stack)-1]
	}
	if len(s.stack) == 0 || s.top().column < column {
		s.stack = append(s.stack, frame{column: column})
	}
	return s.top()
}

// countEmpty counts the values that are not there: before t, where t shows that
// the key or the dash before it has none.
func (s *shape) countEmpty(t *token.Token) {
	top := s.top()
	closes := t.Type == token.CollectEntryType || t.Type == token.MappingEndType || t.Type == token.SequenceEndType
	if closes && top.flow == token.MappingStartType && top.filled && top.pairs == 0 {
		s.empty++ // {key}
		return
	}
	if s.prev == nil {
		return
	}
	column, later := t.Position.Column, t.Position.Line > s.prev.Position.Line
	switch s.prev.Type {
	case token.MappingValueType:
		same := column == s.key && t.Type != token.SequenceEntryType
		if closes || top.flow != token.MappingStartType && later && (column < s.key || same) {
			s.empty++
		}
	case token.SequenceEntryType:
		if later && column <= s.prev.Position.Column {
			s.empty++
		}
	}
}
