package sim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing/fstest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairlead-dev/fairlead/daemon/reconcile"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/plan/plantest"
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/sources"
)

// app is one application: its configuration and its repository.
type app struct {
	w    *world
	name string

	mu     sync.Mutex
	config reconcile.Config
	revs   map[sources.Revision]*revision
	order  []*revision
	head   *revision
	tree   map[string]object.Object // what the next commit holds, by name
	asleep bool                     // fetching hangs
	away   error                    // fetching fails
}

// kind is what a commit is.
type kind string

const (
	good   kind = "good"
	broken kind = "broken" // rendering finds errors and only a part of the objects
	empty  kind = "empty"  // no object at all
)

// revision is one commit.
type revision struct {
	id      sources.Revision
	kind    kind
	objects []object.Object
	refs    map[object.Ref]*object.Object
}

// says identifies what a revision says.
func (r *revision) says() string {
	var s strings.Builder
	for _, o := range r.objects {
		fmt.Fprintln(&s, o.Ref, o.Hash)
	}
	return s.String()
}

var errAway = errors.New("the repository cannot be reached")

// commit makes a revision of objects the head.
func (a *app) commit(k kind, objects []object.Object) *revision {
	objects = slices.Clone(objects)
	slices.SortFunc(objects, func(x, y object.Object) int { return object.Compare(x.Ref, y.Ref) })
	a.mu.Lock()
	defer a.mu.Unlock()
	r := &revision{id: sources.Revision(fmt.Sprintf("%s-%03d-%s", a.name, len(a.order), k)), kind: k, objects: objects, refs: map[object.Ref]*object.Object{}}
	for i := range objects {
		r.refs[objects[i].Ref] = &objects[i]
	}
	a.revs[r.id], a.head = r, r
	a.order = append(a.order, r)
	return r
}

func (a *app) put(o object.Object) { a.tree[o.Kind+"/"+o.Name] = o }

func (a *app) commitTree() *revision {
	return a.commit(good, slices.Collect(maps.Values(a.tree)))
}

// at returns the revision of that id, nil when there is none.
func (a *app) at(id string) *revision {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.revs[sources.Revision(id)]
}

// isEarlier reports whether a revision is a good one that is not the newest.
func (a *app) isEarlier(id string) bool {
	r := a.at(id)
	a.mu.Lock()
	defer a.mu.Unlock()
	return r != nil && r != a.head && r.kind == good
}

// remote is a repository as one incarnation of the daemon reaches it.
type remote struct {
	*app
	inc *incarnation
}

// Fetch implements sources.Source.
func (a remote) Fetch(ctx context.Context, have sources.Revision) (sources.Snapshot, error) {
	a.inc.arrive("fetch " + a.name)
	a.mu.Lock()
	head, asleep, away := a.head, a.asleep, a.away
	a.mu.Unlock()
	switch {
	case asleep:
		<-ctx.Done()
		return sources.Snapshot{}, ctx.Err()
	case away != nil && a.w.has(FailedFetchIsEmpty):
		return sources.Snapshot{Source: a.name, Revision: "nothing", Files: fstest.MapFS{}}, nil
	case away != nil && a.w.has(FailedFetchIsPartial):
		return sources.Snapshot{Source: a.name, Revision: partial + head.id, Files: fstest.MapFS{}}, nil
	case away != nil:
		return sources.Snapshot{}, away
	case a.w.has(SourceGoesBack) && len(a.order) > 2 && a.w.chance("back", len(a.order))%3 == 0:
		a.mu.Lock()
		head = a.order[len(a.order)-2]
		a.mu.Unlock()
	}
	if head.id == have {
		return sources.Snapshot{}, sources.ErrUnchanged
	}
	return sources.Snapshot{Source: a.name, Revision: head.id, Message: "commit " + string(head.id), Files: fstest.MapFS{}}, nil
}

// Close implements sources.Source.
func (a remote) Close() error { return nil }

// The images of pods. Those of bad either do not exist or do not start.
var (
	images = []string{"web:1", "web:2", "web:3"}
	bad    = []string{"bad:missing", "bad:nostart"}
)

// edit changes the tree as a commit of a person does: a workload comes, goes or changes.
func (w *world) edit(a *app) {
	names := slices.Sorted(maps.Keys(a.tree))
	put := func(o object.Object) {
		if !w.elsewhere(a, &o) {
			a.put(w.inWave(a, o))
		}
	}
	for range 1 + w.rnd.IntN(2) {
		name := fmt.Sprintf("%s-%d", a.name, w.rnd.IntN(3))
		switch n := w.rnd.IntN(13); {
		case n < 6:
			put(w.deployment(a, name))
		case n < 7:
			put(w.barePod("one-" + name))
		case n < 9:
			put(w.service(name))
		case n < 10:
			put(plantest.ConfigMap("cm-"+name, fmt.Sprint(w.rnd.IntN(3))))
		case n < 11:
			put(w.job("job-" + name))
		case len(names) > 2:
			delete(a.tree, names[w.rnd.IntN(len(names))])
		}
		if w.ordered() && w.rnd.IntN(4) == 0 {
			a.put(w.hook(a))
		}
	}
	if len(a.tree) == 0 {
		a.put(w.filler(a))
	}
}

// filler is an object that keeps a tree from being empty.
func (w *world) filler(a *app) object.Object { return plantest.ConfigMap("cm-"+a.name, "0") }

// deployment draws one with any strategy. Those of an application that goes back when a revision fails have little time to
// become ready.
func (w *world) deployment(a *app, name string) object.Object {
	bound := func() *intstr.IntOrString {
		v := intstr.FromInt(w.rnd.IntN(4))
		if w.rnd.IntN(2) == 0 {
			v = intstr.FromString(fmt.Sprintf("%d%%", w.rnd.IntN(101)))
		}
		return &v
	}
	return plantest.Deployment(name, images[w.rnd.IntN(len(images))], int32(w.rnd.IntN(5)), func(d *appsv1.Deployment) {
		if w.rnd.IntN(5) == 0 {
			d.Spec.Strategy.Type = appsv1.RecreateDeploymentStrategyType
		} else {
			d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxSurge: bound(), MaxUnavailable: bound()}
		}
		d.Spec.MinReadySeconds = []int32{0, 0, 30}[w.rnd.IntN(3)]
		d.Spec.Paused = w.rnd.IntN(10) == 0
		labels := map[string]string{"app": name}
		d.Spec.Selector = &metav1.LabelSelector{MatchLabels: labels}
		d.Spec.Template.Labels = labels
		container(&d.Spec.Template.Spec, w.rnd)
		if a.config.Rollback {
			seconds := int32(45)
			d.Spec.ProgressDeadlineSeconds = &seconds
		}
		if w.rnd.IntN(6) == 0 {
			d.Spec.Template.Spec.Containers[0].Image = bad[w.rnd.IntN(len(bad))]
		}
	})
}

// container makes what is alike in all pods.
func container(s *corev1.PodSpec, rnd *rand.Rand) {
	grace := int64(2 + rnd.IntN(8))
	s.TerminationGracePeriodSeconds = &grace
	s.RestartPolicy = corev1.RestartPolicyAlways
	c := &s.Containers[0]
	if rnd.IntN(3) > 0 {
		c.ReadinessProbe = &corev1.Probe{
			ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"ready"}}}, PeriodSeconds: 5, FailureThreshold: 1, SuccessThreshold: 1, TimeoutSeconds: 1,
		}
	}
	if rnd.IntN(4) == 0 {
		s.Containers = append(s.Containers, corev1.Container{Name: "side", Image: "side:1", ImagePullPolicy: corev1.PullIfNotPresent})
	}
}

// barePod draws one: of a name only the image differs, because nothing else of a Pod can be changed.
func (w *world) barePod(name string) object.Object {
	t := plantest.Template(images[w.rnd.IntN(len(images))])
	t.Labels = map[string]string{"app": name}
	container(&t.Spec, rand.New(rand.NewPCG(w.chance("pod "+name), 0)))
	return plantest.Object(object.Ref{Kind: "Pod", Namespace: "shop", Name: name}, "v1", &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: t.Labels}, Spec: t.Spec,
	})
}

// tasks are the images of Jobs: one does its work, the other fails.
var tasks = []string{"task:good", "task:bad"}

// job draws one: of a name everything is alike, because of a Job nothing but its size can be changed. One that is good bears
// whatever is done to its pods.
func (w *world) job(name string) object.Object {
	rnd := rand.New(rand.NewPCG(w.chance("job "+name), 0))
	t := plantest.Template(tasks[0])
	t.Spec.Containers[0].Name, t.Labels = "task", map[string]string{"job": name}
	t.Spec.RestartPolicy = corev1.RestartPolicyNever
	completions, parallelism, limit, grace := int32(1+rnd.IntN(3)), int32(1+rnd.IntN(2)), int32(1000), int64(2)
	if rnd.IntN(3) == 0 {
		t.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
	}
	if rnd.IntN(4) == 0 {
		t.Spec.Containers[0].Image, limit = tasks[1], 1
	}
	t.Spec.TerminationGracePeriodSeconds = &grace
	j := &batchv1.Job{
		TypeMeta: metav1.TypeMeta{APIVersion: "batch/v1", Kind: "Job"}, ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec: batchv1.JobSpec{Completions: &completions, Parallelism: &parallelism, BackoffLimit: &limit, Template: t},
	}
	o := plantest.Object(object.Ref{Group: "batch", Kind: "Job", Namespace: "shop", Name: name}, "batch/v1", j)
	o.Value = j
	return o
}

func (w *world) service(name string) object.Object {
	s := &corev1.Service{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, Selector: map[string]string{"app": name}, Ports: []corev1.ServicePort{{Name: "http", Port: int32(80 + w.rnd.IntN(3)), Protocol: corev1.ProtocolTCP}}},
	}
	o := plantest.Object(object.Ref{Kind: "Service", Namespace: "shop", Name: name}, "v1", s)
	o.Value = s
	return o
}

// fix leaves no workload in the tree that could not run, or is not to be rolled out.
func (w *world) fix(a *app) {
	w.fixHooks(a)
	for _, key := range slices.Sorted(maps.Keys(a.tree)) {
		if j, ok := a.tree[key].Value.(*batchv1.Job); ok && j.Spec.Template.Spec.Containers[0].Image == tasks[1] {
			delete(a.tree, key)
		}
		d, ok := a.tree[key].Value.(*appsv1.Deployment)
		if !ok {
			continue
		}
		d = d.DeepCopy()
		d.Spec.Paused, d.Spec.ProgressDeadlineSeconds = false, nil
		if slices.Contains(bad, d.Spec.Template.Spec.Containers[0].Image) {
			d.Spec.Template.Spec.Containers[0].Image = images[w.rnd.IntN(len(images))]
		}
		a.put(plantest.Object(a.tree[key].Ref, "apps/v1", d))
	}
}

// partial begins the name of a revision of which only the first half came.
const partial = "half of "

// render is what rendering a revision finds.
func (a *app) render(id string) ([]object.Object, diag.List) {
	if id == "nothing" {
		return nil, nil
	}
	if whole, ok := strings.CutPrefix(id, partial); ok {
		objects := a.at(whole).objects
		return objects[:len(objects)/2], nil
	}
	r := a.at(id)
	if r == nil {
		return nil, diag.List{{Severity: diag.Error, Code: "render-failed", Message: "no such revision " + id}}
	}
	if r.kind == broken && !a.w.has(BrokenIsComplete) {
		return r.objects, diag.List{{Severity: diag.Error, Code: "unknown-field", Message: "a mistake"}}
	}
	switch {
	case a.w.has(WavesAreIgnored):
		return stripped(r.objects, waveNote), nil
	case a.w.has(HooksAreIgnored):
		return stripped(r.objects, hookNote), nil
	}
	return r.objects, nil
}

// rolling says how few pods of a Deployment may be available, and how many there may be; false when it does not say.
func rolling(d *appsv1.Deployment) (least, most int, ok bool) {
	if d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType || d.Spec.Paused {
		return 0, 0, false
	}
	want := int(*d.Spec.Replicas)
	surge, unavailable := scaled(d, want)
	return max(0, want-unavailable), want + surge, true
}

func configOf(a *app, w *world) reconcile.Config {
	c := reconcile.Config{
		Application:   plan.Application{Name: a.name, Source: a.name, Path: ".", Prune: w.rnd.IntN(4) > 0},
		RetryInterval: 16 * time.Second,
		Rollback:      w.chance("rollback "+a.name)%2 == 0 && !w.moves(),
	}
	if w.rnd.IntN(3) == 0 {
		c.Timeout = 5 * time.Minute
	}
	return c
}
