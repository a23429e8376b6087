// Package images keeps the images in manifests at the newest tags that policies choose: it asks registries for tags,
// edits the fields that are marked in the files of a repository, and nothing else in them, and pushes the change as a commit.
package images

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"strconv"

	"github.com/Masterminds/semver/v3"
)

// Order is the direction in which tags are sorted; the last one is chosen.
type Order string

// The orders. Ascending is the default: of letters it chooses Z, of numbers the largest.
const (
	Ascending  Order = "asc"
	Descending Order = "desc"
)

// Policy chooses one tag of many. Exactly one of SemVer, Alphabetical and Numerical is set.
type Policy struct {
	// SemVer is a range of versions.
	SemVer string
	// Alphabetical and Numerical sort tags.
	Alphabetical, Numerical Order
	// Pattern is a regular expression that tags must match; Extract makes from its groups what is compared, for example $ts.
	Pattern, Extract string
}

// String says what the policy chooses.
func (p Policy) String() string {
	s := ""
	switch {
	case p.SemVer != "":
		s = "semver " + p.SemVer
	case p.Alphabetical != "":
		s = "alphabetical " + string(p.Alphabetical)
	case p.Numerical != "":
		s = "numerical " + string(p.Numerical)
	}
	if p.Pattern != "" {
		s += " of " + p.Pattern
	}
	return s
}

// Check says what is wrong with a policy.
func (p Policy) Check() error {
	set := 0
	for _, v := range []string{p.SemVer, string(p.Alphabetical), string(p.Numerical)} {
		if v != "" {
			set++
		}
	}
	if set != 1 {
		return errors.New("must be one of semver, alphabetical and numerical")
	}
	for _, o := range []Order{p.Alphabetical, p.Numerical} {
		if o != "" && o != Ascending && o != Descending {
			return fmt.Errorf("the order %q is unknown: use asc or desc", string(o))
		}
	}
	if p.SemVer != "" {
		if _, err := semver.NewConstraint(p.SemVer); err != nil {
			return fmt.Errorf("%q is not a range of versions: %w", p.SemVer, err)
		}
	}
	if _, err := regexp.Compile(p.Pattern); err != nil {
		return fmt.Errorf("%q is not a regular expression: %w", p.Pattern, err)
	}
	return nil
}

// Latest returns the tag that a policy chooses. The order of tags is of no consequence.
func (p Policy) Latest(tags []string) (string, error) {
	if err := p.Check(); err != nil {
		return "", err
	}
	candidates, err := p.candidates(tags)
	if err != nil {
		return "", err
	}
	var best *candidate
	for _, c := range candidates {
		better, err := p.better(c, best)
		if err != nil {
			return "", err
		}
		if better {
			best = c
		}
	}
	if best == nil {
		return "", fmt.Errorf("none of %d tags fits %s", len(tags), p)
	}
	return best.tag, nil
}

// candidate is a tag and what is compared of it.
type candidate struct {
	tag, value string
	version    *semver.Version
	number     float64
}

func (p Policy) candidates(tags []string) ([]*candidate, error) {
	var out []*candidate
	var pattern *regexp.Regexp
	if p.Pattern != "" {
		pattern = regexp.MustCompile(p.Pattern) // it was checked
	}
	for _, t := range tags {
		c := &candidate{tag: t, value: t}
		if pattern != nil {
			groups := pattern.FindStringSubmatchIndex(t)
			if groups == nil {
				continue
			}
			if p.Extract != "" {
				c.value = string(pattern.ExpandString(nil, p.Extract, t, groups))
			}
		}
		switch {
		case p.SemVer != "":
			v, err := semver.NewVersion(c.value)
			if err != nil {
				continue // other tags may stand beside versions
			}
			c.version = v
		case p.Numerical != "":
			n, err := strconv.ParseFloat(c.value, 64)
			if err != nil || n != n {
				return nil, fmt.Errorf("the tag %s is no number: filter tags by a pattern that only numbers match, or extract one", t)
			}
			c.number = n
		}
		out = append(out, c)
	}
	return out, nil
}

// better reports whether c is to be chosen before best. What is equal is decided by the tag, so that equal tags always have
// the same choice.
func (p Policy) better(c, best *candidate) (bool, error) {
	if p.SemVer != "" {
		constraint, err := semver.NewConstraint(p.SemVer)
		if err != nil {
			return false, err
		}
		if !constraint.Check(c.version) {
			return false, nil
		}
	}
	if best == nil {
		return true, nil
	}
	order := 0
	switch {
	case p.SemVer != "":
		order = c.version.Compare(best.version)
	case p.Numerical == Descending:
		order = -cmp.Compare(c.number, best.number)
	case p.Numerical != "":
		order = cmp.Compare(c.number, best.number)
	case p.Alphabetical == Descending:
		order = -cmp.Compare(c.value, best.value)
	default:
		order = cmp.Compare(c.value, best.value)
	}
	return cmp.Or(order, cmp.Compare(c.tag, best.tag)) > 0, nil
}

// Excluded returns the tags that no pattern of a list matches.
func Excluded(tags []string, patterns []*regexp.Regexp) []string {
	var out []string
next:
	for _, t := range tags {
		for _, p := range patterns {
			if p.MatchString(t) {
				continue next
			}
		}
		out = append(out, t)
	}
	return out
}

// imageName is the form of the name of an image without tag and digest.
var imageName = regexp.MustCompile(`^([a-zA-Z0-9.-]+(:[0-9]+)?/)?[a-z0-9]+([._/-]+[a-z0-9]+)*$`)

// ParseRepository returns the name of an image, or an error when it has a tag, a digest or a scheme.
func ParseRepository(image string) (string, error) {
	if !imageName.MatchString(image) {
		return "", fmt.Errorf("%q is not the name of an image without tag, digest and scheme", image)
	}
	return image, nil
}
