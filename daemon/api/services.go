package api

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Service is a Service as a node serves it.
type Service struct {
	object.Ref
	Application string            `json:"application"`
	Origin      object.Origin     `json:"origin,omitzero"`
	Created     time.Time         `json:"created,omitzero"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	// Spec is what was written, with every address and port that was given to it.
	Spec corev1.ServiceSpec `json:"spec"`
	// LoadBalancer are the addresses of type LoadBalancer.
	LoadBalancer []string       `json:"loadBalancer,omitempty"`
	Balancing    plan.Balancing `json:"balancing,omitempty"`
	// Slices are its endpoints, in Kubernetes' form.
	Slices []*discoveryv1.EndpointSlice `json:"slices"`
	// Weights are those of endpoints that have another one than 1, by address.
	Weights map[string]int `json:"weights,omitempty"`
	// Missing are pods that its selector selects and that are no endpoints, with why.
	Missing []MissingEndpoint `json:"missing,omitempty"`
	// Names are those that it has in DNS.
	Names []string `json:"names,omitempty"`
	// Registries are what serves it: routes, names, the proxy, Consul.
	Registries []Registry `json:"registries,omitempty"`
}

// MissingEndpoint is a pod that a Service selects and that is no endpoint of it.
type MissingEndpoint struct {
	Pod    plan.PodKey `json:"pod"`
	Reason string      `json:"reason"`
}

// Registry is something that serves the Services of a node.
type Registry struct {
	Name string `json:"name"`
	// Set is when it was last brought to what is wanted, Took how long that took.
	Set  time.Time     `json:"set,omitzero"`
	Took time.Duration `json:"tookNanoseconds,omitempty"`
	// Error says why it is not what is wanted, Since when that began.
	Error string    `json:"error,omitempty"`
	Since time.Time `json:"since,omitzero"`
}

// Endpoints returns how many of the Service's endpoints are ready, and how many there are.
func (s Service) Endpoints() (ready, all int) {
	for _, slice := range s.Slices {
		for _, e := range slice.Endpoints {
			all++
			if e.Conditions.Ready == nil || *e.Conditions.Ready {
				ready++
			}
		}
	}
	return ready, all
}

// Reaches returns what the Service is reached by: addresses with ports, one for each port and way.
func (s Service) Reaches() []string {
	var out []string
	for _, p := range s.Spec.Ports {
		on := func(address string, port int32) {
			out = append(out, fmt.Sprintf("%s:%d/%s", address, port, p.Protocol))
		}
		for _, a := range s.Spec.ClusterIPs {
			if a != corev1.ClusterIPNone {
				on(a, p.Port)
			}
		}
		for _, a := range s.Spec.ExternalIPs {
			on(a, p.Port)
		}
		for _, a := range s.LoadBalancer {
			on(a, p.Port)
		}
		if p.NodePort != 0 {
			on("*", p.NodePort)
		}
	}
	return out
}

// Service reports whether s is selected.
func (m Matcher) Service(s Service) bool { return m.match(s.Ref, s.Labels, s.Application) }
