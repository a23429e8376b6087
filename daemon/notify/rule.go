package notify

import (
	"fmt"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/fairlead-dev/fairlead/daemon/api"
)

// Rule selects events. Empty fields select everything.
type Rule struct {
	// Severity Warning selects what needs attention only.
	Severity api.EventType
	// Reasons, Applications and Sources are names in which * stands for anything; one of each list must match.
	Reasons, Applications, Sources []string
	// Labels is a label selector for the application that an event is about.
	Labels labels.Selector

	compiled struct{ reasons, applications, sources []*regexp.Regexp }
}

// NewRule returns the rule, or what is wrong with its selector. selector is in Kubernetes' syntax.
func NewRule(r Rule, selector string) (Rule, error) {
	if selector != "" {
		s, err := labels.Parse(selector)
		if err != nil {
			return r, fmt.Errorf("%q is not a label selector: %w", selector, err)
		}
		r.Labels = s
	}
	r.compiled.reasons, r.compiled.applications, r.compiled.sources = globs(r.Reasons), globs(r.Applications), globs(r.Sources)
	return r, nil
}

func globs(list []string) []*regexp.Regexp {
	var out []*regexp.Regexp
	for _, g := range list {
		out = append(out, regexp.MustCompile("^"+strings.ReplaceAll(regexp.QuoteMeta(g), `\*`, ".*")+"$"))
	}
	return out
}

// matches reports whether an event, about an application with these labels, is selected.
func (r Rule) matches(e api.Event, of map[string]string) bool {
	if r.Severity == api.Warning && e.Type != api.Warning {
		return false
	}
	return one(r.compiled.reasons, e.Reason) && one(r.compiled.applications, e.Application) && one(r.compiled.sources, e.Source) &&
		(r.Labels == nil || e.Application != "" && r.Labels.Matches(labels.Set(of)))
}

func one(list []*regexp.Regexp, s string) bool {
	for _, g := range list {
		if g.MatchString(s) {
			return true
		}
	}
	return len(list) == 0
}
