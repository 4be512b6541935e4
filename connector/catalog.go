package connector

import (
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
)

//go:embed catalog/*.yaml
var shipped embed.FS

// maxFiles is how many files an operator's folder may have.
const maxFiles = 256

// Catalog is a set of connectors. It does not change: With returns another one.
type Catalog struct {
	byName  map[string]*Connector
	sources []Source
}

// Source is a connector file of the operator's.
type Source struct {
	Name string `json:"name"` // of the file, as in "acme.yaml"
	Text []byte `json:"text"`
}

// Builtin returns the connectors that Ambit ships. They are read once: nothing
// changes a catalog.
func Builtin() (*Catalog, error) { return builtinOnce() }

var builtinOnce = sync.OnceValues(readBuiltin)

func readBuiltin() (*Catalog, error) {
	dir, err := fs.Sub(shipped, "catalog")
	if err != nil {
		return nil, fmt.Errorf("reading the connectors that are shipped: %w", err)
	}
	sources, err := Read(dir)
	if err != nil {
		return nil, fmt.Errorf("reading the connectors that are shipped: %w", err)
	}
	c := &Catalog{byName: map[string]*Connector{}}
	for _, s := range sources {
		p, err := parse(s.Name, s.Text)
		if err != nil {
			return nil, fmt.Errorf("reading the connectors that are shipped: %w", err)
		}
		p.Builtin = true
		c.byName[p.Name] = p
	}
	return c, nil
}

// With returns the catalog with the operator's connectors added: every file of
// fsys that is called NAME.yaml; other files and folders are not looked at. The
// error has every problem of every file, and is or wraps [Errors].
func (c *Catalog) With(fsys fs.FS) (*Catalog, error) {
	sources, err := Read(fsys)
	if err != nil {
		return nil, fmt.Errorf("reading the folder of connectors: %w", err)
	}
	return c.WithSources(sources)
}

// WithSources is With for files that were read already.
func (c *Catalog) WithSources(sources []Source) (*Catalog, error) {
	all := &Catalog{byName: maps.Clone(c.byName), sources: slices.Concat(c.sources, sources)}
	var problems []error
	for _, s := range sources {
		p, err := parse(s.Name, s.Text)
		if err == nil {
			err = all.add(p)
		}
		if err != nil {
			problems = append(problems, err)
		}
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return all, nil
}

func (c *Catalog) add(p *Connector) error {
	if p.File != p.Name+".yaml" {
		return fmt.Errorf("%s: the connector is called %q: rename the file to %s.yaml, or the connector", p.File, p.Name, p.Name)
	}
	switch other := c.byName[p.Name]; {
	case other != nil && !other.Builtin:
		return fmt.Errorf("%s: there is a connector %q already, in %s: give one of them another name", p.File, p.Name, other.File)
	case other != nil && !p.replaces:
		return fmt.Errorf("%s: Ambit ships a connector %q: write \"replaces: true\" if this one is to take its place, or give it another name", p.File, p.Name)
	case other == nil && p.replaces:
		return fmt.Errorf("%s: replaces nothing: Ambit ships no connector %q; remove \"replaces: true\"", p.File, p.Name)
	}
	c.byName[p.Name] = p
	return nil
}

// Sources returns the operator's files, to be given to WithSources elsewhere.
func (c *Catalog) Sources() []Source { return slices.Clone(c.sources) }

// Get returns the connector with the name, or nil.
func (c *Catalog) Get(name string) *Connector { return c.byName[name] }

// List returns all connectors, by name.
func (c *Catalog) List() []*Connector {
	var all []*Connector
	for _, name := range c.names() {
		all = append(all, c.byName[name])
	}
	return all
}

func (c *Catalog) names() []string { return slices.Sorted(maps.Keys(c.byName)) }

// Read reads the connector files of a folder, those that [Catalog.With] is
// about, without parsing them.
func Read(fsys fs.FS) ([]Source, error) {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, err
	}
	var all []Source
	for _, e := range entries {
		if e.IsDir() || path.Ext(e.Name()) != ".yaml" || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if len(all) == maxFiles {
			return nil, fmt.Errorf("it has more than %d files", maxFiles)
		}
		text, err := readFile(fsys, e.Name())
		if err != nil {
			return nil, err
		}
		all = append(all, Source{Name: e.Name(), Text: text})
	}
	return all, nil
}

// readFile reads no more than parse needs to see that a file is too large.
func readFile(fsys fs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was read only
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	return io.ReadAll(io.LimitReader(f, MaxSize+1))
}
