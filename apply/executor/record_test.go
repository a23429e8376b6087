package executor

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"pgregory.net/rapid"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// anyPod generates pods with all the shapes that JSON can get wrong: quantities, pointers, empty things
// and text of all kinds.
func anyPod() *rapid.Generator[*plan.Pod] {
	return rapid.Custom(func(t *rapid.T) *plan.Pod {
		text := rapid.String()
		name := rapid.StringMatching(`[a-z][a-z0-9-]{0,20}`)
		key := plan.PodKey{Namespace: name.Draw(t, "namespace"), Name: name.Draw(t, "name")}
		texts := rapid.MapOf(name, text)
		container := rapid.Custom(func(t *rapid.T) corev1.Container {
			c := corev1.Container{
				Name: name.Draw(t, "container"), Image: text.Draw(t, "image"), Command: rapid.SliceOf(text).Draw(t, "command"),
				Env: []corev1.EnvVar{
					{Name: "A", Value: text.Draw(t, "value")},
					{Name: "B", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{Key: text.Draw(t, "key"), Optional: new(rapid.Bool().Draw(t, "optional"))}}},
				},
			}
			if rapid.Bool().Draw(t, "limited") {
				c.Resources.Limits = corev1.ResourceList{
					corev1.ResourceCPU:    *resource.NewMilliQuantity(rapid.Int64Range(0, 1e6).Draw(t, "cpu"), resource.DecimalSI),
					corev1.ResourceMemory: *resource.NewQuantity(rapid.Int64Range(0, 1e15).Draw(t, "memory"), resource.BinarySI),
				}
			}
			return c
		})
		pod := &plan.Pod{
			PodKey: key, Application: text.Draw(t, "application"), SourceRevision: text.Draw(t, "revision"),
			Owner:    object.Ref{Group: "apps", Kind: "Deployment", Namespace: key.Namespace, Name: name.Draw(t, "owner")},
			Template: text.Draw(t, "template"), Labels: texts.Draw(t, "labels"), Annotations: texts.Draw(t, "annotations"),
			Index: rapid.IntRange(-1, 100).Draw(t, "index"),
			Spec: &corev1.PodSpec{
				InitContainers: rapid.SliceOfN(container, 0, 2).Draw(t, "init"), Containers: rapid.SliceOfN(container, 1, 20).Draw(t, "containers"),
				TerminationGracePeriodSeconds: new(rapid.Int64().Draw(t, "grace")),
			},
		}
		pod.Configs = append(pod.Configs, plan.Config{
			Ref: object.Ref{Kind: "Secret", Namespace: key.Namespace, Name: "login"}, Digest: "digest-of-the-secret",
			Data: map[string][]byte{"password": []byte("value-of-the-secret")},
		})
		return pod
	})
}

func TestRecordRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pod := anyPod().Draw(t, "pod")
		s, err := encodeRecord(pod)
		if err != nil {
			t.Fatal(err)
		}
		again, err := encodeRecord(pod)
		if err != nil || again != s {
			t.Fatal("the record of one pod differs from time to time", err)
		}
		got, err := decodeRecord(s)
		if err != nil {
			t.Fatal(err)
		}
		want := *pod
		want.Configs = nil
		quantities := cmp.Comparer(func(a, b resource.Quantity) bool { return a.Cmp(b) == 0 })
		if d := cmp.Diff(&want, got, cmpopts.EquateEmpty(), quantities); d != "" {
			t.Fatalf("(-pod +decoded):\n%s", d)
		}
		plain, err := unpackRecord(s)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(plain), "-of-the-secret") {
			t.Fatal("the record shows a secret")
		}
	})
}

func TestRecordIsCompact(t *testing.T) {
	pod := &plan.Pod{PodKey: plan.PodKey{Namespace: "default", Name: "web"}, Spec: &corev1.PodSpec{}}
	small, err := encodeRecord(pod)
	if err != nil || !strings.HasPrefix(small, plainRecord+"{") {
		t.Errorf("a small record cannot be read by people: %.60q %v", small, err)
	}
	for range 100 {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: "a-container-of-many", Image: "registry.example.com/team/app:1.2.3"})
	}
	large, err := encodeRecord(pod)
	if err != nil || !strings.HasPrefix(large, packedRecord) || len(large) > packFrom {
		t.Errorf("a hundred like containers take %d bytes: %.60q %v", len(large), large, err)
	}
}

func TestRecordRefuses(t *testing.T) {
	for name, s := range map[string]string{
		"nothing":             "",
		"another form":        "2 {}",
		"no JSON":             plainRecord + "{",
		"no pod":              plainRecord + "{}",
		"no base64":           packedRecord + "%%%",
		"broken":              packedRecord + base64.RawStdEncoding.EncodeToString([]byte("not deflated")),
		"cut":                 cutRecord(t),
		"a spec of no object": plainRecord + `{"namespace":"a","name":"b","spec":7}`,
	} {
		if pod, err := decodeRecord(s); err == nil {
			t.Errorf("%s: decoded %+v", name, pod)
		}
	}
}

func cutRecord(t *testing.T) string {
	pod := &plan.Pod{PodKey: plan.PodKey{Namespace: "default", Name: "web"}, Template: strings.Repeat("x", packFrom), Spec: &corev1.PodSpec{}}
	s, err := encodeRecord(pod)
	if err != nil {
		t.Fatal(err)
	}
	return s[:len(s)-3]
}
