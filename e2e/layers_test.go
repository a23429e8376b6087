// Package e2e holds the tests of the whole: its structure, and its behaviour on real parts.
package e2e

import (
	"encoding/json"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/fairlead-dev/fairlead/"

// pkg is what `go list` says of a package.
type pkg struct {
	ImportPath   string
	Dir          string
	GoFiles      []string
	Imports      []string
	TestGoFiles  []string
	XTestGoFiles []string
}

// name is the package's path below the module.
func (p pkg) name() string { return strings.TrimPrefix(p.ImportPath, module) }

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,GoFiles,Imports,TestGoFiles,XTestGoFiles", "./...")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var ps []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); err == io.EOF {
			return ps
		} else if err != nil {
			t.Fatal(err)
		}
		ps = append(ps, p)
	}
}

// layers says which packages of the module those below a prefix may import; the longest prefix counts.
// A package may always import what is below its own folder.
var layers = []struct {
	prefix  string
	imports []string
}{
	{"render/object", nil},
	{"render/diag", []string{"render/object"}},
	{"render", []string{"render"}},
	{"sources", []string{"sources"}},
	{"plan/planfile", []string{"plan", "render/object", "render/diag"}},
	{"plan/plantest", []string{"plan", "render/object", "render/diag"}},
	{"plan/simulate", []string{"plan", "render/object", "render/diag"}},
	{"plan", []string{"render/object", "render/diag"}},
	{"policies", []string{"plan", "render/object", "render/diag"}},
	{"runtimes/routing", []string{"plan", "policies/network", "render/object", "render/diag"}},
	{"runtimes", []string{"runtimes", "plan", "render/object", "render/diag"}},
	{"apply/schedule", []string{"plan", "render/object", "render/diag"}},
	{"apply", []string{"apply", "plan", "render/object", "render/diag", "runtimes"}},
	{"daemon", []string{"daemon", "sources", "render", "plan", "apply", "runtimes", "policies"}},
	{"e2e", []string{"daemon", "sources", "render", "plan", "apply", "runtimes", "policies", "e2e"}},
	{"examples", []string{"daemon/api", "plan", "render/object"}},
}

func TestLayers(t *testing.T) {
	for _, p := range packages(t) {
		i := slices.IndexFunc(layers, func(l struct {
			prefix  string
			imports []string
		}) bool {
			return within(p.name(), l.prefix)
		})
		if i < 0 {
			t.Errorf("%s is in no layer: say in this test what it may import", p.name())
			continue
		}
		for _, imp := range p.Imports {
			imp, ours := strings.CutPrefix(imp, module)
			if ours && !within(imp, p.name()) && !slices.ContainsFunc(layers[i].imports, func(allowed string) bool { return within(imp, allowed) }) {
				t.Errorf("%s may not import %s", p.name(), imp)
			}
		}
	}
}

// TestRuntimesStandAlone holds that the packages of a node know their vocabulary and not each other.
func TestRuntimesStandAlone(t *testing.T) {
	for _, p := range packages(t) {
		if !strings.HasPrefix(p.name(), "runtimes/") {
			continue
		}
		own := strings.Join(strings.Split(p.name(), "/")[:2], "/")
		for _, imp := range p.Imports {
			imp, ours := strings.CutPrefix(imp, module)
			if ours && strings.HasPrefix(imp, "runtimes/") && !within(imp, own) {
				t.Errorf("%s may not import %s", p.name(), imp)
			}
		}
	}
}

// heavy libraries have one package that may import them, so that replacing one is that package's work.
var heavy = map[string][]string{
	"github.com/go-git/":            {"sources/git"},
	"github.com/fsnotify/":          {"sources/local"},
	"sigs.k8s.io/kustomize/":        {"render/kustomize"},
	"github.com/docker/docker":      {"runtimes/docker"},
	"github.com/vishvananda/":       {"runtimes/networking", "runtimes/routing"},
	"github.com/miekg/dns":          {"runtimes/names"},
	"github.com/google/nftables":    {"runtimes/routing"},
	"github.com/coreos/go-iptables": {"runtimes/routing"},
	"github.com/prometheus/":        {"daemon/telemetry"},
	"github.com/spf13/":             {"daemon/cli"},
	"k8s.io/pod-security":           {"policies/podsecurity"},
	"k8s.io/kubernetes/":            {"render/decode", "render/fields", "runtimes/environment", "policies/rbac"},
	"github.com/rs/zerolog":         {"daemon", "apply/executor"},
	"filippo.io/":                   {"render/sops"},
	"github.com/fluxcd/":            {"render"},
	"github.com/hashicorp/":         {"runtimes/consul"},
	"github.com/inetaf/":            {"runtimes/proxy"},
	"github.com/wneessen/":          {"daemon/notify"},
	"github.com/google/go-cont":     {"sources/registry"},
	"github.com/nicholas-fedor/":    {"daemon/notify"},
}

func TestHeavyLibrariesHaveOneImporter(t *testing.T) {
	for _, p := range packages(t) {
		for _, imp := range p.Imports {
			for lib, allowed := range heavy {
				if strings.HasPrefix(imp, lib) && !slices.ContainsFunc(allowed, func(a string) bool { return within(p.name(), a) }) && !strings.Contains(p.name(), "test") {
					t.Errorf("%s may not import %s: only %s may", p.name(), imp, strings.Join(allowed, ", "))
				}
			}
		}
	}
}

// TestPurePackages holds that the core decides and does nothing else.
func TestPurePackages(t *testing.T) {
	pure := []string{"plan", "policies", "apply/schedule", "render/object", "render/diag"}
	forbidden := []string{"os", "os/exec", "net", "net/http", "log", "log/slog", "context", "math/rand", "math/rand/v2", "crypto/rand", "syscall", "io/ioutil", "github.com/rs/zerolog"}
	for _, p := range packages(t) {
		if strings.HasPrefix(p.name(), "plan/plantest") || !slices.ContainsFunc(pure, func(prefix string) bool { return within(p.name(), prefix) }) {
			continue
		}
		for _, imp := range p.Imports {
			if slices.Contains(forbidden, imp) {
				t.Errorf("%s is pure and may not import %s", p.name(), imp)
			}
		}
		for _, file := range p.GoFiles {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			if what := impure(f); what != "" {
				t.Errorf("%s/%s is pure and may not use %s", p.name(), file, what)
			}
		}
	}
}

// TestPackageComments holds that every package says once what it holds.
func TestPackageComments(t *testing.T) {
	for _, p := range packages(t) {
		if len(p.GoFiles) == 0 {
			continue
		}
		var with []string
		for _, file := range p.GoFiles {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if f.Doc != nil {
				with = append(with, file)
			}
		}
		if len(with) != 1 {
			t.Errorf("%s: the package comment must be in exactly one file, it is in %d: %v", p.name(), len(with), with)
		}
	}
}

func within(name, folder string) bool { return name == folder || strings.HasPrefix(name, folder+"/") }
