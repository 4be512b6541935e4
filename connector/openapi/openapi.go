// Package openapi makes a connector file of an OpenAPI document (3.0 and 3.1):
// its hosts, how its credential travels, and a tool for each operation, with
// effects that are guessed.
//
// Guesses are for a person to correct. Each tool is marked "reviewed: false",
// with which [connector.Catalog.Bind] refuses it. What the connector format
// cannot express is left out and reported, and never widened: an operation whose
// required parts cannot be written makes no tool.
//
// Trust: the document is hostile. Its size, its nesting and what references
// expand to are bounded, references lead nowhere but into the document itself,
// YAML has no anchors, and every text of it is quoted, cut and without control
// characters. What comes out is read again as a connector file before it is
// returned. Whoever writes the document chooses the hosts and the words that a
// person reviews.
package openapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/token"

	"ambit/connector"
)

// MaxSize is the largest document in bytes: 8 MiB.
const MaxSize = 8 << 20

// The bounds of a document.
const (
	maxDepth = 64     // nesting
	maxRefs  = 16     // references behind each other
	maxKeys  = 200000 // tokens of YAML, which its parser is slow with
)

// Options say what is imported.
type Options struct {
	Name string   // of the connector; "" makes one of the document's title
	Host string   // in place of the document's servers; "" for those
	Only []string // words of which a path, an operation's name or a tag must have one; nil for all
}

// Imported is a connector file, and what a person must know of it.
type Imported struct {
	Name    string               `json:"name"`
	File    []byte               `json:"-"` // YAML
	Tools   []connector.ToolSpec `json:"tools"`
	Left    []Left               `json:"left"`    // operations that make no tool
	Remarks []string             `json:"remarks"` // what to look at
}

// Left is an operation that makes no tool.
type Left struct {
	Operation string `json:"operation"` // "POST /v1/files"
	Reason    string `json:"reason"`
}

// Import reads a document in JSON or YAML.
func Import(src []byte, o Options) (*Imported, error) {
	doc, err := read(src)
	if err != nil {
		return nil, err
	}
	version, _ := doc["openapi"].(string)
	if !strings.HasPrefix(version, "3.0") && !strings.HasPrefix(version, "3.1") {
		return nil, fmt.Errorf("the document is not OpenAPI 3.0 or 3.1: it has openapi: %q; convert it first", clean(version, 20))
	}
	im := &importer{doc: doc, options: o, out: &Imported{Left: []Left{}, Remarks: []string{}}, names: map[string]bool{}}
	if err := im.run(); err != nil {
		return nil, err
	}
	c, err := connector.Check(im.out.Name+".yaml", im.out.File)
	if err != nil {
		return nil, fmt.Errorf("what was made of the document is no connector file: %w", err)
	}
	im.out.Tools = c.Tools()
	return im.out, nil
}

// read decodes the document into objects, lists and values.
func read(src []byte) (map[string]any, error) {
	if len(src) > MaxSize {
		return nil, fmt.Errorf("the document has more than %d bytes: import a part of it", MaxSize)
	}
	src = bytes.TrimPrefix(src, []byte("\xEF\xBB\xBF"))
	if trimmed := bytes.TrimLeft(src, " \t\r\n"); len(trimmed) > 0 && trimmed[0] != '{' {
		var err error
		if src, err = fromYAML(src); err != nil {
			return nil, err
		}
	}
	d := json.NewDecoder(bytes.NewReader(src))
	d.UseNumber()
	var doc map[string]any
	if err := d.Decode(&doc); err != nil {
		return nil, fmt.Errorf("reading the document: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the document")
	}
	if depth(doc, 0) > maxDepth {
		return nil, fmt.Errorf("the document is nested more than %d deep", maxDepth)
	}
	return doc, nil
}

func depth(v any, n int) int {
	if n > maxDepth {
		return n
	}
	most := n
	switch v := v.(type) {
	case map[string]any:
		for _, x := range v {
			most = max(most, depth(x, n+1))
		}
	case []any:
		for _, x := range v {
			most = max(most, depth(x, n+1))
		}
	}
	return most
}

// fromYAML makes JSON of YAML that has no anchors: an alias could make a
// document grow without end.
func fromYAML(src []byte) (out []byte, err error) {
	defer func() {
		if x := recover(); x != nil {
			out, err = nil, errors.New("reading the document: it is YAML that cannot be parsed")
		}
	}()
	tokens := lexer.Tokenize(string(src))
	if len(tokens) > maxKeys {
		return nil, errors.New("the document is too large in YAML: convert it to JSON")
	}
	nesting := 0
	for _, t := range tokens {
		switch t.Type {
		case token.AnchorType, token.AliasType, token.MergeKeyType, token.TagType:
			return nil, fmt.Errorf("line %d of the document has an anchor, an alias or a tag: write it out", t.Position.Line)
		case token.MappingStartType, token.SequenceStartType:
			nesting++
		case token.MappingEndType, token.SequenceEndType:
			nesting--
		}
		if nesting > maxDepth || t.Position.IndentNum > 16*maxDepth {
			return nil, fmt.Errorf("the document is nested more than %d deep", maxDepth)
		}
	}
	out, err = yaml.YAMLToJSON(src)
	if err != nil {
		return nil, errors.New("reading the document: it is not YAML: " + clean(err.Error(), 200))
	}
	return out, nil
}

// resolve follows references into the document. It returns nil for what is not
// there, leads out, or goes in a circle.
func (im *importer) resolve(v any) map[string]any {
	for range maxRefs {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		ref, ok := m["$ref"].(string)
		if !ok {
			return m
		}
		pointer, ok := strings.CutPrefix(ref, "#/")
		if !ok {
			return nil
		}
		v = any(im.doc)
		for _, t := range strings.Split(pointer, "/") {
			m, ok := v.(map[string]any)
			if !ok {
				return nil
			}
			v = m[strings.ReplaceAll(strings.ReplaceAll(t, "~1", "/"), "~0", "~")]
		}
	}
	return nil
}
