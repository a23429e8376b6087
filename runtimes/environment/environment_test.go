package environment

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/runtimes"
)

// testPod has one container of which text is the YAML, a ConfigMap and a Secret.
func testPod(t *testing.T, text string) *plan.Pod {
	t.Helper()
	c := corev1.Container{Name: "app"}
	if err := yaml.UnmarshalStrict([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	config := func(kind, name string, data map[string]string) plan.Config {
		out := plan.Config{Ref: object.Ref{Kind: kind, Namespace: "shop", Name: name}, Data: map[string][]byte{}}
		for k, v := range data {
			out.Data[k] = []byte(v)
		}
		return out
	}
	return &plan.Pod{
		PodKey:      plan.PodKey{Namespace: "shop", Name: "web-0"},
		Labels:      map[string]string{"tier": "front", "app": `"quoted"`},
		Annotations: map[string]string{"example.com/note": "two\nlines"},
		Spec: &corev1.PodSpec{ServiceAccountName: "robot", Containers: []corev1.Container{c, {
			Name: "other", Resources: corev1.ResourceRequirements{
				Limits:   corev1.ResourceList{"cpu": resource.MustParse("1500m"), "memory": resource.MustParse("100Mi")},
				Requests: corev1.ResourceList{"cpu": resource.MustParse("1m"), "hugepages-2Mi": resource.MustParse("4Mi")},
			},
		}}},
		Configs: []plan.Config{
			config("ConfigMap", "settings", map[string]string{"level": "debug", "with.dot": "1", "A": "from config"}),
			config("ConfigMap", "strange", map[string]string{"a=b": "1", "": "2", "nul": "x\x00y"}),
			config("Secret", "settings", map[string]string{"level": "secret"}),
		},
	}
}

func testFacts() Facts {
	return Facts{
		UID: "uid-1", NodeName: "node-1", PodIPs: []string{"10.0.0.2", "fd00::2"}, HostIPs: []string{"192.0.2.1"},
		Allocatable: corev1.ResourceList{"cpu": resource.MustParse("4"), "memory": resource.MustParse("8Gi"), "ephemeral-storage": resource.MustParse("10Gi")},
	}
}

func TestBuild(t *testing.T) {
	for _, tt := range []struct {
		name, container string
		want            []string
		class           error
		says            string
	}{
		{name: "nothing", container: `{}`},
		{name: "values", container: `env: [{name: B, value: b}, {name: A, value: a}, {name: EMPTY}]`, want: []string{"B=b", "A=a", "EMPTY="}},
		{name: "the last of a name counts, in the first one's place", container: `env: [{name: A, value: "1"}, {name: B}, {name: A, value: "2"}]`, want: []string{"A=2", "B="}},
		{name: "references to what comes before", container: `env: [{name: A, value: a}, {name: B, value: "$(A)$(C)$$(A)"}, {name: C, value: c}]`,
			want: []string{"A=a", "B=a$(C)$(A)", "C=c"}},
		{name: "a reference to its own earlier value", container: `env: [{name: A, value: a}, {name: A, value: "$(A):b"}]`, want: []string{"A=a:b"}},
		{name: "from a ConfigMap", container: `envFrom: [{configMapRef: {name: settings}}]`, want: []string{"A=from config", "level=debug", "with.dot=1"}},
		{name: "with a prefix", container: `envFrom: [{prefix: X_, configMapRef: {name: settings}}]`, want: []string{"X_A=from config", "X_level=debug", "X_with.dot=1"}},
		{name: "later sources win", container: `envFrom: [{configMapRef: {name: settings}}, {secretRef: {name: settings}}]`, want: []string{"A=from config", "level=secret", "with.dot=1"}},
		{name: "env wins over envFrom", container: `{envFrom: [{configMapRef: {name: settings}}], env: [{name: A, value: "mine, not $(A), $(level)"}]}`,
			want: []string{"A=mine, not from config, debug", "level=debug", "with.dot=1"}},
		{name: "optional and missing", container: `{envFrom: [{configMapRef: {name: absent, optional: true}}], env: [` +
			`{name: A, valueFrom: {configMapKeyRef: {name: absent, key: k, optional: true}}}, {name: B, valueFrom: {secretKeyRef: {name: settings, key: absent, optional: true}}}]}`},
		{name: "missing ConfigMap", container: `envFrom: [{configMapRef: {name: absent}}]`, class: runtimes.ErrMissing, says: "container app: envFrom[0]: ConfigMap shop/absent does not exist"},
		{name: "missing Secret", container: `envFrom: [{secretRef: {name: absent}}]`, class: runtimes.ErrMissing, says: "Secret shop/absent"},
		{name: "missing key", container: `env: [{name: A, valueFrom: {secretKeyRef: {name: settings, key: absent}}}]`, class: runtimes.ErrMissing, says: `container app: env A: Secret shop/settings has no key "absent"`},
		{name: "names that no variable can have", container: `envFrom: [{prefix: "", configMapRef: {name: strange}}]`, class: runtimes.ErrInvalid, says: "env nul: the value contains a NUL byte"},
		{name: "a file", container: `env: [{name: A, valueFrom: {fileKeyRef: {volumeName: v, path: p, key: k}}}]`, class: runtimes.ErrInvalid, says: "fileKeyRef"},
		{name: "an unknown field", container: `env: [{name: A, valueFrom: {fieldRef: {fieldPath: status.phase}}}]`, class: runtimes.ErrInvalid, says: `"status.phase"`},
		{name: "all labels", container: `env: [{name: A, valueFrom: {fieldRef: {fieldPath: metadata.labels}}}]`, class: runtimes.ErrInvalid, says: `"metadata.labels"`},
		{name: "the pod", container: `env: [` +
			`{name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}, {name: NS, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}, ` +
			`{name: UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}, {name: TIER, valueFrom: {fieldRef: {fieldPath: "metadata.labels['tier']"}}}, ` +
			`{name: NONE, valueFrom: {fieldRef: {fieldPath: "metadata.labels['none']"}}}, {name: NOTE, valueFrom: {fieldRef: {fieldPath: "metadata.annotations['example.com/note']"}}}, ` +
			`{name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}, {name: SA, valueFrom: {fieldRef: {fieldPath: spec.serviceAccountName}}}, ` +
			`{name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}, {name: IPS, valueFrom: {fieldRef: {fieldPath: status.podIPs}}}, ` +
			`{name: HOST, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}, {name: HOSTS, valueFrom: {fieldRef: {fieldPath: status.hostIPs}}}]`,
			want: []string{
				"NAME=web-0", "NS=shop", "UID=uid-1", "TIER=front", "NONE=", "NOTE=two\nlines", "NODE=node-1", "SA=robot",
				"IP=10.0.0.2", "IPS=10.0.0.2,fd00::2", "HOST=192.0.2.1", "HOSTS=192.0.2.1",
			}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pod := testPod(t, tt.container)
			got, err := Build(pod, &pod.Spec.Containers[0], testFacts())
			if tt.class != nil {
				if !errors.Is(err, tt.class) || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("error %v, want %q", err, tt.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(got) == 0 && len(tt.want) == 0 {
				return
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestResources(t *testing.T) {
	pod := testPod(t, `{}`)
	for _, tt := range []struct{ container, resource, divisor, want string }{
		{"other", "limits.cpu", "", "2"}, // rounded up
		{"other", "limits.cpu", "1m", "1500"},
		{"other", "requests.cpu", "", "1"},
		{"other", "requests.cpu", "1m", "1"},
		{"other", "limits.memory", "", "104857600"},
		{"other", "limits.memory", "1Mi", "100"},
		{"other", "limits.memory", "1Gi", "1"},
		{"other", "requests.memory", "", "0"},
		{"other", "requests.hugepages-2Mi", "1Mi", "4"},
		{"other", "limits.hugepages-2Mi", "", "0"},
		{"app", "limits.cpu", "", "4"}, // the node's
		{"app", "limits.memory", "1Gi", "8"},
		{"app", "limits.ephemeral-storage", "1Gi", "10"},
		{"app", "requests.cpu", "", "0"},
		{"absent", "limits.cpu", "", `error: "absent"`},
		{"", "limits.cpu", "", "error: names no container"},
		{"app", "limits.gpus", "", `error: "limits.gpus"`},
		{"app", "cpu", "", `error: "cpu"`},
		{"app", "maximum.cpu", "", `error: "maximum.cpu"`},
	} {
		ref := &corev1.ResourceFieldSelector{ContainerName: tt.container, Resource: tt.resource}
		if tt.divisor != "" {
			ref.Divisor = resource.MustParse(tt.divisor)
		}
		got, err := testFacts().VolumeResource(pod, ref)
		if want, bad := strings.CutPrefix(tt.want, "error: "); bad {
			if !errors.Is(err, runtimes.ErrInvalid) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s %s: error %v, want %s", tt.container, tt.resource, err, want)
			}
			continue
		}
		if err != nil || got != tt.want {
			t.Errorf("%s %s in %s: %s, %v, want %s", tt.container, tt.resource, tt.divisor, got, err, tt.want)
		}
	}
}

func TestVolumeField(t *testing.T) {
	pod := testPod(t, `{}`)
	for path, want := range map[string]string{
		"metadata.name":                            "web-0",
		"metadata.labels":                          "app=\"\\\"quoted\\\"\"\ntier=\"front\"",
		"metadata.annotations":                     `example.com/note="two\nlines"`,
		"metadata.labels['tier']":                  "front",
		"metadata.annotations['example.com/note']": "two\nlines",
	} {
		if got, err := testFacts().VolumeField(pod, path); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", path, got, err, want)
		}
	}
	for _, path := range []string{"status.podIP", "spec.nodeName", "metadata.labels['tier'", "metadata.finalizers['x']", ""} {
		if got, err := testFacts().VolumeField(pod, path); !errors.Is(err, runtimes.ErrInvalid) {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
}

// TestExpandIsKubernetes holds that references are expanded exactly as Kubernetes expands them.
func TestExpandIsKubernetes(t *testing.T) {
	env := []string{"A=a", "B=$(A)", "EMPTY="}
	mapping := expansion.MappingFuncFor(map[string]string{"A": "a", "B": "$(A)", "EMPTY": ""})
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOf(rapid.SampledFrom([]string{"$", "$$", "(", ")", "A", "B", "EMPTY", "MISSING", "$(A)", "$(B)", "$(", "ü", " "})).Draw(t, "parts")
		in := strings.Join(parts, "")
		want := expansion.Expand(in, mapping)
		if got := Expand([]string{in}, env)[0]; got != want {
			t.Fatalf("%q becomes %q, in Kubernetes %q", in, got, want)
		}
	})
	if Expand(nil, env) != nil {
		t.Error("no arguments became some")
	}
}

func TestExpandPath(t *testing.T) {
	if got, err := ExpandPath("logs/$(A)/$$(A)", []string{"A=a"}); err != nil || got != "logs/a/$(A)" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := ExpandPath("$(A)/$(B)/$(C)", []string{"B=b"}); !errors.Is(err, runtimes.ErrInvalid) || !strings.Contains(err.Error(), "A, C") {
		t.Errorf("what is not defined: %v", err)
	}
}
