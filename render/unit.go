package render

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/fairlead-dev/fairlead/render/decode"
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/kustomize"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/render/tree"
)

// Unit is a part of a path that is rendered by itself: a kustomization, a file of a plain directory, or a
// directory with a kustomization in it. kustomize's cost grows with the square of what it is given at once.
type Unit struct {
	// Dir is the directory of the kustomization that is built.
	Dir string
	// Resource is what in Dir, which has no kustomization of its own, the unit is; empty for the kustomization
	// in Dir.
	Resource string
	// Plain is true when Resource is a file.
	Plain bool
	// Whole is true when everything that the path consists of is built together, since what the application
	// adds concerns more than single objects.
	Whole bool
}

// String returns the path of the unit.
func (u Unit) String() string { return path.Join(u.Dir, u.Resource) }

// Rendered is one object of a unit, in the form in which it travels.
type Rendered struct {
	Ref        object.Ref
	APIVersion string
	Written    []byte
	Origin     object.Origin
	Places     []object.Place
	Hidden     []string
}

// UnitResult is what one unit holds.
type UnitResult struct {
	Objects []Rendered
	Diags   diag.List
	// Reads are the paths that the result depends on, as in Result.
	Reads []string
}

// compareUnits orders units by path.
func compareUnits(a, b Unit) int { return strings.Compare(a.String(), b.String()) }

// maxUnits bounds how many units one path is split into.
const maxUnits = 100_000

// listing is what a path was found to consist of.
type listing struct {
	units []Unit
	diags diag.List
	reads []string
}

// list finds the units of a path.
func list(req Request) (listing, error) {
	l, err := units(req)
	// Names are changed along with the references to them, which can be in other files; patches, replica counts
	// and components find what they are for anywhere.
	o := req.Options
	together := o.NamePrefix != "" || o.NameSuffix != "" || len(o.Patches)+len(o.Replicas)+len(o.Components) > 0
	if together && len(l.units) > 1 {
		l.units = []Unit{{Dir: clean(req.Path), Whole: true}}
	}
	return l, err
}

// units finds the files and kustomizations that a path consists of.
func units(req Request) (l listing, err error) {
	t := tree.New(req.Files, tree.Limits{Files: 2 * maxUnits, FileBytes: 1, TotalBytes: 1}, nil)
	defer func() { l.reads = t.Reads() }()
	at := clean(req.Path)
	report := func(p, code, msg, hint string) {
		l.diags = append(l.diags, diag.Diagnostic{Severity: diag.Error, Code: code, Origin: object.Origin{Path: p}, Message: msg, Hint: hint})
	}
	if !fs.ValidPath(at) {
		report(req.Path, "outside", fmt.Sprintf("path %q leads out of the source", req.Path), "name a directory inside it")
		return l, nil
	}
	switch t.Kind(at) {
	case tree.Absent:
		if err := t.Err(); err != nil {
			return l, err
		}
		if t.Link(at) != "" {
			report(at, "symlink", "the path is a symbolic link that leads out of the source, to nothing or in a circle", "name the directory itself")
			return l, nil
		}
		report(at, "missing-path", "the path does not exist in the source", "correct the application's path")
		return l, nil
	case tree.File:
		if path.Ext(at) == ".yaml" || path.Ext(at) == ".yml" || path.Ext(at) == ".json" {
			l.units = []Unit{{Dir: path.Dir(at), Resource: path.Base(at), Plain: true}}
			return l, nil
		}
		report(at, "not-a-directory", "the path is a file", "name the directory it is in")
		return l, nil
	case tree.Dir:
	}
	if !req.Directory.Plain {
		for _, f := range kustomize.FileNames() {
			if t.Kind(path.Join(at, f)) == tree.File {
				l.units = []Unit{{Dir: at}}
				return l, nil
			}
		}
	}
	globs, err := newGlobs(req.Directory)
	if err != nil {
		report(at, "bad-option", err.Error(), "")
		return l, nil
	}
	type level struct{ dir string }
	todo := []level{{at}}
	for looked := 0; len(todo) > 0; looked++ {
		if looked > maxDirectories {
			l.units = nil
			report(at, "too-large", fmt.Sprintf("more than %d directories", maxDirectories), "split the path into several applications")
			return l, nil
		}
		dir := todo[len(todo)-1].dir
		todo = todo[:len(todo)-1]
		if strings.Count(dir, "/")-strings.Count(at, "/") > maxDeep {
			report(dir, "too-deep", fmt.Sprintf("directories are nested more than %d deep", maxDeep), "")
			continue
		}
		entries, err := t.ReadDir(dir)
		if err != nil {
			if broken := t.Err(); broken != nil {
				return l, broken
			}
			report(dir, "unreadable", "cannot be read: "+err.Error(), "")
			continue
		}
		isUnit := func(e fs.DirEntry) bool { return slices.Contains(kustomize.FileNames(), e.Name()) && !e.IsDir() }
		if dir != at && !req.Directory.Plain && slices.ContainsFunc(entries, isUnit) {
			l.units = append(l.units, unitAt(at, dir))
			continue
		}
		var below []level
		for _, e := range entries {
			p := path.Join(dir, e.Name())
			rel := strings.TrimPrefix(strings.TrimPrefix(p, at), "/")
			if at == "." {
				rel = p
			}
			switch {
			case e.Type()&fs.ModeSymlink != 0:
				// Followed by nobody here: the snapshot refuses links that leave it, and the target is listed itself.
				if isManifest(p, req.Directory.Plain) {
					report(p, "symlink", "is a symbolic link", "put the file itself here")
				}
			case e.IsDir():
				if !req.Directory.NoRecurse && e.Name() != ".git" && !(dir == "." && ciDirs[e.Name()]) {
					below = append(below, level{p})
				}
			case isManifest(p, req.Directory.Plain) && globs.match(rel) && !(dir == "." && ciFiles[e.Name()]):
				l.units = append(l.units, Unit{Dir: at, Resource: rel, Plain: true})
			case path.Ext(p) == ".jsonnet" && req.Directory.Plain && globs.match(rel):
				report(p, "jsonnet", "jsonnet is not rendered", "commit what it makes, or exclude it")
			}
		}
		if len(l.units) > maxUnits {
			l.units = nil
			report(at, "too-large", fmt.Sprintf("more than %d files and kustomizations", maxUnits), "split the path into several applications")
			return l, nil
		}
		slices.Reverse(below)
		todo = append(todo, below...)
	}
	if err := t.Err(); err != nil {
		return l, err
	}
	slices.SortFunc(l.units, compareUnits)
	return l, nil
}

// ciDirs and ciFiles at the root of a source belong to build systems; Flux leaves them out too.
var (
	ciDirs  = map[string]bool{".github": true, ".circleci": true, ".gitlab": true, ".forgejo": true, ".gitea": true}
	ciFiles = map[string]bool{
		".travis.yml": true, ".gitlab-ci.yml": true, "appveyor.yml": true, ".drone.yml": true, "cloudbuild.yaml": true,
		"codeship-services.yml": true, "codeship-steps.yml": true, ".goreleaser.yml": true, ".goreleaser.yaml": true,
		".sops.yaml": true, ".pre-commit-config.yaml": true, ".woodpecker.yml": true,
	}
)

func isManifest(p string, plain bool) bool {
	if n := path.Base(p); !plain && slices.Contains(kustomize.FileNames(), n) {
		return false
	}
	switch path.Ext(p) {
	case ".yaml", ".yml":
		return true
	case ".json":
		return plain
	}
	return false
}

func unitAt(at, dir string) Unit {
	return Unit{Dir: at, Resource: strings.TrimPrefix(strings.TrimPrefix(dir, at), "/")}
}

// clean is the path as io/fs wants it: "./a/" becomes "a".
func clean(p string) string {
	if p == "" || p == "/" {
		return "."
	}
	return path.Clean(strings.TrimPrefix(strings.TrimPrefix(p, "/"), "./"))
}

// Engine renders units in this process. The zero value is ready for use, from any goroutine.
type Engine struct {
	// Check finds more in every object of a kind that is run; nil finds nothing. What it finds becomes
	// diagnostics of the unit, at the line of the field. It must not modify the object.
	Check func(runtime.Object) []diag.Finding

	files decode.Cache
}
