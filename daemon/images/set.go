package images

import (
	"cmp"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/fairlead-dev/fairlead/render/object"
)

// Repository is an image whose tags are looked at.
type Repository struct {
	Ref object.Ref
	// Image is without a tag.
	Image string
	// Interval is the time between two looks, Timeout bounds one.
	Interval, Timeout time.Duration
	// Secret has the credentials as pods have them, CertSecret the certificates; without a name there are none.
	Secret, CertSecret object.Ref
	Insecure, Suspend  bool
	// Exclude are regular expressions of tags that nobody wants.
	Exclude []string
	// Requested changes when somebody asks for a look.
	Requested string
}

// Reflection says when a policy follows the digest of its tag.
type Reflection string

// The reflections.
const (
	Never        Reflection = "Never"
	IfNotPresent Reflection = "IfNotPresent"
	Always       Reflection = "Always"
)

// Choice is a policy of one repository.
type Choice struct {
	Ref        object.Ref
	Labels     map[string]string
	Repository object.Ref
	Policy     Policy
	Digest     Reflection
	Suspend    bool
}

// key is how marks name a policy.
func (c Choice) key() string { return c.Ref.Namespace + ":" + c.Ref.Name }

// Automation changes marked fields in a repository.
type Automation struct {
	Ref object.Ref
	// Source is the name of the source; the fields after it are what is checked out of it, all empty for what the source follows.
	Source                               string
	Branch, Tag, SemVer, RefName, Commit string
	// Push is the branch that changes go to; empty for the one that was checked out. PullRequest asks for one from there.
	Push        string
	PullRequest bool
	// Path is the directory whose files are changed.
	Path          string
	Name, Email   string
	SigningKey    object.Ref
	Message       string
	MessageValues map[string]string
	Interval      time.Duration
	Selector      labels.Selector
	Suspend       bool
	Requested     string
	Origin        object.Origin
}

// Set is all that is declared.
type Set struct {
	Repositories []Repository
	Policies     []Choice
	Automations  []Automation
}

// Empty reports whether nothing is declared.
func (s Set) Empty() bool {
	return len(s.Repositories) == 0 && len(s.Policies) == 0 && len(s.Automations) == 0
}

// Add adds what another set has and this one has not, and sorts.
func (s *Set) Add(more Set) {
	s.Repositories = add(s.Repositories, more.Repositories, func(r Repository) object.Ref { return r.Ref })
	s.Policies = add(s.Policies, more.Policies, func(c Choice) object.Ref { return c.Ref })
	s.Automations = add(s.Automations, more.Automations, func(a Automation) object.Ref { return a.Ref })
}

func add[T any](have, more []T, ref func(T) object.Ref) []T {
	out := slices.Clone(have)
	for _, m := range more {
		if !slices.ContainsFunc(have, func(h T) bool { return ref(h) == ref(m) }) {
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(a, b T) int {
		x, y := ref(a), ref(b)
		return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Name, y.Name))
	})
	return out
}

func labelSet(l map[string]string) labels.Labels { return labels.Set(l) }
