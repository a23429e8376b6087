package render

import (
	"fmt"
	"path"
	"strings"
)

// globs are the include and exclude patterns of a plain directory, in Argo CD's form: a glob over the path
// relative to the directory, * crossing no slash, ** crossing them, {a,b} for alternatives.
type globs struct{ include, exclude []string }

func newGlobs(d Directory) (globs, error) {
	var g globs
	var err error
	if g.include, err = alternatives(d.Include); err != nil {
		return g, fmt.Errorf("directory include %q: %w", d.Include, err)
	}
	if g.exclude, err = alternatives(d.Exclude); err != nil {
		return g, fmt.Errorf("directory exclude %q: %w", d.Exclude, err)
	}
	return g, nil
}

func (g globs) match(rel string) bool {
	if len(g.include) > 0 && !anyMatch(g.include, rel) {
		return false
	}
	return !anyMatch(g.exclude, rel)
}

func anyMatch(patterns []string, rel string) bool {
	for _, p := range patterns {
		if matchParts(strings.Split(p, "/"), strings.Split(rel, "/")) {
			return true
		}
		// A pattern without a slash means the file wherever it is.
		if !strings.Contains(p, "/") {
			if ok, _ := path.Match(p, path.Base(rel)); ok {
				return true
			}
		}
	}
	return false
}

func matchParts(pattern, parts []string) bool {
	if len(pattern) == 0 {
		return len(parts) == 0
	}
	if pattern[0] == "**" {
		for i := 0; i <= len(parts); i++ {
			if matchParts(pattern[1:], parts[i:]) {
				return true
			}
		}
		return false
	}
	if len(parts) == 0 {
		return false
	}
	ok, _ := path.Match(pattern[0], parts[0])
	return ok && matchParts(pattern[1:], parts[1:])
}

// alternatives expands {a,b} and checks the patterns.
func alternatives(p string) ([]string, error) {
	if p == "" {
		return nil, nil
	}
	open := strings.IndexByte(p, '{')
	if open < 0 {
		if strings.Count(p, "**") > 4 {
			return nil, fmt.Errorf("more than four **")
		}
		if _, err := path.Match(strings.ReplaceAll(p, "/", "_"), ""); err != nil {
			return nil, err
		}
		return []string{p}, nil
	}
	end := strings.IndexByte(p[open:], '}')
	if end < 0 {
		return nil, fmt.Errorf("{ without }")
	}
	end += open
	var out []string
	for _, alt := range strings.Split(p[open+1:end], ",") {
		more, err := alternatives(p[:open] + alt + p[end+1:])
		if err != nil {
			return nil, err
		}
		if out = append(out, more...); len(out) > 1000 {
			return nil, fmt.Errorf("more than 1000 alternatives")
		}
	}
	return out, nil
}
