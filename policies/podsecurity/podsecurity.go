// Package podsecurity judges pods by Kubernetes' Pod Security Standards, as the labels of their namespaces ask for them.
//
// The checks themselves are Kubernetes' own. It is pure.
package podsecurity

import (
	"encoding/json"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Code is that of the findings.
const Code = "pod-security"

// Defaults are the levels of namespaces that have no label of the kind: privileged, baseline or restricted; empty is privileged.
type Defaults struct {
	Enforce, Warn, Audit string
}

// policy returns the defaults as Kubernetes has them.
func (d Defaults) policy() (api.Policy, error) {
	var p api.Policy
	for _, l := range []struct {
		at   *api.LevelVersion
		text string
	}{{&p.Enforce, d.Enforce}, {&p.Warn, d.Warn}, {&p.Audit, d.Audit}} {
		*l.at = api.LevelVersion{Level: api.LevelPrivileged, Version: api.LatestVersion()}
		if l.text == "" {
			continue
		}
		level, err := api.ParseLevel(l.text)
		if err != nil {
			return p, fmt.Errorf("%q is no level: use privileged, baseline or restricted", l.text)
		}
		l.at.Level = level
	}
	return p, nil
}

// Check reports what is wrong with the defaults.
func (d Defaults) Check() error {
	_, err := d.policy()
	return err
}

// Standards are what the namespaces ask for. They are immutable.
type Standards struct {
	checks    policy.Evaluator
	otherwise api.Policy
	spaces    map[string]api.Policy
	bounded   bool // any is more than privileged
}

// New makes standards of objects; those that are no Namespaces are passed over. Of two with one name the first counts. A label that
// cannot be read counts for the strictest level, as in Kubernetes.
func New(objects []object.Object, defaults Defaults) *Standards {
	otherwise, _ := defaults.policy() // the settings were checked; what is wrong is privileged
	s := &Standards{checks: checks(), otherwise: otherwise, spaces: map[string]api.Policy{}, bounded: !otherwise.FullyPrivileged()}
	for i := range objects {
		ns, ok := objects[i].Value.(*corev1.Namespace)
		if _, known := s.spaces[objects[i].Name]; !ok || known {
			continue
		}
		p, _ := api.PolicyToEvaluate(ns.Labels, otherwise)
		s.spaces[ns.Name] = p
		s.bounded = s.bounded || !p.FullyPrivileged()
	}
	return s
}

// checks are Kubernetes' own. Making them takes a while, and they never change.
var checks = sync.OnceValue(func() policy.Evaluator {
	e, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		panic(fmt.Sprintf("the checks of the library contradict each other: %v", err))
	}
	return e
})

// IsNamespace reports whether objects of a kind say what is asked for.
func IsNamespace(ref object.Ref) bool { return ref.Group == "" && ref.Kind == "Namespace" }

// Applied returns the Namespaces in an inventory, as they were applied.
func Applied(inventory []plan.Applied) []object.Object {
	var out []object.Object
	for i := range inventory {
		var ns corev1.Namespace
		if a := &inventory[i]; IsNamespace(a.Ref) && json.Unmarshal(a.Written, &ns) == nil {
			out = append(out, object.Object{Ref: a.Ref, Hash: a.Hash, Value: &ns})
		}
	}
	return out
}

// Judge returns a finding for every workload that a plan creates or changes and whose pods its namespace does not allow. Where it
// enforces that is an error, where it warns a warning, where it audits an information. What runs is left alone, as in Kubernetes; with all
// it is told of too. desired is what the plan was computed from.
func (s *Standards) Judge(p plan.Plan, desired plan.Desired, all bool) diag.List {
	var found diag.List
	changed := map[object.Ref]bool{}
	for i := range p.Changes {
		if a := p.Changes[i].Action; a != plan.ActionNone && a != plan.ActionDelete {
			changed[p.Changes[i].Ref] = true
		}
	}
	for i := range desired.Objects {
		if o := &desired.Objects[i]; changed[o.Ref] && IsNamespace(o.Ref) {
			found = append(found, labels(o)...)
		}
	}
	if !s.bounded {
		return found
	}
	for i := range desired.Workloads {
		w := &desired.Workloads[i]
		if changed[w.Ref] || all {
			found = append(found, s.judge(w, changed[w.Ref])...)
		}
	}
	return found
}

// labels returns what is wrong with the labels of a Namespace.
func labels(o *object.Object) diag.List {
	ns, ok := o.Value.(*corev1.Namespace)
	if !ok {
		return nil
	}
	var found diag.List
	_, errs := api.PolicyToEvaluate(ns.Labels, api.Policy{})
	for _, e := range errs {
		found = append(found, diag.Diagnostic{
			Severity: diag.Error, Code: Code, Ref: o.Ref, Origin: o.Origin, Field: e.Field,
			Message: fmt.Sprintf("%q is not possible: %s", e.BadValue, e.Detail),
			Hint:    "levels are privileged, baseline and restricted, versions latest or like v1.30",
		})
	}
	return found
}

// judge judges one workload.
func (s *Standards) judge(w *plan.Workload, changed bool) diag.List {
	levels, known := s.spaces[w.Namespace]
	if !known {
		levels = s.otherwise
	}
	var found diag.List
	told := map[string]bool{}
	for _, mode := range []struct {
		api.LevelVersion
		severity diag.Severity
		verb     string
	}{{levels.Enforce, diag.Error, "enforces"}, {levels.Warn, diag.Warning, "warns by"}, {levels.Audit, diag.Info, "audits by"}} {
		meta := metav1.ObjectMeta{Namespace: w.Namespace, Name: w.Name, Labels: w.Pod.Labels, Annotations: w.Pod.Annotations}
		result := policy.AggregateCheckResults(s.checks.EvaluatePod(mode.LevelVersion, &meta, w.Pod.Spec))
		why := result.ForbiddenDetail()
		if result.Allowed || told[why] {
			continue
		}
		told[why] = true
		d := diag.Diagnostic{
			Severity: mode.severity, Code: Code, Ref: w.Ref, Origin: w.Origin,
			Message: fmt.Sprintf("namespace %s %s the Pod Security Standard %s: %s", w.Namespace, mode.verb, mode.LevelVersion.String(), why),
			Hint:    "see docs/pod-security.md",
		}
		if mode.severity == diag.Error && !changed {
			d.Severity, d.Message = diag.Warning, d.Message+"; what runs is left alone, and the next change of it is refused"
		}
		found = append(found, d)
	}
	return found
}
