package plan

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestOrderFindings says what is found in annotations about order, one object each.
func TestOrderFindings(t *testing.T) {
	job := func(notes string) string {
		return "apiVersion: batch/v1\nkind: Job\nmetadata: {name: j, namespace: n, annotations: {" + notes + "}}\nspec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}\n"
	}
	of := func(kind, notes string) string {
		return "apiVersion: v1\nkind: " + kind + "\nmetadata: {name: x, namespace: n, annotations: {" + notes + "}}\n"
	}
	for name, c := range map[string]struct {
		manifest string
		want     []string
	}{
		"fine":              {job(`argocd.argoproj.io/hook: "PreSync, PostSync", argocd.argoproj.io/sync-wave: "-5", argocd.argoproj.io/hook-delete-policy: HookSucceeded`), nil},
		"no number":         {of("ConfigMap", `argocd.argoproj.io/sync-wave: first`), []string{`error invalid-annotation metadata.annotations[argocd.argoproj.io/sync-wave]: "first" is not a whole number`}},
		"unknown hook":      {job(`argocd.argoproj.io/hook: "PreSync,PreDelete"`), []string{`error unsupported-hook metadata.annotations[argocd.argoproj.io/hook]: there are no PreDelete hooks`}},
		"unknown policy":    {job(`argocd.argoproj.io/hook: PreSync, argocd.argoproj.io/hook-delete-policy: Never`), []string{`error invalid-annotation metadata.annotations[argocd.argoproj.io/hook-delete-policy]: there is no policy Never`}},
		"policy of no hook": {job(`argocd.argoproj.io/hook-delete-policy: HookFailed`), []string{`warning no-effect metadata.annotations[argocd.argoproj.io/hook-delete-policy]: has no effect: it is for hooks`}},
		"config as hook":    {of("ConfigMap", `argocd.argoproj.io/hook: PreSync`), []string{`warning no-effect metadata.annotations[argocd.argoproj.io/hook]: a ConfigMap is no hook: it is applied in the phase PreSync, and stays`}},
		"config that fails": {of("ConfigMap", `argocd.argoproj.io/hook: SyncFail`), []string{`error unsupported-hook metadata.annotations[argocd.argoproj.io/hook]: a ConfigMap cannot be a hook`}},
		"service as hook":   {of("Service", `argocd.argoproj.io/hook: Sync`), []string{`error unsupported-hook metadata.annotations[argocd.argoproj.io/hook]: a Service cannot be a hook`}},
		"pod without end": {"apiVersion: v1\nkind: Pod\nmetadata: {name: x, namespace: n, annotations: {argocd.argoproj.io/hook: Sync}}\nspec: {restartPolicy: Always, containers: [{name: c, image: i}]}\n",
			[]string{`error unsupported-hook spec.restartPolicy: a hook has to end, and a Pod that is restarted whenever it ends does not`}},
		"skipped":     {of("Service", `argocd.argoproj.io/hook: Skip`), nil},
		"helm":        {job(`helm.sh/hook: pre-install`), []string{`error not-honoured metadata.annotations[helm.sh/hook]: is not honoured: it would run as any other object`}},
		"helm config": {of("ConfigMap", `helm.sh/hook: pre-install`), []string{`warning not-honoured metadata.annotations[helm.sh/hook]: is not honoured: it is applied as any other object`}},
		"both":        {job(`helm.sh/hook: pre-install, argocd.argoproj.io/hook: PreSync`), nil},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, f := range checkOrder(typedObject(t, []byte(c.manifest)).Value) {
				got = append(got, string(f.Severity)+" "+f.Code+" "+f.Field+": "+f.Message)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +have):\n%s", diff)
			}
		})
	}
}

func TestStagesAreInWords(t *testing.T) {
	for want, s := range map[string]Stage{
		"wave 0": {}, "wave -2": {Wave: -2}, "PreSync": {Phase: PreSync}, "PostSync wave 3": {Phase: PostSync, Wave: 3}, "SyncFail": {Phase: SyncFail},
	} {
		if got := s.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
