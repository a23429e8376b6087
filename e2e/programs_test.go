package e2e

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// starters are the functions of the standard library that start a program or become one.
var starters = []string{"exec.Command", "exec.CommandContext", "os.StartProcess", "syscall.ForkExec", "syscall.StartProcess", "syscall.Exec", "unix.Exec"}

// shells are what would take text for a program.
var shells = []string{"sh", "bash", "ash", "dash", "zsh", "/bin/sh", "/bin/bash", "/usr/bin/env", "cmd.exe", "powershell"}

// T-S7 (Flux CVE-2021-41254), T-S3: the product starts one program, itself as a render worker, and no shell. What a
// person runs in a container with fairlead exec is started by the engine.
func TestNoShellIsEverStarted(t *testing.T) {
	for _, p := range packages(t) {
		// Tests and the demonstration run the tools of whoever runs them.
		if within(p.name(), "e2e") || within(p.name(), "examples") || strings.HasSuffix(p.name(), "test") || strings.HasPrefix(p.name(), "runtimes/runtimetest") {
			continue
		}
		for _, file := range p.GoFiles {
			at := p.name() + "/" + file
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.SelectorExpr:
					if x, ok := n.X.(*ast.Ident); ok && slices.Contains(starters, x.Name+"."+n.Sel.Name) && at != "render/worker/child.go" {
						t.Errorf("%s calls %s.%s: only render workers are started", at, x.Name, n.Sel.Name)
					}
				case *ast.BasicLit:
					if s, err := strconv.Unquote(n.Value); n.Kind == token.STRING && err == nil && slices.Contains(shells, s) {
						t.Errorf("%s names the shell %q", at, s)
					}
				}
				return true
			})
		}
	}
}
