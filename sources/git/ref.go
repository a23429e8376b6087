package git

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"
	"github.com/go-git/go-git/v5/plumbing"
)

// kind is what sort of reference is followed.
type kind int

const (
	byHead kind = iota // the default branch of the remote
	byBranch
	byTag
	bySemVer
	byName
	byCommit
	byWord // free form
)

// want is the reference that the options name.
type want struct {
	kind  kind
	value string
}

// wanted returns the reference that counts.
func wanted(o Options) want {
	switch {
	case o.Commit != "":
		return want{byCommit, o.Commit}
	case o.RefName != "":
		return wordOrName(o.RefName)
	case o.SemVer != "":
		return want{bySemVer, o.SemVer}
	case o.Tag != "":
		return want{byTag, o.Tag}
	case o.Branch != "":
		return want{byBranch, o.Branch}
	}
	return wordOrName(o.Revision)
}

var commitID = regexp.MustCompile(`^[0-9a-f]{40}$`)

func wordOrName(s string) want {
	switch {
	case s == "" || s == "HEAD":
		return want{byHead, ""}
	case strings.HasPrefix(s, "refs/"):
		return want{byName, s}
	case strings.HasPrefix(s, "semver:"):
		return want{bySemVer, strings.TrimSpace(strings.TrimPrefix(s, "semver:"))}
	case commitID.MatchString(s):
		return want{byCommit, s}
	}
	return want{byWord, s}
}

// names are the only references that the answer depends on; nil when it depends on all.
func (w want) names() []string {
	switch w.kind {
	case byHead:
		return []string{"HEAD"}
	case byBranch:
		return []string{"refs/heads/" + w.value}
	case byTag:
		return []string{"refs/tags/" + w.value}
	case byName:
		return []string{w.value}
	case bySemVer, byCommit, byWord:
	}
	return nil
}

// checkOptions reports references that cannot be.
func checkOptions(o Options) error {
	w := wanted(o)
	switch w.kind {
	case byCommit:
		if !commitID.MatchString(w.value) {
			return fmt.Errorf("%q is not a full commit id: write all 40 characters, in lower case", w.value)
		}
	case bySemVer:
		if _, err := semver.NewConstraint(w.value); err != nil {
			return fmt.Errorf("%q is not a range of versions: write it like >=1.2.0 <2.0.0, or ~1.4", w.value)
		}
	case byBranch, byTag, byName, byWord:
		if badName.MatchString(w.value) || strings.HasSuffix(w.value, ".lock") || strings.HasSuffix(w.value, "/") ||
			strings.HasPrefix(w.value, "/") {
			return fmt.Errorf("%q cannot be the name of a reference", w.value)
		}
	case byHead:
	}
	return nil
}

// badName matches what git check-ref-format refuses, path segments that begin with a dot among it.
var badName = regexp.MustCompile(`[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|^-|(^|/)\.`)

// listing are a repository's references at one moment.
type listing struct {
	head   string // what HEAD points to, if known
	refs   map[string]plumbing.Hash
	peeled map[string]plumbing.Hash // what annotated tags point to
	// remote is the connection that listed them, which can fetch once.
	remote session
	caps   capabilities
	// partial listings hold only the references that were asked for.
	partial bool
}

// selection is a reference and what it points to.
type selection struct {
	kind   kind
	ref    string        // full name; empty for a commit
	object plumbing.Hash // what the reference holds: a commit or an annotated tag
	commit plumbing.Hash
	prefix string // an abbreviated commit id that is still to be found
}

func (l *listing) selection(k kind, ref string) (selection, bool) {
	h, ok := l.refs[ref]
	if !ok {
		return selection{}, false
	}
	s := selection{kind: k, ref: ref, object: h, commit: h}
	if p, ok := l.peeled[ref]; ok {
		s.commit = p
	}
	return s, true
}

var abbreviated = regexp.MustCompile(`^[0-9a-f]{4,39}$`)

// resolve finds what is wanted among the references. It is a function of its arguments alone.
func resolve(w want, l *listing) (selection, error) {
	switch w.kind {
	case byHead:
		if s, ok := l.selection(byBranch, l.head); ok {
			return s, nil
		}
		if s, ok := l.selection(byBranch, "HEAD"); ok {
			return s, nil
		}
		if len(l.refs) == 0 {
			return selection{}, ErrEmptyRepository
		}
		return selection{}, fmt.Errorf("%w: the repository has no default branch that exists (HEAD points to %q): name a branch%s",
			ErrNoReference, l.head, near("", l.short("refs/heads/")))
	case byBranch:
		if s, ok := l.selection(byBranch, "refs/heads/"+w.value); ok {
			return s, nil
		}
		return selection{}, l.missing("branch", w.value, l.short("refs/heads/"))
	case byTag:
		if s, ok := l.selection(byTag, "refs/tags/"+w.value); ok {
			return s, nil
		}
		return selection{}, l.missing("tag", w.value, l.short("refs/tags/"))
	case byName:
		if s, ok := l.selection(kindOf(w.value), w.value); ok {
			return s, nil
		}
		return selection{}, l.missing("reference", w.value, l.short(""))
	case bySemVer:
		return l.highest(w.value)
	case byCommit:
		return selection{kind: byCommit, object: plumbing.NewHash(w.value), commit: plumbing.NewHash(w.value)}, nil
	case byWord:
	}
	for _, prefix := range []string{"refs/heads/", "refs/tags/", "refs/"} {
		if s, ok := l.selection(kindOf(prefix+w.value), prefix+w.value); ok {
			return s, nil
		}
	}
	if abbreviated.MatchString(w.value) {
		return selection{kind: byCommit, prefix: w.value}, nil
	}
	return selection{}, l.missing("branch, tag or commit", w.value, slices.Concat(l.short("refs/heads/"), l.short("refs/tags/")))
}

func kindOf(ref string) kind {
	switch {
	case strings.HasPrefix(ref, "refs/heads/"):
		return byBranch
	case strings.HasPrefix(ref, "refs/tags/"):
		return byTag
	}
	return byName
}

// highest returns the tag with the highest version in the range. Of tags with the same version (1.0.0 and
// v1.0.0) the one with the higher name is taken.
func (l *listing) highest(constraint string) (selection, error) {
	c, err := semver.NewConstraint(constraint)
	if err != nil {
		return selection{}, fmt.Errorf("%q is not a range of versions: write it like >=1.2.0 <2.0.0, or ~1.4", constraint)
	}
	var best *semver.Version
	var name string
	var highest *semver.Version
	tags := l.short("refs/tags/")
	slices.Sort(tags)
	for _, tag := range tags {
		v, err := semver.NewVersion(tag)
		if err != nil {
			continue
		}
		if highest == nil || v.GreaterThan(highest) {
			highest = v
		}
		if c.Check(v) && (best == nil || !v.LessThan(best)) {
			best, name = v, tag
		}
	}
	if best == nil {
		hint := "no tag is a version"
		if highest != nil {
			hint = "the highest version is " + highest.Original()
		}
		return selection{}, fmt.Errorf("%w: no tag is in the range %q (%d tags, %s)", ErrNoReference, constraint, len(tags), hint)
	}
	s, _ := l.selection(bySemVer, "refs/tags/"+name)
	return s, nil
}

// short are the names below prefix, without it.
func (l *listing) short(prefix string) []string {
	var names []string
	for ref := range l.refs {
		if name, ok := strings.CutPrefix(ref, prefix); ok && ref != "HEAD" {
			names = append(names, name)
		}
	}
	return names
}

func (l *listing) missing(what, name string, names []string) error {
	return fmt.Errorf("%w: the repository has no %s %q%s", ErrNoReference, what, name, near(name, names))
}

// near names up to three candidates that are like name, or the first ones when none is.
func near(name string, candidates []string) string {
	type scored struct {
		name string
		d    int
	}
	var list []scored
	for _, c := range candidates {
		d := distance(strings.ToLower(name), strings.ToLower(c))
		if strings.Contains(c, name) || strings.Contains(name, c) {
			d = min(d, 2)
		}
		if name == "" || d <= 1+len(name)/3 {
			list = append(list, scored{c, d})
		}
	}
	if len(list) == 0 {
		if len(candidates) == 0 {
			return ""
		}
		return fmt.Sprintf(" (it has %d others)", len(candidates))
	}
	slices.SortFunc(list, func(a, b scored) int { return cmp.Or(cmp.Compare(a.d, b.d), cmp.Compare(a.name, b.name)) })
	var shown []string
	for _, s := range list[:min(3, len(list))] {
		shown = append(shown, s.name)
	}
	return " (it has " + strings.Join(shown, ", ") + ")"
}

// distance is the number of characters to insert, delete or replace.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return len(a) + len(b)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replace := diagonal
			if a[i-1] != b[j-1] {
				replace++
			}
			diagonal = row[j]
			row[j] = min(replace, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
