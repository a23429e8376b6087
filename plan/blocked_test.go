package plan

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/render/object"
)

// configMaps are n objects with the given annotation, and their inventory.
func configMaps(t *testing.T, n int, notes string) []Applied {
	t.Helper()
	var applied []Applied
	for i := range n {
		name := fmt.Sprintf("c%02d", i)
		applied = append(applied, Applied{
			Ref: object.Ref{Kind: "ConfigMap", Namespace: "default", Name: name}, APIVersion: "v1", Hash: "h" + name,
			Written: fmt.Appendf(nil, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"annotations":{%s},"name":%q,"namespace":"default"}}`, notes, name),
			Created: time.Unix(int64(1000+i), 0),
		})
	}
	return applied
}

func deleted(p Plan) int {
	n := 0
	for _, c := range p.Changes {
		if c.Action == ActionDelete {
			n++
		}
	}
	return n
}

// What is over both limits waits, all of it; what is within one of them goes; an approval is for exactly that set.
func TestPruneLimit(t *testing.T) {
	limit := PruneLimit{MaxShare: 50, MaxCount: 4}
	for name, tc := range map[string]struct {
		have, keep int
		notes      string
		limit      PruneLimit
		blocked    int
		deleted    int
	}{
		"four of four":          {4, 0, "", limit, 0, 4},
		"five of five":          {5, 0, "", limit, 5, 0},
		"five of ten":           {10, 5, "", limit, 0, 5},
		"six of ten":            {10, 4, "", limit, 6, 0},
		"no limit":              {10, 0, "", PruneLimit{}, 0, 10},
		"own annotation":        {2, 1, `"fairlead.dev/prune":"confirm"`, limit, 1, 0},
		"argo's annotation":     {2, 1, `"argocd.argoproj.io/sync-options":"Prune=confirm"`, limit, 1, 0},
		"disabled":              {2, 1, `"fairlead.dev/prune":"disabled"`, limit, 0, 0},
		"disabled do not count": {9, 0, `"fairlead.dev/prune":"disabled"`, limit, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			applied := configMaps(t, tc.have, tc.notes)
			d := Desired{Application: Application{Name: "shop", Prune: true, AllowEmpty: true, Limit: tc.limit}, Complete: true}
			for _, a := range applied[:tc.keep] {
				d.Objects = append(d.Objects, object.Object{Ref: a.Ref, APIVersion: "v1", Hash: a.Hash, Written: a.Written})
			}
			o := Observed{Now: time.Unix(5000, 0), Nodes: []NodeState{{Node: "local"}}, Applied: applied}
			p := Compute(d, o, Options{Node: "local"})
			count := 0
			if p.Blocked != nil {
				count = p.Blocked.Count()
			}
			if count != tc.blocked || deleted(p) != tc.deleted {
				t.Fatalf("%d blocked and %d deleted, want %d and %d\n%+v", count, deleted(p), tc.blocked, tc.deleted, p.Diags)
			}
			if count == 0 {
				return
			}
			again := Compute(d, o, Options{Node: "local"})
			if diff := cmp.Diff(p.Blocked, again.Blocked); diff != "" {
				t.Fatal(diff)
			}
			d.Application.Approved = []string{p.Blocked.Digest}
			if p := Compute(d, o, Options{Node: "local"}); p.Blocked != nil || deleted(p) != tc.blocked {
				t.Fatalf("after the approval %d are deleted, %+v blocked", deleted(p), p.Blocked)
			}
			o.Applied = append([]Applied{}, applied...)
			o.Applied[tc.have-1].Created = time.Unix(9999, 0) // it went and was made again
			if p := Compute(d, o, Options{Node: "local"}); p.Blocked == nil || deleted(p) != 0 {
				t.Fatalf("an approval held for another set: %d deleted", deleted(p))
			}
		})
	}
}

// Generated ConfigMaps get another name with every change of their content; that is not a deletion to ask about.
func TestPruneLimitLeavesGeneratedNamesOut(t *testing.T) {
	var applied []Applied
	d := Desired{Application: Application{Name: "shop", Prune: true, Limit: PruneLimit{MaxShare: 50, MaxCount: 4}}, Complete: true}
	for i := range 6 {
		ref := object.Ref{Kind: "ConfigMap", Namespace: "default", Name: fmt.Sprintf("c%d-%s", i, strings.Repeat("k", 10))}
		applied = append(applied, Applied{Ref: ref, APIVersion: "v1", Hash: "old"})
		ref.Name = fmt.Sprintf("c%d-%s", i, strings.Repeat("m", 10))
		d.Objects = append(d.Objects, object.Object{Ref: ref, APIVersion: "v1", Hash: "new"})
	}
	o := Observed{Now: time.Unix(5000, 0), Nodes: []NodeState{{Node: "local"}}, Applied: applied}
	if p := Compute(d, o, Options{Node: "local"}); p.Blocked != nil || deleted(p) != 6 {
		t.Fatalf("%d deleted, blocked: %+v", deleted(p), p.Blocked)
	}
	d.Objects, d.Application.AllowEmpty = nil, true
	if p := Compute(d, o, Options{Node: "local"}); p.Blocked == nil || deleted(p) != 0 {
		t.Fatalf("%d deleted, and nothing takes their place", deleted(p))
	}
}

// What takes the place of what is gone is there already when the plan is computed again, and must not lower its share.
func TestPruneLimitIsMeasuredAgainstWhatWas(t *testing.T) {
	applied := configMaps(t, 20, "")
	d := Desired{Application: Application{Name: "shop", Prune: true, Limit: PruneLimit{MaxShare: 50, MaxCount: 4}}, Complete: true}
	for _, a := range applied[8:] {
		d.Objects = append(d.Objects, object.Object{Ref: a.Ref, APIVersion: "v1", Hash: a.Hash, Written: a.Written})
	}
	o := Observed{Now: time.Unix(5000, 0), Nodes: []NodeState{{Node: "local"}}, Applied: applied}
	if p := Compute(d, o, Options{Node: "local"}); p.Blocked != nil || deleted(p) != 8 {
		t.Fatalf("8 of 20: %d deleted, %+v blocked", deleted(p), p.Blocked)
	}
	o.Since = time.Unix(1009, 0) // the last ten are new
	if p := Compute(d, o, Options{Node: "local"}); p.Blocked == nil || deleted(p) != 0 || p.Blocked.Of != 10 {
		t.Fatalf("8 of 10: %d deleted, %+v blocked", deleted(p), p.Blocked)
	}
}

// TestWhatWasNotRenderedIsNotGone: nothing is said to be gone from a source that could not be rendered.
func TestWhatWasNotRenderedIsNotGone(t *testing.T) {
	p := Compute(Desired{Application: Application{Name: "shop", Prune: true}}, Observed{
		Applied: []Applied{{Ref: object.Ref{Kind: "ConfigMap", Namespace: "shop", Name: "web"}, APIVersion: "v1"}},
	}, Options{})
	if len(p.Diags) != 1 || p.Diags[0].Code != "incomplete" || !p.Empty() {
		t.Errorf("plan %s with findings %s", p, p.Diags)
	}
}

// desiredOf are desired ConfigMaps with a content, and one Secret.
func desiredOf(version string, names ...string) []object.Object {
	var out []object.Object
	for _, n := range names {
		out = append(out, object.Object{Ref: object.Ref{Kind: "ConfigMap", Namespace: "default", Name: n}, APIVersion: "v1", Hash: version + n, Written: []byte(`{"data":{"v":"` + version + `"}}`)})
	}
	return append(out, object.Object{Ref: object.Ref{Kind: "Secret", Namespace: "default", Name: "key"}, APIVersion: "v1", Hash: version, Written: []byte(`{"data":{"v":"` + version + `"}}`)})
}

// A plan that makes or changes an object of a chosen kind waits as a whole; the approval is for what all of the
// application becomes, also when part of it is done already.
func TestChangesOfChosenKindsWait(t *testing.T) {
	app := Application{Name: "shop", Prune: true, Approval: Approval{Kinds: []string{"Secret"}}}
	d := Desired{Application: app, Complete: true, Objects: desiredOf("2", "a", "b")}
	var applied []Applied
	for _, o := range desiredOf("1", "a", "b") {
		applied = append(applied, Applied{Ref: o.Ref, APIVersion: "v1", Hash: o.Hash, Written: o.Written})
	}
	o := Observed{Now: time.Unix(5000, 0), Nodes: []NodeState{{Node: "local"}}, Applied: applied}
	opt := Options{Node: "local", DigestKey: []byte("key")}
	p := Compute(d, o, opt)
	secret := object.Ref{Kind: "Secret", Namespace: "default", Name: "key"}
	if !p.Blocked.Whole() || len(p.Changes) != 3 || !cmp.Equal(p.Blocked.Changes, []object.Ref{secret}) || len(p.Blocked.Digest) != 32 {
		t.Fatalf("%+v, %d changes", p.Blocked, len(p.Changes))
	}
	if again := Compute(d, o, opt); !cmp.Equal(p.Blocked, again.Blocked) {
		t.Fatal(cmp.Diff(p.Blocked, again.Blocked))
	}
	given := d
	given.Application.Granted = p.Blocked.Tokens
	if p := Compute(given, o, opt); p.Blocked != nil || len(p.Changes) != 3 {
		t.Fatalf("after the approval: %+v, %d changes", p.Blocked, len(p.Changes))
	}
	// With the digest, as an annotation in Git gives it, nothing is approved: whoever writes there would approve it.
	named := d
	named.Application.Approved = []string{p.Blocked.Digest}
	if p := Compute(named, o, opt); !p.Blocked.Whole() {
		t.Fatal("a digest in Git approves a change")
	}
	// What is done of it needs no other approval.
	half := o
	half.Applied = append([]Applied{}, applied...)
	half.Applied[0].Hash, half.Applied[0].Written = d.Objects[0].Hash, d.Objects[0].Written
	if p := Compute(given, half, opt); p.Blocked != nil || len(p.Changes) != 2 {
		t.Fatalf("half done: %+v", p.Blocked)
	}
	// Anything else in the commit is something else.
	other := given
	other.Objects = desiredOf("2", "a", "b")
	other.Objects[1].Hash, other.Objects[1].Written = "3b", []byte(`{"data":{"v":"3"}}`)
	q := Compute(other, o, opt)
	if !q.Blocked.Whole() || q.Blocked.Digest == p.Blocked.Digest || q.Blocked.Content == p.Blocked.Content {
		t.Fatalf("an approval held for another commit: %+v", q.Blocked)
	}
	// Nothing of the chosen kind: nothing waits.
	free := d
	free.Objects = desiredOf("1", "a", "b")
	free.Objects[0].Hash, free.Objects[0].Written = "2a", []byte(`{"data":{"v":"2"}}`)
	if p := Compute(free, o, opt); p.Blocked != nil || len(p.Changes) != 1 {
		t.Fatalf("%+v", p.Blocked)
	}
	// The digest is keyed: who knows everything but a short value of a Secret cannot find it by trying.
	opt.DigestKey = []byte("another")
	if q := Compute(d, o, opt); q.Blocked.Digest == p.Blocked.Digest || q.Blocked.Content == p.Blocked.Content {
		t.Error("values of a Secret can be guessed from the digest")
	}
}

// Deletions of volumes and of chosen kinds wait in any number, and the rest of the plan goes on.
func TestDeletionsThatAskForAnApproval(t *testing.T) {
	ref := func(group, kind string) object.Ref {
		return object.Ref{Group: group, Kind: kind, Namespace: "default", Name: "x"}
	}
	for name, tc := range map[string]struct {
		approval Approval
		gone     object.Ref
		why      string
	}{
		"a claim":              {Approval{Volumes: true}, ref("", "PersistentVolumeClaim"), "what they hold would be lost"},
		"a volume":             {Approval{Volumes: true}, ref("", "PersistentVolume"), "what they hold would be lost"},
		"a claim, as it may":   {Approval{}, ref("", "PersistentVolumeClaim"), ""},
		"one of another group": {Approval{Volumes: true}, ref("example.org", "PersistentVolumeClaim"), ""},
		"a chosen kind":        {Approval{Kinds: []string{"Secret"}}, ref("", "Secret"), "the settings ask for it for Secret"},
		"a chosen group":       {Approval{Kinds: []string{"*.rbac.authorization.k8s.io"}}, ref("rbac.authorization.k8s.io", "Role"), "the settings ask for it for *.rbac.authorization.k8s.io"},
		"a kind of a group":    {Approval{Kinds: []string{"Deployment.apps"}}, ref("apps", "Deployment"), "the settings ask for it for Deployment.apps"},
		"of no group":          {Approval{Kinds: []string{"Deployment"}}, ref("apps", "Deployment"), "the settings ask for it for Deployment"},
		"another kind":         {Approval{Kinds: []string{"Secret"}}, ref("", "ConfigMap"), ""},
		"another group":        {Approval{Kinds: []string{"Role.example.org"}}, ref("rbac.authorization.k8s.io", "Role"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			applied := []Applied{{Ref: tc.gone, Hash: "x", Created: time.Unix(1000, 0)}}
			applied = append(applied, configMaps(t, 2, "")...)
			app := Application{Name: "shop", Prune: true, AllowEmpty: true, Limit: PruneLimit{MaxShare: 100}, Approval: tc.approval}
			d := Desired{Application: app, Complete: true}
			o := Observed{Now: time.Unix(5000, 0), Nodes: []NodeState{{Node: "local"}}, Applied: applied}
			p := Compute(d, o, Options{Node: "local"})
			if tc.why == "" {
				if p.Blocked != nil || deleted(p) != 3 {
					t.Fatalf("%d deleted, %+v", deleted(p), p.Blocked)
				}
				return
			}
			if p.Blocked == nil || p.Blocked.Whole() || p.Blocked.Why != tc.why || !cmp.Equal(p.Blocked.Objects, []object.Ref{tc.gone}) || deleted(p) != 2 {
				t.Fatalf("%d deleted, %+v", deleted(p), p.Blocked)
			}
			d.Application.Approved = []string{p.Blocked.Digest}
			if q := Compute(d, o, Options{Node: "local"}); q.Blocked != nil || deleted(q) != 3 {
				t.Fatalf("after the approval: %d deleted, %+v", deleted(q), q.Blocked)
			}
			// Made again later it is another one in the digest, and the same one in Git.
			o.Applied[0].Created = time.Unix(9999, 0)
			q := Compute(d, o, Options{Node: "local"})
			if q.Blocked == nil || q.Blocked.Digest == p.Blocked.Digest || q.Blocked.Content != p.Blocked.Content {
				t.Fatalf("before %+v, now %+v", p.Blocked, q.Blocked)
			}
		})
	}
}

// Deletions and changes that wait are one question.
func TestOneApprovalForChangesAndDeletions(t *testing.T) {
	d := Desired{Application: Application{Name: "shop", Prune: true, Limit: PruneLimit{MaxShare: 50, MaxCount: 4}, Approval: Approval{Kinds: []string{"Secret"}}}, Complete: true}
	d.Objects = desiredOf("2")
	o := Observed{Now: time.Unix(5000, 0), Nodes: []NodeState{{Node: "local"}}, Applied: configMaps(t, 9, "")}
	p := Compute(d, o, Options{Node: "local"})
	if !p.Blocked.Whole() || len(p.Blocked.Objects) != 9 || len(p.Blocked.Changes) != 1 {
		t.Fatalf("%+v", p.Blocked)
	}
	if got := p.Blocked.What(); !strings.Contains(got, "Secret default/key") || !strings.Contains(got, "9") && !strings.Contains(got, "more") {
		t.Error(got)
	}
	d.Application.Granted, d.Application.Approved = p.Blocked.Tokens, []string{p.Blocked.Deletions}
	if p := Compute(d, o, Options{Node: "local"}); p.Blocked != nil || deleted(p) != 9 || len(p.Changes) != 10 {
		t.Fatalf("%d deleted, %+v", deleted(p), p.Blocked)
	}
}

func TestKinds(t *testing.T) {
	for _, k := range []string{"Secret", "Deployment.apps", "*.rbac.authorization.k8s.io", "*"} {
		if !IsKind(k) {
			t.Errorf("%q is no kind", k)
		}
	}
	for _, k := range []string{"", "secret", "Secret.", "*.*", "Secret.Apps", "a b", "Secret/x", ".apps"} {
		if IsKind(k) {
			t.Errorf("%q is a kind", k)
		}

	}
}
