package ambit_test

import (
	"go/ast"
	"go/token"
	"os"
	"testing"
)

func TestNoGlobalThatChanges(t *testing.T) {
	report(t, parse(t, os.DirFS(".")).globals())
}

// globals finds variables of a package that are changed, or are of a kind that
// is made to change. A table that is only read is none.
func (tr *tree) globals() (found []finding) {
	const remedy = ": make it a field of what needs it"
	vars := make(map[string]map[string]bool) // by folder and name
	for _, s := range tr.files {
		for _, d := range s.ast.Decls {
			decl, ok := d.(*ast.GenDecl)
			if !ok || decl.Tok != token.VAR {
				continue
			}
			for _, spec := range decl.Specs {
				v := spec.(*ast.ValueSpec)
				for _, name := range v.Names {
					if vars[s.dir()] == nil {
						vars[s.dir()] = make(map[string]bool)
					}
					vars[s.dir()][name.Name] = name.Name != "_"
					if madeToChange(v.Type) {
						found = append(found, finding{tr.at(name.Pos()), name.Name + " holds state for the whole process" + remedy})
					}
				}
			}
		}
	}
	for _, s := range tr.files {
		elsewhere := make(map[*ast.Ident]bool) // declared in no scope of this file
		for _, id := range s.ast.Unresolved {
			elsewhere[id] = true
		}
		global := func(e ast.Expr) (string, bool) {
			id := root(e)
			if id == nil || !vars[s.dir()][id.Name] {
				return "", false
			}
			here := id.Obj != nil && s.ast.Scope.Lookup(id.Name) == id.Obj
			return id.Name, here || elsewhere[id]
		}
		changes := func(exprs ...ast.Expr) {
			for _, e := range exprs {
				if name, ok := global(e); ok {
					found = append(found, finding{tr.at(e.Pos()), name + " is a variable of the package and is changed" + remedy})
				}
			}
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				if n.Tok != token.DEFINE {
					changes(n.Lhs...)
				}
			case *ast.IncDecStmt:
				changes(n.X)
			case *ast.RangeStmt:
				if n.Tok == token.ASSIGN {
					changes(n.Key, n.Value)
				}
			case *ast.UnaryExpr:
				if name, ok := global(n.X); ok && n.Op == token.AND {
					found = append(found, finding{tr.at(n.Pos()), "the address of " + name +
						" is taken, which is a variable of the package and so could be changed" + remedy})
				}
			}
			return true
		})
	}
	return found
}

// madeToChange says whether a variable of this type is of no use unchanged. A
// pool is a cache of the allocator's and no state.
func madeToChange(t ast.Expr) bool {
	sel, ok := t.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	pkg, ok := sel.X.(*ast.Ident)
	return ok && (pkg.Name == "sync" && sel.Sel.Name != "Pool" || pkg.Name == "atomic")
}

// root is the variable that e is a part of; nil if it is part of none.
func root(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.IndexExpr:
			e = x.X
		case *ast.SelectorExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return nil
		}
	}
}
