package ambit_test

import (
	"fmt"
	"go/ast"
	"go/build/constraint"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// module is the import path of the root package.
const module = "ambit"

// program is the row of every package main, wherever its folder is: nothing
// can import it.
const program = 8

// layers is the table of CONTRIBUTING.md: a package imports only rows
// above its own. Folders below a room belong to the room.
func layers() map[string]int {
	rows := [][]string{
		0: {".", "internal"},
		1: {"manifest", "policy", "scan", "audit", "kek"},
		2: {"agent", "access", "approval", "flow", "alert", "connector"},
		3: {"gate"},
		4: {"vault", "memory", "sandbox"},
		5: {"egress", "tools", "model", "channel", "control"},
		6: {"recon", "probe", "posture", "backup", "api"},
		7: {"worker", "server", "client"},
		8: {"cmd", "ambittest", "e2e"},
	}
	table := make(map[string]int)
	for row, rooms := range rows {
		for _, room := range rooms {
			table[room] = row
		}
	}
	return table
}

// pure lists the rooms that do no input or output, and ioPackages what they
// therefore may not import.
func pure() []string { return []string{"policy", "scan"} }

func ioPackages() []string {
	return []string{"database/sql", "net", "os", "os/exec", "os/signal", "syscall", "golang.org/x/sys/unix"}
}

// panics lists the functions that may panic, as folder.Function, each with the
// reason. A stale entry fails the test.
func panics() map[string]string {
	return map[string]string{
		"egress.serveStream": "panic(http.ErrAbortHandler) is how net/http lets a handler reset its stream, and the server recovers it",
	}
}

func TestRooms(t *testing.T) {
	tree := parse(t, os.DirFS("."))
	report(t, tree.imports(layers()))
	report(t, tree.pureRooms())
}

// TestRoomsAreDocumented compares layers() with the table that people read.
func TestRoomsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("CONTRIBUTING.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := make(map[string]int)
	for _, m := range regexp.MustCompile(`(?m)^\| ([0-9]) \| ([^|]*) \|`).FindAllStringSubmatch(string(text), -1) {
		row, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(m[2], -1) {
			documented[name[1]] = row
		}
	}
	if d := cmp.Diff(layers(), documented); d != "" {
		t.Errorf("layers() and the table of CONTRIBUTING.md differ (-layers +table):\n%s", d)
	}
}

func TestPackageCommentsSayWhatIsTrusted(t *testing.T) {
	report(t, parse(t, os.DirFS(".")).comments())
}

func TestNoInit(t *testing.T) {
	report(t, parse(t, os.DirFS(".")).inits())
}

func TestNoPanic(t *testing.T) {
	report(t, parse(t, os.DirFS(".")).panics(panics()))
}

// TestRoomsFindsViolations shows that each rule above can fail.
func TestRoomsFindsViolations(t *testing.T) {
	const trusted = "// Package p is made up.\n//\n// Trust: nobody.\n"
	tree := parse(t, fstest.MapFS{
		"root.go":                 file(trusted + "package ambit\nimport _ \"golang.org/x/mod/semver\"\nimport _ \"io\"\n"),
		"keep.go":                 file("//go:build keep\n\npackage ambit\nimport _ \"ambit/gate\"\n"),
		"gate/gate.go":            file(trusted + "package gate\nimport _ \"ambit/policy\"\nimport _ \"ambit/egress\"\n"),
		"gate/gate_test.go":       file("package gate\nimport _ \"ambit/egress\"\nfunc init() { panic(1) }\n"),
		"gate/gate_windows.go":    file("//go:build windows\n\npackage gate\nimport _ \"ambit/worker\"\n"),
		"gate/testdata/x.go":      file("package x\nimport _ \"ambit/worker\"\n"),
		"egress/egress.go":        file(trusted + "package egress\nimport _ \"ambit/tools\"\nimport _ \"ambit/egress/h2\"\n"),
		"egress/h2/h2.go":         file(trusted + "package h2\nimport _ \"ambit/egress\"\nimport _ \"ambit/egress/h1\"\n"),
		"internal/clock/clock.go": file(trusted + "package clock\nimport _ \"ambit\"\nimport _ \"ambit/internal/x\"\nimport _ \"ambit/audit\"\n"),
		"internal/bench/main.go":  file(trusted + "package main\nimport _ \"ambit/worker\"\nimport _ \"ambit/internal/clock\"\n"),
		"cmd/ambit/main.go":       file(trusted + "package main\nimport _ \"ambit/cmd/ambit/term\"\nimport _ \"ambit/ambittest\"\n"),
		"policy/policy.go":        file("// Package policy says nothing more.\npackage policy\nimport _ \"os\"\nimport _ \"net/netip\"\nfunc init() { panic(1) }\n"),
		"audit/log.go":            file(trusted + "package audit\nimport \"sync\"\nvar (\n\tnames = []string{}\n\tmu sync.Mutex\n\tpool sync.Pool\n)\nfunc f() { names := 1; names = 2; names++ }\n"),
		"audit/tree.go":           file("package audit\nfunc g() {\n\tnames[0] = \"a\"\n\tp := &names\n\tfor _, names = range *p {}\n}\nfunc h(names []string) { names[0] = \"b\" }\n"),
		"stuff/stuff.go":          file(trusted + "package stuff\ntype T int\nfunc (T) Must() { panic(1) }\nfunc (*T) Try() { func() { panic(1) }() }\nfunc (T) init() {}\n"),
	})

	var got []string
	for _, f := range slices.Concat(tree.imports(layers()), tree.pureRooms(), tree.comments(), tree.inits(), tree.globals(),
		tree.panics(map[string]string{"stuff.Must": "allowed for this test", "stuff.Gone": "no longer there"})) {
		got = append(got, f.String())
	}
	slices.Sort(got)
	want := []string{
		"audit/log.go:8: mu holds state for the whole process: make it a field of what needs it",
		"audit/tree.go:3: names is a variable of the package and is changed: make it a field of what needs it",
		"audit/tree.go:4: the address of names is taken, which is a variable of the package and so could be changed: make it a field of what needs it",
		"audit/tree.go:5: names is a variable of the package and is changed: make it a field of what needs it",
		"cmd/ambit/main.go:6: cmd (row 8) imports ambit/ambittest (row 8): a package imports only rows above its own",
		"egress/egress.go:5: egress (row 5) imports ambit/tools (row 5): a package imports only rows above its own",
		"egress/h2/h2.go:6: egress/h2 imports its sibling ambit/egress/h1: within a room, parents and children import each other, and siblings do not",
		"gate/gate.go:6: gate (row 3) imports ambit/egress (row 5): a package imports only rows above its own",
		"gate/gate_windows.go:4: gate (row 3) imports ambit/worker (row 7): a package imports only rows above its own",
		"internal/clock/clock.go:7: internal (row 0) imports ambit/audit (row 1): a package imports only rows above its own",
		"policy/policy.go:3: policy imports os: it is pure and does no input or output",
		"policy/policy.go:5: panic in init: return an error; if it cannot be reached, add policy.init with the reason to panics() in rooms_test.go",
		"policy/policy.go:5: func init: make it a constructor that main calls",
		"policy: its package comment has no paragraph that starts with \"Trust:\": say what the package trusts, and what someone who controls that could do",
		"root.go:5: the root package imports golang.org/x/mod/semver: it imports the standard library only",
		"rooms_test.go: panics() lists stuff.Gone, which does not panic: remove it",
		"stuff/stuff.go:4: folder stuff has no row: give it one in layers() of rooms_test.go and in the table of CONTRIBUTING.md",
		"stuff/stuff.go:7: panic in Try: return an error; if it cannot be reached, add stuff.Try with the reason to panics() in rooms_test.go",
	}
	slices.Sort(want)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("findings (-want +got):\n%s", d)
	}
}

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }

// finding is one broken rule.
type finding struct {
	where string // file:line, or what else a person can go to
	rule  string
}

func (f finding) String() string { return f.where + ": " + f.rule }

func report(t *testing.T, findings []finding) {
	t.Helper()
	for _, f := range findings {
		t.Error(f)
	}
}

// tree is every Go file of the module that can be part of a build, whatever
// the platform; test files are left out.
type tree struct {
	fset  *token.FileSet
	files []source
}

type source struct {
	name string // slash-separated, below the module's root
	ast  *ast.File
}

// dir is the folder of the file; "." is the root.
func (s source) dir() string { return path.Dir(s.name) }

// parse reads the module at root. A file that does not parse is reported, and
// the others are still checked.
func parse(t *testing.T, root fs.FS) *tree {
	t.Helper()
	tr := &tree{fset: token.NewFileSet()}
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := path.Base(name)
		if d.IsDir() {
			if name == "." {
				return nil
			}
			_, nested := fs.Stat(root, path.Join(name, "go.mod"))
			if nested == nil || base == "testdata" || base == "vendor" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(base, ".go") || strings.HasSuffix(base, "_test.go") || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") {
			return nil
		}
		text, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(tr.fset, name, text, parser.ParseComments)
		if err != nil {
			t.Errorf("%s: reading its imports: %v", name, err)
			return nil
		}
		if !neverBuilt(f) {
			tr.files = append(tr.files, source{name, f})
		}
		return nil
	})
	if err != nil {
		t.Fatalf("reading the module: %v", err)
	}
	return tr
}

// neverBuilt says whether f is for tools only (go:build ignore or keep) and so
// in no package.
func neverBuilt(f *ast.File) bool {
	for _, group := range f.Comments {
		if group.Pos() > f.Package {
			return false
		}
		for _, c := range group.List {
			expr, err := constraint.Parse(c.Text)
			if err == nil && (expr.String() == "ignore" || expr.String() == "keep") {
				return true
			}
		}
	}
	return false
}

func (tr *tree) at(pos token.Pos) string {
	p := tr.fset.Position(pos)
	return p.Filename + ":" + strconv.Itoa(p.Line)
}

// room is the top-level folder that dir belongs to; "." is the root package.
func room(dir string) string {
	top, _, _ := strings.Cut(dir, "/")
	return top
}

func below(dir, parent string) bool { return strings.HasPrefix(dir, parent+"/") }

// imports holds the layer table.
func (tr *tree) imports(table map[string]int) (found []finding) {
	for _, s := range tr.files {
		from := room(s.dir())
		row, known := table[from]
		if !known {
			found = append(found, finding{tr.at(s.ast.Package), "folder " + from +
				" has no row: give it one in layers() of rooms_test.go and in the table of CONTRIBUTING.md"})
			continue
		}
		if s.ast.Name.Name == "main" {
			row = program
		}
		for _, spec := range s.ast.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				continue // the parser has refused it already
			}
			if rule := importRule(s, from, row, imported, table); rule != "" {
				found = append(found, finding{tr.at(spec.Pos()), rule})
			}
		}
	}
	return found
}

// importRule says which rule is broken when s, in room from and the given row,
// imports the package; "" if none is.
func importRule(s source, from string, row int, imported string, table map[string]int) string {
	if imported != module && !strings.HasPrefix(imported, module+"/") {
		first, _, _ := strings.Cut(imported, "/")
		if s.dir() == "." && strings.Contains(first, ".") {
			return "the root package imports " + imported + ": it imports the standard library only"
		}
		return ""
	}
	dir := "."
	if imported != module {
		dir = strings.TrimPrefix(imported, module+"/")
	}
	to := room(dir)
	toRow, known := table[to]
	switch {
	case !known:
		return fmt.Sprintf("%s imports %s, which has no row", from, imported)
	case from == "internal" && (to == "internal" || to == "."):
		return ""
	case from == to && row == program:
		return "" // a program may keep folders of its own
	case from == to && (below(s.dir(), dir) || below(dir, s.dir())):
		return "" // a cycle does not compile
	case from == to:
		return fmt.Sprintf("%s imports its sibling %s: within a room, parents and children import each other, and siblings do not", s.dir(), imported)
	case toRow >= row:
		return fmt.Sprintf("%s (row %d) imports %s (row %d): a package imports only rows above its own", from, row, imported, toRow)
	}
	return ""
}

// pureRooms holds what policy and scan promise.
func (tr *tree) pureRooms() (found []finding) {
	for _, s := range tr.files {
		if !slices.Contains(pure(), room(s.dir())) {
			continue
		}
		for _, spec := range s.ast.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err == nil && slices.Contains(ioPackages(), imported) {
				found = append(found, finding{tr.at(spec.Pos()), s.dir() + " imports " + imported + ": it is pure and does no input or output"})
			}
		}
	}
	return found
}

// comments wants a Trust: paragraph in every package's comment.
func (tr *tree) comments() (found []finding) {
	says := make(map[string]bool)
	for _, s := range tr.files {
		says[s.dir()] = says[s.dir()] || trustParagraph(s.ast.Doc)
	}
	for dir, ok := range says {
		if !ok {
			found = append(found, finding{dir, "its package comment has no paragraph that starts with \"Trust:\": say what the package trusts, and what someone who controls that could do"})
		}
	}
	return found
}

func trustParagraph(doc *ast.CommentGroup) bool {
	for paragraph := range strings.SplitSeq(doc.Text(), "\n\n") {
		if strings.HasPrefix(paragraph, "Trust: ") {
			return true
		}
	}
	return false
}

// inits finds code that runs because it is imported.
func (tr *tree) inits() (found []finding) {
	for _, s := range tr.files {
		for _, d := range s.ast.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				found = append(found, finding{tr.at(f.Pos()), "func init: make it a constructor that main calls"})
			}
		}
	}
	return found
}

// panics finds calls of panic outside the allowed functions.
func (tr *tree) panics(allowed map[string]string) (found []finding) {
	stale := make(map[string]bool)
	for name := range allowed {
		stale[name] = true
	}
	for _, s := range tr.files {
		for _, d := range s.ast.Decls {
			in := "a package variable"
			if f, ok := d.(*ast.FuncDecl); ok {
				in = f.Name.Name
			}
			name := s.dir() + "." + in
			ast.Inspect(d, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				if id, ok := call.Fun.(*ast.Ident); !ok || id.Name != "panic" {
					return true
				}
				if _, ok := allowed[name]; ok {
					delete(stale, name)
					return true
				}
				found = append(found, finding{tr.at(call.Pos()), "panic in " + in +
					": return an error; if it cannot be reached, add " + name + " with the reason to panics() in rooms_test.go"})
				return true
			})
		}
	}
	for name := range stale {
		found = append(found, finding{"rooms_test.go", "panics() lists " + name + ", which does not panic: remove it"})
	}
	return found
}
