package api

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
)

// PodFrom returns an observed pod as the read model has it. Secret values are in neither.
func PodFrom(node plan.NodeID, o plan.ObservedPod) Pod {
	p := Pod{
		PodKey: o.PodKey, UID: o.UID, Application: o.Application, Owner: o.Owner, Node: node, IP: o.IP,
		Phase: string(o.Phase), IsReady: o.Ready, Created: o.Created, Labels: o.Labels, Annotations: o.Annotations,
		Reason: o.Reason, Message: o.Message, LogTail: o.LogTail, Containers: []Container{},
	}
	sidecar := map[string]bool{}
	if o.Spec != nil {
		for _, c := range o.Spec.InitContainers {
			sidecar[c.Name] = c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
		}
	}
	for _, c := range o.Containers {
		out := Container{
			Name: c.Name, ID: c.ID, Init: c.Init, Sidecar: c.Init && sidecar[c.Name], Image: c.Image, ImageID: c.ImageID,
			State: c.State, Ready: c.Ready, Started: c.Started, Restarts: c.Restarts, ExitCode: c.ExitCode,
			Reason: c.Reason, Message: c.Message, StartedAt: c.StartedAt, FinishedAt: c.FinishedAt, Limits: c.Resources,
		}
		if out.Reason == "" && c.State == plan.Terminated && c.OOM {
			out.Reason = "OOMKilled"
		}
		p.Containers = append(p.Containers, out)
	}
	p.sumUp(o.Terminating, o.Ready)
	return p
}

// sumUp sets Ready, Total, Restarts, LastRestart and Status from the containers, following what
// kubectl's printer shows; but what ended a pod as a whole, for example Evicted, tells more than what became
// of its containers by it.
func (p *Pod) sumUp(terminating, podReady bool) {
	status := p.Phase
	if p.Reason != "" {
		status = p.Reason
	}
	initRestarts, initializing, initFailed := 0, false, false
	var inits, initsDone int
	for _, c := range p.Containers {
		if c.Init {
			inits++
		}
		if !c.Init || c.Sidecar {
			p.Total++
		}
	}
	for _, c := range p.Containers {
		if !c.Init {
			continue
		}
		initRestarts += c.Restarts
		p.restarted(c)
		if c.Sidecar {
			p.Restarts += c.Restarts
			if c.State == plan.Running && c.Ready {
				p.Ready++
			}
		}
		if initializing {
			continue
		}
		switch {
		case c.State == plan.Terminated && c.ExitCode == 0, c.Sidecar && c.Started:
			initsDone++
		case c.State == plan.Terminated:
			status, initializing, initFailed = "Init:"+terminatedWord(c), true, !c.Sidecar
		case c.State == plan.Waiting && c.Reason != "" && c.Reason != "PodInitializing":
			status, initializing = "Init:"+c.Reason, true
		default:
			status, initializing = fmt.Sprintf("Init:%d/%d", initsDone, inits), true
		}
	}
	failed := p.Phase == string(corev1.PodFailed)
	if initializing && (initFailed || !failed && p.Phase != string(corev1.PodSucceeded)) {
		p.Restarts = initRestarts
	} else {
		running := false
		// Backwards, so that the first container's word wins, as with kubectl.
		for i := len(p.Containers) - 1; i >= 0; i-- {
			c := p.Containers[i]
			if c.Init {
				continue
			}
			p.Restarts += c.Restarts
			p.restarted(c)
			switch {
			case c.State == plan.Waiting && c.Reason != "":
				status = c.Reason
			case c.State == plan.Waiting && c.Restarts == 0:
				status = "ContainerCreating"
			case c.State == plan.Terminated:
				status = terminatedWord(c)
			case c.State == plan.Running && c.Ready:
				running = true
				p.Ready++
			}
		}
		if status == "Completed" && running {
			status = "NotReady"
			if podReady {
				status = "Running"
			}
		}
	}
	if failed && p.Reason != "" {
		status = p.Reason
	}
	if terminating {
		status = "Terminating"
	}
	p.Status = status
}

func (p *Pod) restarted(c Container) {
	at := c.FinishedAt
	if c.State == plan.Running {
		at = c.StartedAt
	}
	if c.Restarts > 0 && at.After(p.LastRestart) {
		p.LastRestart = at
	}
}

func terminatedWord(c Container) string {
	switch {
	case c.Reason != "":
		return c.Reason
	case c.ExitCode == 0:
		return "Completed"
	case c.ExitCode > 128 && c.ExitCode <= 128+64:
		return fmt.Sprintf("Signal:%d", c.ExitCode-128)
	default:
		return fmt.Sprintf("ExitCode:%d", c.ExitCode)
	}
}
