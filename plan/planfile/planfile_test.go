package planfile

import (
	"bytes"
	"errors"
	"flag"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

var update = flag.Bool("update", false, "rewrite testdata")

// example has every kind of step, and secrets wherever a plan can hold them.
func example() plan.Plan {
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	web := object.Ref{Group: "apps", Kind: "Deployment", Namespace: "shop", Name: "web"}
	secret := object.Ref{Kind: "Secret", Namespace: "shop", Name: "db"}
	job := object.Ref{Group: "batch", Kind: "Job", Namespace: "shop", Name: "once"}
	config := plan.Config{Ref: secret, Digest: "d", Data: map[string][]byte{"password": []byte("hunter2")}}
	key := plan.PodKey{Namespace: "shop", Name: "web-1"}
	old := plan.PodKey{Namespace: "shop", Name: "web-0"}
	pod := &plan.Pod{
		PodKey: key, Application: "shop", Owner: web, Template: "t1", Index: -1, Configs: []plan.Config{config},
		Spec: &corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Env: []corev1.EnvVar{{Name: "TOKEN", Value: "hunter2"}}}}},
	}
	svc := object.Ref{Kind: "Service", Namespace: "shop", Name: "web"}
	slice := object.Ref{Group: "discovery.k8s.io", Kind: "EndpointSlice", Namespace: "shop", Name: "web-1"}
	served := &plan.Service{
		Ref: svc, Application: "shop", Hash: "h1", LoadBalancerIPs: []netip.Addr{netip.MustParseAddr("192.0.2.9")},
		Annotations: map[string]string{"note": "hunter2"},
		Spec: &corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, ClusterIP: "10.80.0.7", HealthCheckNodePort: 30001, ExternalIPs: []string{"192.0.2.7"},
			Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80, NodePort: 30080}}},
	}
	indexed := *pod
	indexed.PodKey, indexed.Owner, indexed.Index = plan.PodKey{Namespace: "shop", Name: "once-0-x"}, job, 0
	return plan.Plan{
		Application: plan.Application{Name: "shop", Source: "git", Revision: "abc", Path: "prod", Prune: true,
			Ignore: []plan.IgnoreRule{{Kind: "Deployment", Pointers: []string{"/spec/replicas"}}}},
		Basis: "b1",
		Changes: []plan.Change{
			{Ref: web, Action: plan.ActionUpdate, Cause: "changed in the source", Origin: object.Origin{Path: "web.yaml", Line: 3}, Unchanged: 7,
				Fields: []plan.FieldChange{{Path: "spec.template.spec.containers[web].image", Old: `"web:1"`, New: `"web:2"`, Replaces: true}},
				Pods:   []plan.PodChange{{Pod: key, Replaces: old, Action: plan.ActionStartFirst, Node: "local", Cause: "image"}}},
			{Ref: secret, Action: plan.ActionUpdate, Cause: "changed in the source",
				Stage:  plan.Stage{Wave: -1},
				Fields: []plan.FieldChange{{Path: "data.password", Old: `"hunter1"`, New: `"hunter2"`}, {Path: "type", New: `"Opaque"`}}},
			{Ref: job, Action: plan.ActionCreate, Cause: "runs as PostSync hook", Stage: plan.Stage{Phase: plan.PostSync, Wave: 2}, Wait: 11,
				Hook: plan.HookRun{Sync: "s1", Phase: plan.PostSync}},
		},
		Unchanged: 2,
		Drift:     []plan.Drift{{Ref: web, Message: "memory limit differs", Healed: "set back"}},
		Steps: []plan.Step{
			{ID: 1, Op: plan.OpPullImage, Node: "local", Target: object.Ref{Kind: "Image", Name: "web:2"}, Cause: "needed", Args: plan.PullImage{Image: "web:2", Always: true, Secrets: []plan.Config{config}}},
			{ID: 2, Op: plan.OpCreatePod, Node: "local", Target: key.Ref(), Cause: "image", After: []plan.StepID{1}, Args: plan.CreatePod{Pod: pod}},
			{ID: 3, Op: plan.OpWaitReady, Node: "local", Target: key.Ref(), Cause: "rollout", After: []plan.StepID{2}, Args: plan.WaitReady{Pod: key, MinReady: 90 * time.Second, Deadline: at}},
			{ID: 4, Op: plan.OpDeletePod, Node: "local", Target: old.Ref(), Cause: "replaced", After: []plan.StepID{3}, Args: plan.DeletePod{Pod: old, UID: "u0"}},
			{ID: 5, Op: plan.OpUpdatePod, Node: "local", Target: key.Ref(), Cause: "limits", Args: plan.UpdatePod{Pod: pod, Changes: []string{"resources of container web"}}},
			{ID: 6, Op: plan.OpCreatePod, Node: "local", Target: indexed.Ref(), Cause: "index 0", Args: plan.CreatePod{Pod: &indexed}},
			{ID: 7, Op: plan.OpSetService, Node: "local", Target: svc, Cause: "new", Args: plan.SetService{Service: served}},
			{ID: 8, Op: plan.OpDeleteService, Node: "local", Target: svc, Cause: "gone", Args: plan.DeleteService{Service: svc, Application: "shop"}},
			{ID: 9, Op: plan.OpSetEndpoints, Node: "local", Target: slice, Cause: "new", After: []plan.StepID{7},
				Args: plan.SetEndpoints{Endpoints: &plan.EndpointSlice{Ref: slice, Application: "shop", Service: svc, Hash: "e1"}}},
			{ID: 10, Op: plan.OpDeleteEndpoints, Node: "local", Target: slice, Cause: "gone", Args: plan.DeleteEndpoints{Endpoints: slice, Application: "shop"}},
			{ID: 11, Op: plan.OpWaitHealthy, Target: object.Ref{Kind: "Stage", Name: "PostSync wave 2"}, Cause: "web is first", After: []plan.StepID{3, 4},
				Args: plan.WaitHealthy{Stage: plan.Stage{Phase: plan.PostSync, Wave: 2}, Objects: []object.Ref{web}}},
			{ID: 12, Op: plan.OpSetStorage, Node: "local", Target: plan.ClaimRef("shop", "data"), Cause: "new", Args: plan.SetStorage{Storage: &plan.Storage{
				Ref: plan.ClaimRef("shop", "data"), Application: "shop", Created: at,
				Claim: &plan.Claim{Volume: "pvc-1", Class: "directory", Modes: []string{"ReadWriteOnce"}, Request: 1 << 30, Capacity: 1 << 30, Reclaim: plan.Delete,
					Source: plan.Source{Directory: "shop/data"}, Provisioned: true},
			}}},
			{ID: 13, Op: plan.OpDeleteStorage, Node: "local", Target: plan.ClaimRef("shop", "old"), Cause: "gone", Args: plan.DeleteStorage{Storage: plan.ClaimRef("shop", "old"), Application: "shop", Keep: true}},
		},
		Status:   []plan.WorkloadStatus{{Ref: web, Desired: 1, Current: 1, Health: "Progressing", Reason: "RollingOut", WaitsFor: []object.Ref{job}}},
		Diags:    diag.List{{Severity: diag.Warning, Code: "no-effect", Ref: web, Message: "m", Hint: "h"}},
		Finished: []plan.Finish{{Ref: job, At: at, Succeeded: true, Reason: "CompletionsReached"}},
		Sync:     &plan.SyncState{ID: "s1", Desired: "d1", Revision: "abc", Begun: at},
		Failed:   "nothing",
		Wake:     at,
	}
}

func TestGolden(t *testing.T) {
	const file = "testdata/example.json"
	have, err := Encode(example())
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(file, have, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(have)); diff != "" {
		t.Errorf("(-want +have):\n%s", diff)
	}
	if i := bytes.Index(have, []byte("hunter")); i >= 0 {
		t.Errorf("a secret is in the file: %s", have[max(0, i-80):i+10])
	}
	if strings.Contains(string(have), "TOKEN") {
		t.Error("the spec of a pod is in the file")
	}
}

// TestRoundTrip holds that what is read is what was written, and writes the same bytes again.
func TestRoundTrip(t *testing.T) {
	for name, p := range map[string]plan.Plan{"example": example(), "empty": {}} {
		first, err := Encode(p)
		if err != nil {
			t.Fatal(err)
		}
		read, err := Decode(first)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		second, err := Encode(read)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(first), string(second)); diff != "" {
			t.Errorf("%s: (-first +second):\n%s", name, diff)
		}
		for i, s := range read.Steps {
			if want := p.Steps[i].String(); s.String() != want {
				t.Errorf("%s: step is %q, was %q", name, s, want)
			}
		}
	}
}

// TestBefore holds that files of the versions before are read: those in testdata were written by them.
func TestBefore(t *testing.T) {
	for file, steps := range map[string]int{"testdata/v1.json": 6, "testdata/v2.json": 10} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		p, err := Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		want := example().Steps[:steps]
		if len(p.Steps) != len(want) {
			t.Fatalf("%s: %d steps, want %d", file, len(p.Steps), len(want))
		}
		for i := range want {
			if have := p.Steps[i].String(); have != want[i].String() {
				t.Errorf("%s: step is %q, was %q", file, have, want[i])
			}
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	good, err := Encode(example())
	if err != nil {
		t.Fatal(err)
	}
	edit := func(old, new string) string {
		if !bytes.Contains(good, []byte(old)) {
			t.Fatalf("the example has no %q", old)
		}
		return strings.Replace(string(good), old, new, 1)
	}
	for _, c := range []struct{ name, content, says string }{
		{"text", "hello", "not JSON"},
		{"no format", `{"application":{}}`, "says no format"},
		{"newer", edit(Format, "fairlead.dev/planfile/v5"), `its format is "fairlead.dev/planfile/v5", and this fairlead reads ` + Format},
		{"unknown field", edit(`"basis"`, `"base"`), "unknown field"},
		{"two documents", string(good) + "{}", "not JSON"},
		{"unknown operation", edit(`"op": "wait-ready"`, `"op": "reboot"`), `operation "reboot" is unknown`},
		{"order", edit(`"id": 3`, `"id": 7`), "out of order"},
		{"no pod", edit(`"pod": {
          "namespace": "shop",
          "name": "web-0"
        },
        "uid"`, `"uid"`), "its pod is missing"},
	} {
		_, err := Decode([]byte(c.content))
		if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error is %v, and should say %q", c.name, err, c.says)
		}
	}
}

func FuzzDecode(f *testing.F) {
	good, err := Encode(example())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"format":"` + Format + `","steps":[{"id":1,"op":"create-pod","args":{"pod":{}}}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Decode(b)
		if err != nil {
			return
		}
		again, err := Encode(p)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(again); err != nil {
			t.Fatal(err)
		}
	})
}
