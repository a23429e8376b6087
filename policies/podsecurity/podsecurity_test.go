package podsecurity

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

func namespace(name string, labels map[string]string) object.Object {
	return object.Object{
		Ref:    object.Ref{Kind: "Namespace", Name: name},
		Origin: object.Origin{Path: "ns.yaml", Line: 1},
		Value:  &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}},
	}
}

func workload(name, namespace string, spec corev1.PodSpec) plan.Workload {
	ref := object.Ref{Group: "apps", Kind: "Deployment", Namespace: namespace, Name: name}
	return plan.Workload{Object: object.Object{Ref: ref, Origin: object.Origin{Path: "web.yaml", Line: 3}}, Pod: &plan.Pod{Owner: ref, Spec: &spec}}
}

func TestJudge(t *testing.T) {
	plain := corev1.PodSpec{Containers: []corev1.Container{{Name: "web"}}}
	host := corev1.PodSpec{HostNetwork: true, Containers: []corev1.Container{{Name: "web"}}}
	ref := object.Ref{Group: "apps", Kind: "Deployment", Namespace: "shop", Name: "web"}
	change := []plan.Change{{Ref: ref, Action: plan.ActionCreate}}
	enforced := func(level string) map[string]string {
		return map[string]string{"pod-security.kubernetes.io/enforce": level}
	}
	const hint = " (see docs/pod-security.md)"
	for _, c := range []struct {
		name     string
		labels   map[string]string
		defaults Defaults
		spec     corev1.PodSpec
		changes  []plan.Change
		all      bool
		want     []string
	}{
		{name: "nothing is asked for", spec: host, changes: change},
		{name: "what is allowed", labels: enforced("baseline"), spec: plain, changes: change},
		{name: "what is forbidden", labels: enforced("baseline"), spec: host, changes: change, want: []string{
			`web.yaml:3: error: Deployment shop/web: namespace shop enforces the Pod Security Standard baseline:latest: host namespaces (hostNetwork=true)` + hint,
		}},
		{name: "of an earlier version", labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/enforce-version": "v1.8"}, spec: plain, changes: change, want: []string{
			`web.yaml:3: error: Deployment shop/web: namespace shop enforces the Pod Security Standard restricted:v1.8: allowPrivilegeEscalation != false (container "web" must set securityContext.allowPrivilegeEscalation=false), ` +
				`runAsNonRoot != true (pod or container "web" must set securityContext.runAsNonRoot=true)` + hint,
		}},
		{name: "what is warned of and audited", labels: map[string]string{"pod-security.kubernetes.io/warn": "baseline", "pod-security.kubernetes.io/audit": "baseline"}, spec: host, changes: change, want: []string{
			`web.yaml:3: warning: Deployment shop/web: namespace shop warns by the Pod Security Standard baseline:latest: host namespaces (hostNetwork=true)` + hint,
		}},
		{name: "the default", defaults: Defaults{Enforce: "baseline"}, spec: host, changes: change, want: []string{
			`web.yaml:3: error: Deployment shop/web: namespace shop enforces the Pod Security Standard baseline:latest: host namespaces (hostNetwork=true)` + hint,
		}},
		{name: "a label against the default", defaults: Defaults{Enforce: "baseline"}, labels: enforced("privileged"), spec: host, changes: change},
		{name: "what runs", labels: enforced("baseline"), spec: host, changes: []plan.Change{{Ref: ref, Action: plan.ActionNone, Pods: []plan.PodChange{{Action: plan.ActionCreate}}}}},
		{name: "what goes", labels: enforced("baseline"), spec: host, changes: []plan.Change{{Ref: ref, Action: plan.ActionDelete}}},
		{name: "what runs, and is asked for", labels: enforced("baseline"), spec: host, all: true, want: []string{
			`web.yaml:3: warning: Deployment shop/web: namespace shop enforces the Pod Security Standard baseline:latest: host namespaces (hostNetwork=true); what runs is left alone, and the next change of it is refused` + hint,
		}},
		{name: "a level that is none", labels: enforced("strict"), spec: plain, changes: []plan.Change{{Ref: object.Ref{Kind: "Namespace", Name: "shop"}, Action: plan.ActionCreate}}, want: []string{
			`ns.yaml:1: error: Namespace shop: metadata.labels[pod-security.kubernetes.io/enforce]: "strict" is not possible: must be one of privileged, baseline, restricted (levels are privileged, baseline and restricted, versions latest or like v1.30)`,
		}},
		{name: "which counts for the strictest", labels: enforced("strict"), spec: host, changes: change, want: []string{
			`web.yaml:3: error: Deployment shop/web: namespace shop enforces the Pod Security Standard restricted:latest: host namespaces (hostNetwork=true), ` +
				`allowPrivilegeEscalation != false (container "web" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container "web" must set securityContext.capabilities.drop=["ALL"]), ` +
				`runAsNonRoot != true (pod or container "web" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container "web" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")` + hint,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var objects []object.Object
			if c.labels != nil {
				objects = append(objects, namespace("shop", c.labels))
			}
			desired := plan.Desired{Objects: objects, Workloads: []plan.Workload{workload("web", "shop", c.spec)}}
			var got []string
			for _, d := range New(objects, c.defaults).Judge(plan.Plan{Changes: c.changes}, desired, c.all) {
				got = append(got, d.String())
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestUpstreamFixtures judges every pod that Kubernetes' own tests have for every level and version.
func TestUpstreamFixtures(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/pod-security-admission").Output()
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(strings.TrimSpace(string(out)), "test", "testdata")
	files, err := filepath.Glob(root + "/*/*/*/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	judged := map[string]int{}
	for _, file := range files {
		parts := strings.Split(strings.TrimPrefix(file, root+"/"), "/")
		level, version, verdict := parts[0], parts[1], parts[2]
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var pod corev1.Pod
		if err := yaml.Unmarshal(b, &pod); err != nil {
			t.Fatal(err)
		}
		for i := range pod.Spec.Volumes { // what Kubernetes' defaults make of a volume that says nothing
			if v := &pod.Spec.Volumes[i]; v.VolumeSource == (corev1.VolumeSource{}) {
				v.EmptyDir = &corev1.EmptyDirVolumeSource{}
			}
		}
		labels := map[string]string{"pod-security.kubernetes.io/enforce": level, "pod-security.kubernetes.io/enforce-version": version}
		w := workload("web", "shop", pod.Spec)
		w.Pod.Labels, w.Pod.Annotations = pod.Labels, pod.Annotations
		found := New([]object.Object{namespace("shop", labels)}, Defaults{}).Judge(
			plan.Plan{Changes: []plan.Change{{Ref: w.Ref, Action: plan.ActionUpdate}}}, plan.Desired{Workloads: []plan.Workload{w}}, false)
		if found.HasErrors() != (verdict == "fail") {
			t.Errorf("%s: found %v", strings.TrimPrefix(file, root+"/"), found)
		}
		judged[verdict]++
	}
	t.Logf("judged: %v", judged)
	if judged["pass"] < 1000 || judged["fail"] < 1000 {
		t.Errorf("only %v fixtures were judged", judged)
	}
}
