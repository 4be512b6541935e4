package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"ambit/connector"
	"ambit/gate/toolset"
	"ambit/manifest"
	"ambit/sandbox"
)

// ConnectorsDir is the operator's folder of connector files in a home.
func ConnectorsDir(home string) string { return filepath.Join(home, connectorsDir) }

const connectorsDir = "connectors"

// bound is a manifest with its connections.
type bound struct {
	*manifest.Manifest
	bindings []*connector.Binding
	files    []connector.Source // the operator's that it needs
}

// bind reads a manifest, and the connector files that it needs. A file that is
// broken keeps nobody from deploying but those who need it.
func (s *Server) bind(file string, source []byte) (*bound, error) {
	m, err := manifest.Parse(file, source)
	if err != nil || len(m.Connectors) == 0 {
		return &bound{Manifest: m}, err
	}
	shipped, err := connector.Builtin()
	if err != nil {
		return nil, err
	}
	all, err := readConnectors(s.cfg.Connectors)
	if err != nil {
		return nil, err
	}
	needed := slices.DeleteFunc(slices.Clone(all), func(f connector.Source) bool {
		return !slices.ContainsFunc(m.Connectors, func(c manifest.Connection) bool { return f.Name == c.Name+".yaml" })
	})
	known, err := shipped.WithSources(all) // all of them, to say what there is
	if err != nil {
		known, err = shipped.WithSources(needed)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errConnectorFile, err)
	}
	bindings, err := known.Bind(m)
	if err != nil {
		return nil, err
	}
	if problems := ownVariables(m, bindings); problems != nil {
		return nil, problems
	}
	if _, err := toolset.Compile(m); err != nil {
		return nil, problem(http.StatusUnprocessableEntity, err.Error()+"; nothing was changed")
	}
	return &bound{m, bindings, needed}, nil
}

// ownVariables refuses connections that would set what Ambit sets.
func ownVariables(m *manifest.Manifest, bindings []*connector.Binding) error {
	var problems manifest.Errors
	for _, b := range bindings {
		i := slices.IndexFunc(m.Connectors, func(c manifest.Connection) bool { return c.As == b.Name })
		for _, e := range b.Env {
			if sandbox.Owns(e.Name) {
				problems = append(problems, m.Connectors[i].Problem("name", "its connector sets the variable "+e.Name+", which Ambit sets", "rename it in "+b.Connector.File))
			}
		}
	}
	if problems == nil {
		return nil
	}
	return problems
}

// bindStored is bind for a version that is stored, with the files that it has.
func bindStored(file string, source, files []byte) (*bound, error) {
	m, err := manifest.Parse(file, source)
	if err != nil || len(m.Connectors) == 0 {
		return &bound{Manifest: m}, err
	}
	b := &bound{Manifest: m}
	if b.files, err = DecodeConnectors(files); err != nil {
		return nil, err
	}
	known, err := connector.Builtin()
	if err == nil {
		known, err = known.WithSources(b.files)
	}
	if err == nil {
		b.bindings, err = known.Bind(m)
	}
	return b, err
}

// errConnectorFile marks what is wrong with a connector file, which is not the
// manifest's.
var errConnectorFile = errors.New("a connector file is refused")

// encodeConnectors is how connector files are stored with a version.
func encodeConnectors(files []connector.Source) ([]byte, error) {
	if len(files) == 0 {
		return nil, nil
	}
	return json.Marshal(files)
}

// DecodeConnectors reads the connector files that are stored with a version of
// a manifest.
func DecodeConnectors(b []byte) ([]connector.Source, error) {
	if len(b) == 0 {
		return nil, nil
	}
	var files []connector.Source
	if err := json.Unmarshal(b, &files); err != nil {
		return nil, fmt.Errorf("reading the connector files of the version: %w", err)
	}
	return files, nil
}

// readConnectors reads the operator's folder, which need not be there. Who can
// write into it decides where credentials go, so it must be this user's alone. No
// link is followed out of it.
func readConnectors(dir string) ([]connector.Source, error) {
	if dir == "" {
		return nil, nil
	}
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("opening the folder of connectors: %w", err)
	}
	defer func() { _ = root.Close() }()
	files, err := connector.Read(root.FS())
	if err != nil {
		return nil, fmt.Errorf("reading the folder of connectors %s: %w", dir, err)
	}
	names := []string{"."}
	for _, f := range files {
		names = append(names, f.Name)
	}
	for _, name := range names {
		fi, err := root.Stat(name)
		if err != nil {
			return nil, fmt.Errorf("looking at the folder of connectors: %w", err)
		}
		if text := writable(fi); text != "" {
			path := filepath.Join(dir, name)
			return nil, problem(http.StatusUnprocessableEntity, fmt.Sprintf("%s %s, and who can write there can send credentials anywhere: look at what is in it, then run: chown %d %s && chmod go-w %s",
				path, text, os.Geteuid(), path, path))
		}
	}
	return files, nil
}

// writable says who else may write to a file; "" is nobody.
func writable(fi fs.FileInfo) string {
	if perm := fi.Mode().Perm(); perm&0o022 != 0 {
		return fmt.Sprintf("can be written to by others (mode %04o)", perm)
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() && st.Uid != 0 {
		return fmt.Sprintf("belongs to user id %d", st.Uid)
	}
	return ""
}
