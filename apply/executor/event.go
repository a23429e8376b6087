package executor

import (
	"fmt"
	"time"

	"github.com/fairlead-dev/fairlead/plan"
)

// Event is something that happened to a pod, in Kubernetes' words.
type Event struct {
	Time time.Time
	// Warning is true for what needs attention.
	Warning     bool
	Application string
	Pod         plan.PodKey
	UID         string
	Container   string // empty when it concerns the whole pod
	// Reason is one CamelCase word, for example Pulled, Created, Started, Killing, BackOff, Unhealthy,
	// FailedMount; Message a sentence.
	Reason  string
	Message string
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
