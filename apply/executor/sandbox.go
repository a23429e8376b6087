package executor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes"
)

// onEngineNetwork reports whether the pod is wired by the engine, because it publishes ports.
func onEngineNetwork(spec *corev1.PodSpec) bool {
	return !spec.HostNetwork && len(hostPorts(spec)) > 0
}

func (p *pod) createSandbox() {
	s := &p.sandbox
	s.busy = true
	pod, uid, ip, attempt := p.state.pod, p.uid, p.address(), s.next
	p.begin(func() func() {
		id, err := p.node.createSandbox(pod, uid, attempt, ip)
		return func() {
			s.busy = false
			if err != nil {
				p.unsure = p.unsure || unanswered(err)
				if errors.Is(err, runtimes.ErrConflict) {
					s.next++ // somebody else has the name
				}
				p.sandboxFailed(fmt.Errorf("create sandbox: %w", err))
				return
			}
			now := time.Now()
			s.instance = instance{id: id, attempt: attempt, status: created, touched: now}
			s.next, s.wired = attempt+1, false
		}
	})
}

func (n *Node) createSandbox(pod *plan.Pod, uid string, attempt int, ip string) (string, error) {
	ctx, cancel := n.call()
	defer cancel()
	release, err := n.slot(ctx)
	if err != nil {
		return "", err
	}
	defer release()
	spec, err := n.sandboxSpec(ctx, pod, uid, attempt, ip)
	if err != nil {
		return "", err
	}
	if err := n.layNetwork(ctx, pod); err != nil {
		return "", err
	}
	spec.OOMScoreAdj = max(spec.OOMScoreAdj, n.lowestOOM)
	if n.hasIPv6 && !spec.HostNetwork {
		spec.Sysctls = withoutIPv6(spec.Sysctls)
	}
	return n.opt.Engine.Create(ctx, spec)
}

// ipv6Default is the sysctl by which interfaces that come into a network namespace have no IPv6.
const ipv6Default = "net.ipv6.conf.default.disable_ipv6"

// withoutIPv6 adds to a pod's sysctls that its interface has no IPv6. Pods have IPv4 addresses; those that the kernel gives links by
// itself would reach other pods past every network policy.
func withoutIPv6(sysctls map[string]string) map[string]string {
	out := map[string]string{ipv6Default: "1"}
	maps.Copy(out, sysctls)
	return out
}

// startSandbox starts the sandbox where it does not run, and wires it.
func (p *pod) startSandbox() {
	s := &p.sandbox
	s.busy = true
	pod, id, pid, start := p.state.pod, s.id, s.pid, s.status == created
	p.begin(func() func() {
		seen, err := p.node.startSandbox(p.uid, id, pid, start)
		if err == nil {
			err = p.wire(pod, seen.PID)
		}
		return func() {
			s.busy = false
			if s.id != id || s.status == exited {
				return
			}
			s.touched = time.Now()
			if seen.Running {
				s.status, s.pid, s.started = running, seen.PID, seen.StartedAt
			}
			switch {
			case errors.Is(err, runtimes.ErrNotFound):
				p.sandboxRemoved(s.touched)
			case err != nil:
				p.sandboxFailed(fmt.Errorf("start sandbox: %w", err))
			default:
				s.wired, s.problem = true, nil
				s.retry.succeeded()
			}
		}
	})
}

// startSandbox returns the sandbox as it runs; before it starts, what bounds the pod is in force. The engine's events do not say its process, so it has
// to be asked for.
func (n *Node) startSandbox(uid, id string, pid int, start bool) (runtimes.Container, error) {
	ctx, cancel := n.call()
	defer cancel()
	if start {
		if err := n.opt.Policies.Admit(ctx, uid); err != nil {
			return runtimes.Container{}, err
		}
		release, err := n.slot(ctx)
		if err != nil {
			return runtimes.Container{}, err
		}
		err = n.opt.Engine.Start(ctx, id)
		release()
		if err != nil {
			return runtimes.Container{}, err
		}
	} else if pid > 0 {
		return runtimes.Container{Running: true, PID: pid, StartedAt: time.Now()}, nil
	}
	c, err := n.opt.Engine.Inspect(ctx, id)
	if err == nil && !c.Running {
		err = fmt.Errorf("it ended at once with exit code %d: %s", c.ExitCode, c.Error)
	}
	return c, err
}

// wire gives the sandbox its network. A network that is gone is made again first.
func (p *pod) wire(pod *plan.Pod, pid int) error {
	n := p.node
	if n.opt.Network == nil || pod.Spec.HostNetwork {
		return nil
	}
	ctx, cancel := n.call()
	defer cancel()
	if onEngineNetwork(pod.Spec) {
		return n.opt.Network.Adopt(ctx, pid)
	}
	if !p.ip.IsValid() {
		return nil
	}
	err := n.opt.Network.Attach(ctx, pid, p.uid, p.ip)
	if err == nil || ctx.Err() != nil {
		return err
	}
	if e := n.opt.Network.Ensure(ctx); e != nil {
		return errors.Join(err, e)
	}
	return n.opt.Network.Attach(ctx, pid, p.uid, p.ip)
}

func (p *pod) sandboxFailed(err error) {
	s := &p.sandbox
	p.node.suspect(err)
	s.notBefore = time.Now().Add(s.retry.failed())
	if errors.Is(err, runtimes.ErrUnavailable) || errors.Is(err, context.Canceled) {
		return
	}
	if why := asProblem(err, "FailedCreatePodSandBox"); why.Reason != reasonSysctlForbidden {
		s.problem = why
	} else {
		// Trying again would not help: the pod fails, as in Kubernetes, and its workload decides what follows.
		p.ending = &ending{phase: corev1.PodFailed, reason: why.Reason, message: why.Error(), deadline: time.Now()}
		p.warning("", why.Reason, "%v", why.Err)
		p.leave()
		return
	}
	p.warning("", "FailedCreatePodSandBox", "Failed to create pod sandbox: %v", err)
}

func (p *pod) sandboxDied(at time.Time) {
	s := &p.sandbox
	if s.status == exited {
		return
	}
	s.status, s.wired, s.ended, s.pid = exited, false, at, 0
	if p.deletion == nil && p.finished == nil && p.ending == nil {
		p.normal("", "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
	}
}

func (p *pod) sandboxRemoved(now time.Time) {
	p.sandboxDied(now)
	p.sandbox.id = ""
}

// replaceSandbox lets go of the sandbox and everything that ran in it: all of it is made anew.
func (p *pod) replaceSandbox() {
	s := &p.sandbox
	if s.id != "" {
		old := s.instance
		p.old = append(p.old, &old)
	}
	s.instance = instance{status: absent}
	s.wired, s.problem = false, nil
	p.volumes = task{} // what is in memory may be gone with the machine's last run
	for _, c := range p.containers {
		if c.previous != nil {
			p.old = append(p.old, c.previous)
			c.previous = nil
		}
		if c.id != "" {
			last := c.instance
			c.previous = &last
		}
		c.instance = instance{status: absent}
		c.reset()
		c.wait, c.byHand = time.Time{}, true
	}
}

// stopSandbox ends the sandbox of a pod that ended, so that its network is free.
func (p *pod) stopSandbox() {
	s := &p.sandbox
	s.busy = true
	id := s.id
	p.begin(func() func() {
		ctx, cancel := p.node.call()
		defer cancel()
		err := p.node.opt.Engine.Kill(ctx, id, "SIGKILL")
		if err == nil && p.node.opt.Network != nil {
			err = p.node.opt.Network.Detach(ctx, p.uid)
		}
		return func() {
			s.busy = false
			if err != nil && !errors.Is(err, runtimes.ErrNotFound) {
				p.node.suspect(err)
				s.notBefore = time.Now().Add(s.retry.failed())
				return
			}
			s.status = exited
		}
	})
}

// address is the pod's address as it is written; empty on the host's network.
func (p *pod) address() string {
	if !p.ip.IsValid() {
		return ""
	}
	return p.ip.String()
}
