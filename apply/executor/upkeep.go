package executor

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/runtimes"
)

// prepareVolumes makes the pod's volumes and files.
func (p *pod) prepareVolumes() {
	p.volumes.busy = true
	bare, ip := p.state.pod, p.address()
	p.begin(func() func() {
		ctx, cancel := context.WithTimeout(p.work, callTimeout)
		defer cancel()
		p.files.Lock()
		pod, err := p.node.withConfigs(bare)
		if err == nil {
			err = p.node.opt.Volumes.Prepare(ctx, pod, p.uid, p.node.facts(pod, p.uid, ip))
		}
		if err == nil {
			err = p.node.writeFiles(pod, p.uid, ip)
		}
		mounted, e := p.node.opt.Volumes.Mounted(p.uid)
		p.files.Unlock()
		return func() {
			t := &p.volumes
			t.busy = false
			if e == nil {
				p.mounted = mounted
			}
			if err == nil {
				t.done, t.problem = true, nil
				t.retry.succeeded()
				return
			}
			t.notBefore = time.Now().Add(t.retry.failed())
			if p.work.Err() != nil {
				return
			}
			if t.problem == nil || t.problem.Error() != err.Error() {
				p.warning("", "FailedMount", "%v", err)
			}
			t.problem = &problem{Reason: "FailedMount", Err: err}
		}
	})
}

// change makes the pod what wanted says, as far as that can be done while it runs.
func (p *pod) change(wanted *plan.Pod, number int) {
	if number < p.state.updates {
		return // a later one came first
	}
	p.state.updates = number
	p.respec(wanted)
	p.state.update = task{}
	p.updateErr = nil
	// What failed for want of configuration is tried again at once.
	p.volumes.notBefore = time.Time{}
	for _, c := range p.containers {
		if c.problem != nil && c.problem.Reason == reasonConfigError {
			c.wait = time.Time{}
		}
	}
}

// updateInPlace brings limits and the content of volumes to what the pod says.
func (p *pod) updateInPlace() {
	t := &p.state.update
	t.busy = true
	wanted := p.state.pod
	ip := p.address()
	type limit struct {
		c        *container
		name, id string
		to       plan.Resources
	}
	var changed []limit
	for _, c := range p.containers {
		if to := plan.ResourcesOf(c.spec); c.id != "" && (c.status == running || c.status == created) && to != c.resources {
			changed = append(changed, limit{c, c.spec.Name, c.id, to})
		}
	}
	p.begin(func() func() {
		ctx, cancel := p.node.call()
		defer cancel()
		done := make([]bool, len(changed))
		var err error
		for i, l := range changed {
			if e := p.node.opt.Engine.Update(ctx, l.id, l.to); e != nil {
				err = fmt.Errorf("update the limits of container %s: %w", l.name, e)
				break
			}
			done[i] = true
		}
		p.files.Lock()
		var pod *plan.Pod
		if err == nil {
			pod, err = p.node.withConfigs(wanted)
		}
		if err == nil {
			_, err = p.node.opt.Volumes.Update(ctx, pod, p.uid, p.node.facts(pod, p.uid, ip))
		}
		mounted, e := p.node.opt.Volumes.Mounted(p.uid)
		p.files.Unlock()
		return func() {
			t.busy = false
			if e == nil {
				p.mounted = mounted
			}
			for i, l := range changed {
				if done[i] && l.c.id == l.id {
					l.c.resources = l.to
					p.updatedAt = time.Now()
				}
			}
			p.updateErr = err
			if err != nil {
				p.node.suspect(err)
				t.notBefore = time.Now().Add(t.retry.failed())
				p.warning("", "FailedUpdate", "%v", err)
				return
			}
			t.retry.succeeded()
			t.done = p.state.pod == wanted
		}
	})
}

// readLimits asks for the limits of a container that somebody changed.
func (p *pod) readLimits(c *container) {
	id := c.id
	p.begin(func() func() {
		ctx, cancel := context.WithTimeout(p.node.ctx, 30*time.Second)
		defer cancel()
		seen, err := p.node.opt.Engine.Inspect(ctx, id)
		return func() {
			if err == nil && c.id == id {
				c.resources = seen.Resources
			}
		}
	})
}

// measureVolumes evicts the pod when an emptyDir has outgrown its limit.
func (p *pod) measureVolumes() {
	p.measuring = true
	p.measureAt = time.Now().Add(measureEvery)
	pod := p.state.pod
	p.begin(func() func() {
		ctx, cancel := context.WithTimeout(p.work, callTimeout)
		defer cancel()
		used, err := p.node.opt.Volumes.Usage(ctx, pod, p.uid)
		return func() {
			p.measuring = false
			if err != nil || p.ending != nil || p.finished != nil || p.deletion != nil {
				return
			}
			for _, name := range slices.Sorted(maps.Keys(used)) {
				if limit, ok := sizeLimit(pod.Spec, name); ok && used[name] > limit.Value() {
					p.evict(fmt.Sprintf("Usage of EmptyDir volume %q exceeds the limit %q. ", name, limit.String()))
					return
				}
			}
		}
	})
}

func sizeLimit(spec *corev1.PodSpec, volume string) (resource.Quantity, bool) {
	for _, v := range spec.Volumes {
		if v.Name == volume && v.EmptyDir != nil && v.EmptyDir.SizeLimit != nil && !v.EmptyDir.SizeLimit.IsZero() {
			return *v.EmptyDir.SizeLimit, true
		}
	}
	return resource.Quantity{}, false
}

// evict ends the pod without its grace period, as Kubernetes does.
func (p *pod) evict(message string) {
	p.ending = &ending{phase: corev1.PodFailed, reason: reasonEvicted, message: message, deadline: time.Now()}
	p.warning("", reasonEvicted, "%s", message)
	p.leave()
}

// withConfigs returns the pod with the content of the ConfigMaps and Secrets that it was made with. A pod
// that was adopted after a restart knows only their names, because values are not kept: it gets what is
// desired now. One that is not known yet is runtimes.ErrMissing, though it be optional: it was there.
func (n *Node) withConfigs(pod *plan.Pod) (*plan.Pod, error) {
	pod, err := n.withClaims(pod)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(pod.Configs, bare) {
		return pod, nil
	}
	filled := *pod
	filled.Configs = slices.Clone(pod.Configs)
	for i, c := range filled.Configs {
		if !bare(c) {
			continue
		}
		now, ok := n.opt.Config(c.Ref)
		if !ok {
			return nil, fmt.Errorf("%s is not known: %w", c.Ref, runtimes.ErrMissing)
		}
		filled.Configs[i] = now
	}
	return &filled, nil
}

// bare reports whether only the name of a ConfigMap or Secret is known.
func bare(c plan.Config) bool { return c.Digest == "" && c.Data == nil }

// requiredRefs are the ConfigMaps and Secrets that a pod cannot be without, each once. They stand in for
// the names in the pod's file, when that is lost.
func requiredRefs(pod *plan.Pod) []object.Ref {
	var refs []object.Ref
	add := func(kind, name string, optional *bool) {
		ref := object.Ref{Kind: kind, Namespace: pod.Namespace, Name: name}
		if name != "" && !isTrue(optional) && !slices.Contains(refs, ref) {
			refs = append(refs, ref)
		}
	}
	for _, v := range pod.Spec.Volumes {
		switch {
		case v.ConfigMap != nil:
			add("ConfigMap", v.ConfigMap.Name, v.ConfigMap.Optional)
		case v.Secret != nil:
			add("Secret", v.Secret.SecretName, v.Secret.Optional)
		case v.Projected != nil:
			for _, src := range v.Projected.Sources {
				if s := src.ConfigMap; s != nil {
					add("ConfigMap", s.Name, s.Optional)
				}
				if s := src.Secret; s != nil {
					add("Secret", s.Name, s.Optional)
				}
			}
		}
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for _, c := range list {
			for _, e := range c.EnvFrom {
				if r := e.ConfigMapRef; r != nil {
					add("ConfigMap", r.Name, r.Optional)
				}
				if r := e.SecretRef; r != nil {
					add("Secret", r.Name, r.Optional)
				}
			}
			for _, e := range c.Env {
				if e.ValueFrom == nil {
					continue
				}
				if r := e.ValueFrom.ConfigMapKeyRef; r != nil {
					add("ConfigMap", r.Name, r.Optional)
				}
				if r := e.ValueFrom.SecretKeyRef; r != nil {
					add("Secret", r.Name, r.Optional)
				}
			}
		}
	}
	return refs
}
