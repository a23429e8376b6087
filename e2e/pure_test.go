package e2e

import "go/ast"

// impure names the first use of a clock or of a goroutine in a file, or is empty.
func impure(f *ast.File) (what string) {
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			what = "a goroutine"
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" {
				switch n.Sel.Name {
				case "Now", "Since", "Until", "Sleep", "After", "NewTimer", "NewTicker", "Tick", "AfterFunc":
					what = "time." + n.Sel.Name
				}
			}
		}
		return what == ""
	})
	return what
}
