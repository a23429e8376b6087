package plan

import (
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// checkOrder finds what is wrong with the annotations by which an object says when it is applied, and what of them
// cannot be honoured.
func checkOrder(o runtime.Object) []diag.Finding {
	m, err := meta.Accessor(o)
	if err != nil {
		return nil
	}
	notes := m.GetAnnotations()
	if len(notes) == 0 {
		return nil
	}
	k := o.GetObjectKind().GroupVersionKind()
	c := orderCheck{ref: object.Ref{Group: k.Group, Kind: k.Kind}}
	if text, has := notes[waveAnnotation]; has {
		if _, err := strconv.Atoi(strings.TrimSpace(text)); err != nil {
			c.add(diag.Error, "invalid-annotation", waveAnnotation, fmt.Sprintf("%q is not a whole number", text), "write one, in quotes; lower waves come first")
		}
	}
	text, isHook := notes[hookAnnotation]
	if isHook {
		c.hook(text, o)
	}
	if text, has := notes[hookDeleteAnnotation]; has {
		c.deletePolicy(text, isHook)
	}
	if _, has := notes[helmHookAnnotation]; has && !isHook {
		severity, what := diag.Warning, "it is applied as any other object"
		if runsPods(c.ref) {
			severity, what = diag.Error, "it would run as any other object"
		}
		c.add(severity, "not-honoured", helmHookAnnotation, "is not honoured: "+what, "write "+hookAnnotation+", with the value Skip to leave the object out")
	}
	return c.found
}

type orderCheck struct {
	ref   object.Ref
	found []diag.Finding
}

func (c *orderCheck) add(severity diag.Severity, code, annotation, message, hint string) {
	c.found = append(c.found, diag.Finding{
		Severity: severity, Code: code, Field: "metadata.annotations[" + annotation + "]", Message: message, Hint: hint,
	})
}

// runsPods reports whether objects of a kind run something, or are reached: what matters when it comes too early.
func runsPods(r object.Ref) bool {
	switch r.Kind {
	case "Pod", "Job", "Deployment", "ReplicaSet", "StatefulSet", "DaemonSet":
		return true
	}
	return false
}

func (c *orderCheck) hook(text string, o runtime.Object) {
	var in Phases
	skip := false
	for word := range words(text) {
		var p Phase
		switch {
		case word == "Skip":
			skip = true
		case p.UnmarshalText([]byte(word)) == nil:
			in.add(p)
		default:
			c.add(diag.Error, "unsupported-hook", hookAnnotation, fmt.Sprintf("there are no %s hooks", word), "write PreSync, Sync, PostSync, SyncFail or Skip")
		}
	}
	switch {
	case skip || in == 0:
	case !hookKind(c.ref) && (runsPods(c.ref) || c.ref.Kind == "Service" || in.first() == SyncFail):
		c.add(diag.Error, "unsupported-hook", hookAnnotation, fmt.Sprintf("a %s cannot be a hook", c.ref.Kind), "only Jobs and Pods are hooks; give it a wave instead")
	case !hookKind(c.ref):
		c.add(diag.Warning, "no-effect", hookAnnotation,
			fmt.Sprintf("a %s is no hook: it is applied in the phase %s, and stays", c.ref.Kind, in.first()), "only Jobs and Pods are hooks")
	}
	if p, is := o.(*corev1.Pod); is && !skip && in != 0 && p.Spec.RestartPolicy != corev1.RestartPolicyNever && p.Spec.RestartPolicy != corev1.RestartPolicyOnFailure {
		c.found = append(c.found, diag.Finding{
			Severity: diag.Error, Code: "unsupported-hook", Field: "spec.restartPolicy",
			Message: "a hook has to end, and a Pod that is restarted whenever it ends does not", Hint: "write Never or OnFailure",
		})
	}
}

func (c *orderCheck) deletePolicy(text string, isHook bool) {
	for word := range words(text) {
		switch word {
		case "HookSucceeded", "HookFailed", "BeforeHookCreation":
		default:
			c.add(diag.Error, "invalid-annotation", hookDeleteAnnotation, fmt.Sprintf("there is no policy %s", word), "write HookSucceeded, HookFailed or BeforeHookCreation")
		}
	}
	if !isHook || !hookKind(c.ref) {
		c.add(diag.Warning, "no-effect", hookDeleteAnnotation, "has no effect: it is for hooks", "remove it, or write "+hookAnnotation)
	}
}
