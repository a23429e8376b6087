package planview

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

var update = flag.Bool("update", false, "rewrite golden files")

func ref(group, kind, name string) object.Ref {
	return object.Ref{Group: group, Kind: kind, Namespace: "shop", Name: name}
}

func pod(name string) plan.PodKey { return plan.PodKey{Namespace: "shop", Name: name} }

var (
	from = api.Revision{ID: "1111111111112222222222223333333333334444", Short: "111111111111"}
	to   = api.Revision{ID: "aaaaaaaaaaaabbbbbbbbbbbbccccccccccccdddd", Short: "aaaaaaaaaaaa", Message: "Use web:2", Author: "Ann"}
)

func one(p plan.Plan) api.PlanResult {
	return api.PlanResult{Format: api.PlanFormat, Created: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Applications: []api.ApplicationPlan{
		{Name: "shop", Source: "https://git.example.org/shop.git", Path: "overlays/prod", From: from, To: to, Plan: p},
	}}
}

// failing is one plan of an application whose newest revision failed.
func failing(p plan.Plan, f api.Failure) api.PlanResult {
	r := one(p)
	a := &r.Applications[0]
	f.Revision, f.At, f.Reason = to, r.Created, "ProgressDeadlineExceeded"
	f.Message = "Deployment shop/web: no progress for 1m0s\nlast log lines of pod web-1:\nno database"
	if a.Failure = &f; f.Back.ID != "" {
		a.To = f.Back
	}
	return r
}

var cases = map[string]api.PlanResult{
	"failed": failing(plan.Plan{Unchanged: 2, Changes: []plan.Change{
		{Ref: ref("apps", "Deployment", "web"), Action: plan.ActionUpdate, Cause: "changed in the source", Origin: object.Origin{Path: "web.yaml", Line: 3}},
	}}, api.Failure{}),
	"rolls-back": failing(plan.Plan{Unchanged: 2, Changes: []plan.Change{
		{Ref: ref("", "ConfigMap", "new"), Action: plan.ActionDelete, Cause: "gone from the source"},
	}}, api.Failure{Back: from}),
	"rolled-back":     failing(plan.Plan{Unchanged: 3}, api.Failure{Back: from, BackAt: time.Date(2026, 3, 1, 12, 1, 0, 0, time.UTC)}),
	"rollback-failed": failing(plan.Plan{Unchanged: 3}, api.Failure{Back: from, BackReason: "HealthCheckFailed", BackMessage: "not healthy within 1m0s"}),
	"services": one(plan.Plan{Changes: []plan.Change{
		{Ref: ref("", "Service", "both"), Action: plan.ActionCreate, Cause: "new in the source", Origin: object.Origin{Path: "services.yaml", Line: 20}},
		{Ref: ref("", "Service", "db"), Action: plan.ActionCreate, Cause: "new in the source", Origin: object.Origin{Path: "services.yaml", Line: 30}},
		{Ref: ref("", "Service", "gone"), Action: plan.ActionDelete, Cause: "gone from the source"},
		{Ref: ref("", "Service", "hand"), Action: plan.ActionCreate, Cause: "new in the source", Origin: object.Origin{Path: "services.yaml", Line: 40}},
		{Ref: ref("", "Service", "web"), Action: plan.ActionUpdate, Cause: "10.90.0.7 is not in the range of cluster addresses, 10.80.0.0/16", Origin: object.Origin{Path: "services.yaml", Line: 3}},
	}, Services: []plan.ServiceChange{
		{
			Ref: ref("", "Service", "both"), Type: corev1.ServiceTypeLoadBalancer, ClusterIP: "10.80.3.8", Elsewhere: []string{"load balancer address 192.0.2.50"},
			Ports: []plan.ServicePortChange{
				{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80, NodePort: 30081, Target: "http", TargetPort: 8080},
				{Name: "dns", Protocol: corev1.ProtocolUDP, Port: 53, NodePort: 30053, Target: "dns"},
			},
			Selects: []object.Ref{ref("apps", "Deployment", "api"), ref("apps", "Deployment", "web")},
			Gains:   []object.Ref{ref("apps", "Deployment", "api"), ref("apps", "Deployment", "web")}, Registered: []string{"both-shop-http", "both-shop-dns"},
		},
		{Ref: ref("", "Service", "db"), Type: corev1.ServiceTypeExternalName, Elsewhere: []string{"name db.example.org"}},
		{Ref: ref("", "Service", "gone"), Type: corev1.ServiceTypeClusterIP, Moves: []string{"cluster address 10.80.3.5 → none"}, Loses: []object.Ref{ref("apps", "Deployment", "web")}},
		{Ref: ref("", "Service", "hand"), Type: corev1.ServiceTypeClusterIP, ClusterIP: "None", ByHand: true, Ports: []plan.ServicePortChange{{Protocol: corev1.ProtocolTCP, Port: 5432, Target: "5432", TargetPort: 5432}}},
		{
			Ref: ref("", "Service", "same"), Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.80.3.9",
			Ports:   []plan.ServicePortChange{{Protocol: corev1.ProtocolTCP, Port: 80, Target: "8080", TargetPort: 8080}},
			Selects: []object.Ref{ref("apps", "Deployment", "api"), ref("apps", "Deployment", "web")}, Gains: []object.Ref{ref("apps", "Deployment", "api")},
		},
		{
			Ref: ref("", "Service", "web"), Type: corev1.ServiceTypeNodePort, ClusterIP: "10.80.3.7",
			Ports:   []plan.ServicePortChange{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80, NodePort: 30080, Target: "http", TargetPort: 8080}},
			Selects: []object.Ref{ref("apps", "Deployment", "web")}, Moves: []string{"clusterIP 10.90.0.7 → 10.80.3.7"}, Registered: []string{"web-shop"},
		},
	}}),
	"first": {Applications: []api.ApplicationPlan{{Name: "shop", Source: "/srv/config", Path: ".", To: to, Plan: plan.Plan{Changes: []plan.Change{
		{Ref: object.Ref{Kind: "Namespace", Name: "shop"}, Action: plan.ActionCreate, Cause: "new in the source", Origin: object.Origin{Path: "ns.yaml", Line: 1}},
		{Ref: ref("", "ConfigMap", "web-config"), Action: plan.ActionCreate, Cause: "new in the source", Origin: object.Origin{Path: "kustomization.yaml", Line: 4, Generator: "configMapGenerator web-config"}},
		{Ref: ref("apps", "Deployment", "web"), Action: plan.ActionCreate, Cause: "new in the source", Origin: object.Origin{Path: "web.yaml", Line: 12}, Pods: []plan.PodChange{
			{Pod: pod("web-6fd-0"), Action: plan.ActionCreate, Node: "n1", Cause: "2 pods are wanted, none is there"},
			{Pod: pod("web-6fd-1"), Action: plan.ActionCreate, Node: "n1", Cause: "2 pods are wanted, none is there"},
		}},
	}}}}},
	"update": one(plan.Plan{
		Basis: "b1",
		Changes: []plan.Change{
			{
				Ref: ref("apps", "Deployment", "web"), Action: plan.ActionUpdate, Cause: "changed in the source", Origin: object.Origin{Path: "base/web.yaml", Line: 3},
				Fields: []plan.FieldChange{
					{Path: "spec.template.spec.containers[web].image", Old: `"web:1"`, New: `"web:2"`, Replaces: true},
					{Path: "spec.template.spec.containers[web].env[LEVEL]", New: `{"name":"LEVEL","value":"debug"}`, Replaces: true},
					{Path: "metadata.annotations[old]", Old: `"x"`},
					{Path: "metadata.annotations[long]", New: `"` + strings.Repeat("y", 300) + `"`},
				},
				Unchanged: 14,
				Pods: []plan.PodChange{
					{Pod: pod("web-6fd-0"), Replaces: pod("web-5d9-0"), Action: plan.ActionStartFirst, Node: "n1", Cause: "image of container web changed"},
					{Pod: pod("web-6fd-1"), Replaces: pod("web-5d9-1"), Action: plan.ActionStartFirst, Node: "n1", Cause: "image of container web changed"},
					{Pod: pod("web-6fd-2"), Action: plan.ActionCreate, Node: "n1", Cause: "scaled from 2 to 3"},
				},
			},
			{
				Ref: ref("apps", "Deployment", "db"), Action: plan.ActionUpdate, Cause: "changed in the source", Origin: object.Origin{Path: "base/db.yaml", Line: 1},
				Fields:    []plan.FieldChange{{Path: "spec.template.spec.containers[db].resources.limits.memory", Old: `"1Gi"`, New: `"2Gi"`}, {Path: "spec.strategy.type", Old: `"RollingUpdate"`, New: `"Recreate"`}},
				Unchanged: 1,
				Pods: []plan.PodChange{
					{Pod: pod("db-1-0"), Action: plan.ActionUpdate, Cause: "memory limit of container db changed"},
					{Pod: pod("db-2-1"), Replaces: pod("db-1-1"), Action: plan.ActionStopFirst, Downtime: true, Cause: "strategy Recreate"},
				},
			},
			{Ref: ref("batch", "Job", "migrate"), Action: plan.ActionStopFirst, Cause: "spec.template cannot be changed", Origin: object.Origin{Path: "job.yaml", Line: 2}},
		},
		Unchanged: 7,
	}),
	"destroy": one(plan.Plan{Changes: []plan.Change{
		{Ref: ref("apps", "Deployment", "old"), Action: plan.ActionDelete, Cause: "gone from the source", Unchanged: 9, Pods: []plan.PodChange{{Pod: pod("old-1-0"), Action: plan.ActionDelete, Cause: "Deployment shop/old is destroyed"}}},
	}, Unchanged: 1}),
	"values": one(plan.Plan{Changes: []plan.Change{
		{
			Ref: ref("", "ConfigMap", "nginx"), Action: plan.ActionUpdate, Cause: "changed in the source", Origin: object.Origin{Path: "nginx.yaml", Line: 1},
			Fields: []plan.FieldChange{
				{Path: "data[nginx.conf]", Old: `"a\nb\nc\nd\ne\nf\n"`, New: `"a\nb\nC\nd\ne\nE\nf\n"`},
				{Path: "data[new.conf]", New: `"x\ny\n"`},
				{Path: "data[evil]", Old: "\"\u009b31m\"", New: "\"\u202egpj.exe\""},
			},
			Unchanged: 1,
		},
		{
			Ref: ref("", "Secret", "login"), Action: plan.ActionUpdate, Cause: "changed in the source",
			// The planner never leaves values in; if one slipped through, it must not be shown.
			Fields: []plan.FieldChange{
				{Path: "data[password]", Old: `"b2xk"`, New: `"aHVudGVyMg=="`},
				{Path: "stringData.token", New: `"hunter2"`},
				{Path: "metadata.labels[a]", Old: `"1"`, New: `"2"`},
			},
		},
	}}),
	"drift": one(plan.Plan{
		Drift: []plan.Drift{
			{Ref: ref("apps", "Deployment", "web"), Message: "memory limit of container web in pod web-6fd-0 is 64Mi, not 128Mi", Healed: "set back to 128Mi"},
			{Ref: ref("", "Pod", "web-6fd-1"), Message: "was removed", Healed: "created again"},
		},
		Changes:   []plan.Change{{Ref: ref("apps", "Deployment", "web"), Action: plan.ActionNone, Pods: []plan.PodChange{{Pod: pod("web-6fd-1"), Action: plan.ActionCreate, Cause: "1 of 2 pods is there"}, {Pod: pod("web-6fd-0"), Action: plan.ActionUpdate, Cause: "limits drifted"}}}},
		Unchanged: 4,
	}),
	"drift-only-reported": one(plan.Plan{Drift: []plan.Drift{{Ref: ref("apps", "Deployment", "web"), Message: "replicas is 3, not 2"}}, Unchanged: 4}),
	"nothing": {Applications: []api.ApplicationPlan{
		{Name: "shop", Source: "git", Path: "a", From: to, To: to, Plan: plan.Plan{Unchanged: 12}},
		{Name: "blog", Source: "git", Path: "b", From: to, To: to, Plan: plan.Plan{Unchanged: 1}},
	}},
	"findings": one(plan.Plan{Unchanged: 2, Diags: diag.List{
		{Severity: diag.Warning, Code: "not-run", Ref: ref("", "Service", "web"), Origin: object.Origin{Path: "svc.yaml", Line: 1}, Message: "Services are not yet run", Hint: "allow them with --allow-unsupported"},
		{Severity: diag.Error, Code: "unknown-field", Ref: ref("apps", "Deployment", "web"), Origin: object.Origin{Path: "base/web.yaml", Line: 31}, Field: "spec.replica", Message: "unknown field"},
	}}),
	"failed-application": {Applications: []api.ApplicationPlan{
		{Name: "bad", Source: "git", Path: "x", Error: &api.Error{Code: api.CodeUnavailable, Message: "fetch https://git.example.org/shop.git: authentication required\nset secretRef"}},
		{Name: "shop", Source: "git", Path: "a", From: to, To: to, Plan: plan.Plan{Unchanged: 12}},
	}},
	"two-nodes": one(plan.Plan{Changes: []plan.Change{{Ref: ref("apps", "Deployment", "web"), Action: plan.ActionUpdate, Pods: []plan.PodChange{
		{Pod: pod("web-1"), Action: plan.ActionCreate, Node: "n1"}, {Pod: pod("web-2"), Action: plan.ActionDelete, Node: "n2", Downtime: true, Cause: "scaled down"},
	}}}}),
	"no-application": {},
}

func TestGolden(t *testing.T) {
	for name, r := range cases {
		t.Run(name, func(t *testing.T) {
			var text, markdown, color bytes.Buffer
			if err := Markdown(&markdown, r); err != nil {
				t.Fatal(err)
			}
			if err := Text(&text, r, Options{}); err != nil {
				t.Fatal(err)
			}
			if err := Text(&color, r, Options{Color: true}); err != nil {
				t.Fatal(err)
			}
			got := txtar.Format(&txtar.Archive{Files: []txtar.File{
				{Name: "text", Data: text.Bytes()},
				{Name: "markdown", Data: markdown.Bytes()},
				{Name: "color", Data: bytes.ReplaceAll(color.Bytes(), []byte("\x1b"), []byte("␛"))},
			}})
			path := filepath.Join("testdata", name+".txtar")
			if *update {
				if err := os.WriteFile(path, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), string(got)); d != "" {
				t.Errorf("%s (-want +got, -update rewrites):\n%s", path, d)
			}
			for _, secret := range []string{"hunter2", "aHVudGVyMg", "b2xk"} {
				if strings.Contains(text.String(), secret) {
					t.Errorf("a secret is shown: %s", secret)
				}
			}
			lines := strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")
			last := lines[len(lines)-1]
			if !strings.HasPrefix(last, "No changes. ") && !strings.HasPrefix(last, "Plan: ") {
				t.Errorf("last line is %q", last)
			}
		})
	}
}

func TestMarkdownCannotBeLeft(t *testing.T) {
	r := one(plan.Plan{Changes: []plan.Change{{Ref: ref("", "ConfigMap", "c"), Action: plan.ActionUpdate, Fields: []plan.FieldChange{
		{Path: "data[x]", New: `"a\n` + "````" + `\n</details><img src=x>"`},
	}}}})
	var buf bytes.Buffer
	if err := Markdown(&buf, r); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(buf.String(), "\n`````\n"); n != 2 {
		t.Errorf("the block is not fenced:\n%s", &buf)
	}
	buf.Reset()
	big := one(plan.Plan{Changes: slices.Repeat(r.Applications[0].Plan.Changes, 2000)})
	if err := Markdown(&buf, big); err != nil || buf.Len() > maxMarkdown+1000 || !strings.Contains(buf.String(), "cut here") {
		t.Errorf("a big plan has %d bytes, %v", buf.Len(), err)
	}
}

func TestJSON(t *testing.T) {
	for name, r := range cases {
		t.Run(name, func(t *testing.T) {
			var buf bytes.Buffer
			if err := JSON(&buf, r); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(buf.String(), "hunter2") {
				t.Error("a secret is shown")
			}
			var back api.PlanResult
			if err := json.Unmarshal(buf.Bytes(), &back); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(Redacted(r).Counts(), back.Counts()); d != "" {
				t.Errorf("counts (-in +out):\n%s", d)
			}
			var again bytes.Buffer
			if err := JSON(&again, back); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(buf.String(), again.String()); d != "" {
				t.Errorf("read and written again:\n%s", d)
			}
		})
	}
}

func TestLineDiff(t *testing.T) {
	for _, tt := range []struct{ name, a, b, want string }{
		{"equal", "a b", "a b", "(2 unchanged lines)"},
		{"insert", "a c", "a b c", "(1 unchanged line) +b (1 unchanged line)"},
		{"delete", "a b c", "a c", "(1 unchanged line) -b (1 unchanged line)"},
		{"replace in the middle", "a b c d", "a x c y", "(1 unchanged line) -b +x (1 unchanged line) -d +y"},
		{"all", "a", "b", "-a +b"},
		{"from nothing", "", "b", "+b"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, l := range lineDiff(strings.Fields(tt.a), strings.Fields(tt.b)) {
				got = append(got, strings.TrimLeft(string(l.kind), "\x00")+l.text)
			}
			if s := strings.Join(got, " "); s != tt.want {
				t.Errorf("got %s", s)
			}
		})
	}
	big := strings.Fields(strings.Repeat("x ", 2000))
	other := strings.Fields(strings.Repeat("y ", 2000))
	if n := len(lineDiff(big, other)); n != 4000 {
		t.Errorf("a big difference has %d lines", n)
	}
}

func TestEscapeJSON(t *testing.T) {
	in := "plain — ü \x1b\u009b\u202e\U000e0001\x7f"
	var buf bytes.Buffer
	if err := WriteJSON(&buf, in, ""); err != nil {
		t.Fatal(err)
	}
	if want := `"plain — ü \u001b\u009b\u202e\udb40\udc01\u007f"` + "\n"; buf.String() != want {
		t.Errorf("wrote %s", &buf)
	}
	var back string
	if err := json.Unmarshal(buf.Bytes(), &back); err != nil || back != in {
		t.Errorf("read %q, %v", back, err)
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain — ü":      "plain — ü",
		"\x1b[2Jgone":    `\u001b[2Jgone`,
		"a\nb\tc":        `a\nb\tc`,
		"\u202ereversed": `\u202ereversed`,
		"bad\xffbyte":    `bad\ufffdbyte`,
	} {
		if got := Clean(in); got != want {
			t.Errorf("Clean(%q) = %q, want %q", in, got, want)
		}
	}
}
