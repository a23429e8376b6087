package git

import (
	"bufio"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/go-git/go-git/v5/plumbing/format/gitignore"
)

// Flux's exclusions: the first always, the others unless patterns are given.
const (
	alwaysIgnored  = ".git\n.gitignore\n.gitmodules\n.gitattributes\n"
	defaultIgnored = "*.jpg\n*.jpeg\n*.gif\n*.png\n*.wmv\n*.flv\n*.tar.gz\n*.zip\n" +
		".github/\n.circleci/\n.travis.yml\n.gitlab-ci.yml\nappveyor.yml\n.drone.yml\ncloudbuild.yaml\n" +
		"codeship-services.yml\ncodeship-steps.yml\n**/.goreleaser.yml\n**/.goreleaser.yaml\n**/.sops.yaml\n**/.flux.yaml\n"
	ignoreFile = ".sourceignore"

	maxPatterns = 1000   // of one file
	maxLooked   = 20_000 // hidden directories of one snapshot that are looked into for something that is shown
)

// ignore decides what of a tree is shown, as Flux does: every file is matched by itself, the last pattern that
// matches counts, and a directory is shown if anything in it is.
type ignore struct {
	patterns []gitignore.Pattern // of the root, in order of rising priority
	extra    []gitignore.Pattern // of the options: above all files
	includes bool                // some pattern of these shows what another hides
	// read returns a directory's .sourceignore, nil when it has none.
	read func(dir string) ([]byte, error)

	mu     sync.Mutex
	dirs   map[string][]gitignore.Pattern // of .sourceignore files below the root
	below  map[string]bool                // hidden directories, and whether something in them is shown
	looked int
}

func newIgnore(options string, read func(dir string) ([]byte, error)) (*ignore, error) {
	i := &ignore{read: read, dirs: map[string][]gitignore.Pattern{}, below: map[string]bool{}, extra: parsePatterns([]byte(options), nil)}
	if len(i.extra) > maxPatterns {
		return nil, fmt.Errorf("there are %d patterns to ignore, more than %d", len(i.extra), maxPatterns)
	}
	data, err := read(".")
	if err != nil {
		return nil, err
	}
	own, err := filePatterns(".", data)
	if err != nil {
		return nil, err
	}
	i.includes = strings.Contains("\n"+options, "\n!") || strings.Contains("\n"+string(data), "\n!")
	i.patterns = parsePatterns([]byte(alwaysIgnored), nil)
	if len(own)+len(i.extra) == 0 {
		i.patterns = append(i.patterns, parsePatterns([]byte(defaultIgnored), nil)...)
	}
	i.patterns = append(i.patterns, own...)
	return i, nil
}

// filePatterns are the patterns of a directory's .sourceignore.
func filePatterns(dir string, data []byte) ([]gitignore.Pattern, error) {
	var domain []string
	if dir != "." {
		domain = strings.Split(dir, "/")
	}
	list := parsePatterns(data, domain)
	if len(list) > maxPatterns {
		return nil, fmt.Errorf("%s has %d patterns, more than %d: every file is held against all of them", path.Join(dir, ignoreFile), len(list), maxPatterns)
	}
	return list, nil
}

func parsePatterns(data []byte, domain []string) []gitignore.Pattern {
	var list []gitignore.Pattern
	lines := bufio.NewScanner(strings.NewReader(string(data)))
	for lines.Scan() {
		line := lines.Text()
		if strings.TrimSpace(line) != "" && !strings.HasPrefix(line, "#") {
			list = append(list, gitignore.ParsePattern(strings.TrimSuffix(line, "\r"), domain))
		}
	}
	return list
}

// of returns the patterns of a directory's own .sourceignore.
func (i *ignore) of(dir string) ([]gitignore.Pattern, error) {
	i.mu.Lock()
	list, ok := i.dirs[dir]
	i.mu.Unlock()
	if ok {
		return list, nil
	}
	data, err := i.read(dir)
	if err != nil {
		return nil, err
	}
	if list, err = filePatterns(dir, data); err != nil {
		return nil, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.dirs[dir] = list
	return list, nil
}

// match returns what the patterns say of one path, and whether any of them includes.
func (i *ignore) match(parts []string, isDir bool) (result gitignore.MatchResult, err error) {
	last := func(list []gitignore.Pattern) bool {
		for _, p := range slices.Backward(list) {
			if m := p.Match(parts, isDir); m != gitignore.NoMatch {
				result = m
				return true
			}
		}
		return false
	}
	if last(i.extra) {
		return result, nil
	}
	for n := len(parts) - 1; n > 0; n-- {
		list, err := i.of(strings.Join(parts[:n], "/"))
		if err != nil {
			return gitignore.NoMatch, err
		}
		if last(list) {
			return result, nil
		}
	}
	last(i.patterns)
	return result, nil
}

// shows reports whether a path is shown. list returns the entries of an ignored directory or one below it: it is
// shown when one of them is.
func (i *ignore) shows(p string, isDir bool, list func(dir string) ([]entry, error)) (bool, error) {
	if i == nil {
		return true, nil
	}
	m, err := i.match(strings.Split(p, "/"), isDir)
	if err != nil {
		return false, err
	}
	if m != gitignore.Exclude {
		return true, nil
	}
	if !isDir || !i.includes {
		return false, nil
	}
	return i.showsBelow(p, list)
}

// showsBelow reports whether anything in an ignored directory is shown. When more directories than maxLooked were
// looked at, one of which it is not known counts as shown: what is in it is judged by itself.
func (i *ignore) showsBelow(dir string, list func(dir string) ([]entry, error)) (shown bool, err error) {
	i.mu.Lock()
	known, ok := i.below[dir]
	i.looked++
	left := maxLooked - i.looked
	i.mu.Unlock()
	if ok || left < 0 {
		return known || !ok, nil
	}
	defer func() {
		if err == nil {
			i.mu.Lock()
			i.below[dir] = shown
			i.mu.Unlock()
		}
	}()
	entries, err := list(dir)
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		p, isDir := dir+"/"+e.name, e.mode&modeType == modeTree
		m, err := i.match(strings.Split(p, "/"), isDir)
		if err != nil || m != gitignore.Exclude {
			return err == nil, err
		}
		if !isDir {
			continue
		}
		if ok, err := i.showsBelow(p, list); err != nil || ok {
			return ok, err
		}
	}
	return false, nil
}
