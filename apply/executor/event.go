package executor

import (
	"fmt"
	"time"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Event is something that happened to a pod or a Service, in Kubernetes' words.
type Event struct {
	Time time.Time
	// Warning is true for what needs attention.
	Warning     bool
	Application string
	Pod         plan.PodKey
	UID         string
	Container   string // empty when it concerns the whole pod
	// Service is what the event is about when it is about no pod.
	Service object.Ref
	// Reason is one CamelCase word, for example Pulled, Created, Started, Killing, BackOff, Unhealthy,
	// FailedMount; Message a sentence.
	Reason  string
	Message string
	// By and Action are set for what was not asked for, as in plan.Disturbance.
	By     plan.By
	Action string
}

// Ref names what it happened to.
func (e Event) Ref() object.Ref {
	if !e.Service.IsZero() {
		return e.Service
	}
	return e.Pod.Ref()
}

// Type returns Kubernetes' word: Normal or Warning.
func (e Event) Type() string {
	if e.Warning {
		return "Warning"
	}
	return "Normal"
}

func (n *Node) emit(pod *plan.Pod, uid, container string, warning bool, reason, message string) {
	n.opt.OnEvent(Event{
		Time: time.Now(), Warning: warning, Application: pod.Application, Pod: pod.PodKey, UID: uid,
		Container: container, Reason: reason, Message: message,
	})
}

// normal and warning tell of the pod, or of one of its containers.
func (p *pod) normal(container, reason, format string, args ...any) {
	p.node.emit(p.state.pod, p.uid, container, false, reason, fmt.Sprintf(format, args...))
}

func (p *pod) warning(container, reason, format string, args ...any) {
	p.node.emit(p.state.pod, p.uid, container, true, reason, fmt.Sprintf(format, args...))
}
