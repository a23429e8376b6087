package daemon

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/daemon/applications"
	"github.com/fairlead-dev/fairlead/daemon/reconcile"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/plan/planfile"
	"github.com/fairlead-dev/fairlead/plan/plantest"
	"github.com/fairlead-dev/fairlead/plan/simulate"
	"github.com/fairlead-dev/fairlead/render"
	"github.com/fairlead-dev/fairlead/render/diag"
)

// poisons are values by class, one of which is wrong for nearly every field.
var poisons = []any{
	nil, true, -1, 2147483647, -9223372036854775808, 1.5e300, "", "\x00", "NaN", "-0", "9999999999999999999999", "\U0001F4A5", strings.Repeat("x", 300),
	"../../etc", "$(touch x)", "99999999h", "-1s", "10%", "-200%", []any{}, []any{nil}, []any{map[string]any{}}, map[string]any{}, map[string]any{"": ""}, map[string]any{"a/b/c": nil},
}

// kinds are the objects that are poisoned, each with what it needs to be right.
var kinds = map[string]struct {
	typ  reflect.Type
	good string
}{
	"v1/Pod":            {reflect.TypeFor[corev1.Pod](), `{spec: {containers: [{name: c, image: "web:1"}]}}`},
	"v1/ConfigMap":      {reflect.TypeFor[corev1.ConfigMap](), `{data: {a: b}}`},
	"v1/Secret":         {reflect.TypeFor[corev1.Secret](), `{data: {a: Yg==}}`},
	"v1/Service":        {reflect.TypeFor[corev1.Service](), `{spec: {selector: {app: a}, ports: [{port: 80}]}}`},
	"v1/Namespace":      {reflect.TypeFor[corev1.Namespace](), `{}`},
	"v1/Endpoints":      {reflect.TypeFor[corev1.Endpoints](), `{subsets: [{addresses: [{ip: 192.0.2.1}], ports: [{port: 80}]}]}`}, //nolint:staticcheck // it is still written
	"v1/ServiceAccount": {reflect.TypeFor[corev1.ServiceAccount](), `{}`},
	"apps/v1/Deployment": {reflect.TypeFor[appsv1.Deployment](),
		`{spec: {selector: {matchLabels: {app: a}}, template: {metadata: {labels: {app: a}}, spec: {containers: [{name: c, image: "web:1"}]}}}}`},
	"apps/v1/ReplicaSet": {reflect.TypeFor[appsv1.ReplicaSet](),
		`{spec: {selector: {matchLabels: {app: a}}, template: {metadata: {labels: {app: a}}, spec: {containers: [{name: c, image: "web:1"}]}}}}`},
	"batch/v1/Job":                              {reflect.TypeFor[batchv1.Job](), `{spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: "job:1"}]}}}}`},
	"discovery.k8s.io/v1/EndpointSlice":         {reflect.TypeFor[discoveryv1.EndpointSlice](), `{metadata: {labels: {kubernetes.io/service-name: s}}, addressType: IPv4, endpoints: [{addresses: [192.0.2.1]}], ports: [{port: 80}]}`},
	"source.toolkit.fluxcd.io/v1/GitRepository": {nil, `{spec: {url: "https://example.com/x", interval: 1h, timeout: 1s, suspend: false, ref: {branch: a, tag: b, semver: ">=1", name: refs/heads/a, commit: c}, secretRef: {name: s}, ignore: x, recurseSubmodules: false, sparseCheckout: [a]}}`},
	"kustomize.toolkit.fluxcd.io/v1/Kustomization": {nil, `{spec: {sourceRef: {kind: GitRepository, name: r, namespace: n}, path: a, interval: 1h, retryInterval: 1m, timeout: 1s, prune: true, wait: true, force: false, suspend: true, dependsOn: [{name: x, namespace: y}],
	  healthChecks: [{kind: a, name: b}], targetNamespace: t, namePrefix: p, nameSuffix: s, commonMetadata: {labels: {a: b}, annotations: {c: d}}, patches: [{patch: x, target: {kind: y}}], images: [{name: i, newTag: j}], components: [c],
	  postBuild: {substitute: {a: b}, substituteFrom: [{kind: ConfigMap, name: c, optional: true}]}, decryption: {provider: sops, secretRef: {name: k}}, deletionPolicy: Orphan}}`},
	"argoproj.io/v1alpha1/Application": {nil, `{spec: {project: p, source: {repoURL: "https://example.com/x", path: a, targetRevision: r, directory: {recurse: true, include: "*", exclude: y}, kustomize: {namePrefix: n, images: ["a=b"], patches: [{patch: x}], replicas: [{name: a, count: 1}], commonLabels: {a: b}}},
	  destination: {server: s, namespace: n}, syncPolicy: {automated: {prune: true, selfHeal: true, allowEmpty: true}, syncOptions: [a=b], retry: {limit: 1, backoff: {duration: 1s, factor: 2, maxDuration: 1m}}}, ignoreDifferences: [{kind: a, jsonPointers: [/a], jqPathExpressions: [.x]}], revisionHistoryLimit: 1, info: [{name: a, value: b}]}}`},
}

// fieldPaths are the fields of a type, or those that an example has, as paths; list elements are "0" and the entries
// of maps "key".
func fieldPaths(t reflect.Type, v any) [][]string {
	var out [][]string
	var byType func(t reflect.Type, at []string)
	byType = func(t reflect.Type, at []string) {
		for t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		if len(at) > 0 {
			out = append(out, slices.Clone(at))
		}
		if len(at) > 8 {
			return
		}
		switch t.Kind() {
		case reflect.Struct:
			if strings.Contains(t.PkgPath(), "apimachinery") && t.Name() != "ObjectMeta" && t.Name() != "LabelSelector" {
				return // quantities, times: values
			}
			for i := range t.NumField() {
				name, rest, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
				switch {
				case strings.Contains(rest, "inline") || t.Field(i).Anonymous && name == "":
					byType(t.Field(i).Type, at)
				case name != "" && name != "-" && name != "status" && name != "apiVersion" && name != "kind" && name != "managedFields":
					byType(t.Field(i).Type, append(at, name))
				}
			}
		case reflect.Slice:
			if t.Elem().Kind() != reflect.Uint8 {
				byType(t.Elem(), append(at, "0"))
			}
		case reflect.Map:
			byType(t.Elem(), append(at, "key"))
		}
	}
	var byExample func(v any, at []string)
	byExample = func(v any, at []string) {
		if len(at) > 0 {
			out = append(out, slices.Clone(at))
		}
		switch v := v.(type) {
		case map[string]any:
			for k := range v {
				byExample(v[k], append(at, k))
			}
		case []any:
			for i := range v {
				byExample(v[i], append(at, fmt.Sprint(i)))
			}
		}
	}
	if t != nil {
		byType(t, nil)
	} else {
		byExample(v, nil)
	}
	slices.SortFunc(out, slices.Compare[[]string])
	return slices.CompactFunc(out, slices.Equal[[]string])
}

// put sets a field of an object to a value, making what is around it.
func put(v any, at []string, value any) any {
	if len(at) == 0 {
		return value
	}
	if at[0] == "0" {
		list, _ := v.([]any)
		if len(list) == 0 {
			list = []any{nil}
		}
		list[0] = put(list[0], at[1:], value)
		return list
	}
	m, _ := v.(map[string]any)
	if m == nil {
		m = map[string]any{}
	}
	m[at[0]] = put(m[at[0]], at[1:], value)
	return m
}

// poisoned returns manifests of a kind: each of its fields with each of the values.
func poisoned(t testing.TB, kind string, each func(name string, o map[string]any)) {
	k := kinds[kind]
	i := strings.LastIndexByte(kind, '/')
	fresh := func() map[string]any {
		var o map[string]any
		if err := yaml.Unmarshal([]byte(k.good), &o); err != nil {
			t.Fatal(err)
		}
		o["apiVersion"], o["kind"] = kind[:i], kind[i+1:]
		return o
	}
	for _, at := range fieldPaths(k.typ, fresh()) {
		for n, value := range poisons {
			o := fresh()
			o = put(o, []string{"metadata", "name"}, "poison").(map[string]any)
			each(fmt.Sprintf("%s = %d", strings.Join(at, "."), n), put(o, at, value).(map[string]any))
		}
	}
}

// stride: one of so many poisoned objects is tried; with -torture all are. It has no factor in common with the number
// of values, so that every value meets many fields.
const stride = 61

// T-D4 (Argo Workflows CVE-2026-40886, Flux CVE-2022-39272, Tekton CVE-2026-33022): every field of every kind with a
// value of every class. Each is rendered, expanded, planned, planned again on what the plan makes, and written: nothing
// panics, and what is refused is told with its file.
func TestPoisonObjects(t *testing.T) {
	engine := &render.Engine{Check: plan.Unsupported}
	total, refused := 0, 0
	for kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			poisoned(t, kind, func(name string, o map[string]any) {
				total++
				if total%stride != 0 && !*torture {
					return
				}
				defer func() {
					if p := recover(); p != nil {
						t.Fatalf("%s: %v", name, p)
					}
				}()
				b, err := yaml.Marshal(o)
				if err != nil {
					return // not a value of YAML
				}
				if planAll(t, engine, b, name) {
					refused++
				}
			})
		})
	}
	t.Logf("%d objects, of those that were tried %d refused", total, refused)
}

// planAll takes a manifest through everything that is pure. It reports whether it was refused.
func planAll(t *testing.T, engine *render.Engine, manifest []byte, name string) bool {
	t.Helper()
	res, err := render.With(t.Context(), render.Request{Files: fstest.MapFS{"poison.yaml": {Data: manifest}}, Path: "."}, engine)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	for _, d := range res.Diags {
		if d.Code == "broke-down" || d.Severity == diag.Error && d.Origin.Path == "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	declared, found := applications.Read(res.Objects, nil)
	for _, d := range found {
		if d.Message == "" {
			t.Errorf("%s: a finding without words", name)
		}
	}
	if _, err := json.Marshal(declared.Applications); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	desired, more := plan.Expand(plan.Application{Name: "shop", Prune: true}, res.Objects, !res.Diags.HasErrors())
	desired.Complete = desired.Complete && !more.HasErrors()
	o := plan.Observed{Now: time.Unix(1_700_000_000, 0).UTC(), Nodes: []plan.NodeState{{Node: localNode}}}
	p := plan.Compute(desired, o, poisonOptions)
	if again := plan.Compute(desired, o, poisonOptions); again.String() != p.String() {
		t.Errorf("%s: two plans", name)
	}
	if _, err := planfile.Encode(p); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	if n := len(p.Steps); n < 1000 {
		_ = plan.Compute(desired, simulate.Plan(desired, o, p, poisonOptions.DigestKey), poisonOptions)
	}
	return res.Diags.HasErrors() || found.HasErrors() || more.HasErrors()
}

var poisonOptions = plan.Options{Node: localNode, DigestKey: make([]byte, 32), Services: plantest.Ranges()}

// FuzzManifest takes arbitrary files of manifests through everything that is pure.
func FuzzManifest(f *testing.F) {
	for kind, k := range kinds {
		i := strings.LastIndexByte(kind, '/')
		f.Add([]byte("apiVersion: " + kind[:i] + "\nkind: " + kind[i+1:] + "\nmetadata: {name: a}\n---\n" + k.good))
	}
	f.Add([]byte(deployment("web", "web:1", 3) + "---\n" + goodMap("a")))
	engine := &render.Engine{Check: plan.Unsupported}
	f.Fuzz(func(t *testing.T, manifest []byte) { planAll(t, engine, manifest, "fuzz") })
}

// T-D4: an application of every kind of poison that is committed stays the fault of that application: the others go
// on, also after a restart with everything that was persisted, and it recovers when it is mended.
func TestPoisonSurvivesNoRestart(t *testing.T) {
	h := newHost(t)
	h.declare("shop")
	h.file("shop/web.yaml", deployment("web", "web:1", 1))
	bad := map[string]string{
		"replicas":    deployment("r", "web:1", 2147483647),
		"interval":    "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {name: x}\nspec: {sourceRef: {kind: GitRepository, name: r}, interval: -1h, prune: true}\n",
		"duration":    "apiVersion: source.toolkit.fluxcd.io/v1\nkind: GitRepository\nmetadata: {name: r}\nspec: {url: 'https://example.com/x', interval: 99999999999h}\n",
		"annotation":  "apiVersion: argoproj.io/v1alpha1\nkind: Application\nmetadata: {name: x, annotations: {argocd.argoproj.io/sync-wave: 'x', 'argocd.argoproj.io/refresh': [1]}}\nspec: {}\n",
		"itself":      "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {name: itself}\nspec: {sourceRef: {kind: GitRepository, name: itself}, interval: 1h, prune: true, dependsOn: [{name: itself}]}\n",
		"kustomize":   "\x00",
		"selector":    "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {clusterIP: 999.1.1.1, ports: [{port: 0}], selector: {'': ''}}\n",
		"probe":       "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: 'web:1', livenessProbe: {periodSeconds: -1, httpGet: {port: x, path: '%zz'}}}]}\n",
		"image":       deployment("i", "UPPER/:::@", 1),
		"imagedigest": deployment("g", "web@sha256:x", 1),
	}
	for name, text := range bad {
		h.declare(name)
		h.file(name+"/poison.yaml", text)
	}
	look := func(s *System) {
		t.Helper()
		h.state(s, "shop", "Healthy Applied")
		h.eventually(s, "everything was looked at twice", func() bool {
			for _, st := range s.statuses() {
				if st.Pass < 1 {
					return false
				}
			}
			return true
		})
		for _, st := range s.statuses() {
			if _, is := bad[st.Config.Name]; is && st.Health != reconcile.Failed && st.Health != reconcile.Degraded && st.Health != reconcile.Progressing {
				t.Errorf("%s: %s %s", st.Config.Name, st.Health, st.Reason)
			}
			if st.Reason == "BrokeDown" {
				t.Errorf("%s: %s", st.Config.Name, st.Detail)
			}
		}
	}
	s := h.open(Run)
	look(s)
	h.stop(s)
	s = h.open(Run)
	look(s)
	h.file("shop/web.yaml", deployment("web", "web:2", 1))
	h.eventually(s, "the good one goes on", func() bool { return slices.Contains(h.images(), "web:2") })
	for name := range bad {
		h.file(name+"/poison.yaml", strings.ReplaceAll(goodMap(name), "\x00", ""))
	}
	for name := range bad {
		h.state(s, name, "Healthy Applied")
	}
}
