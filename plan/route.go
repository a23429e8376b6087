package plan

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/render/object"
)

// Routes are all Services of a node with their endpoints at one moment, sorted by Ref: what everything that serves
// Services is set to. A Route that did not change since the last Routes is the same pointer, so that who compares
// pointers finds in no time what changed.
type Routes []*Route

// Route is a Service and its endpoints at one moment. It is immutable and shared.
type Route struct {
	*Service
	// Ports are the Service's ports, in the order of Spec.Ports.
	Ports []RoutePort
	// Endpoints are all of the Service's endpoints, those included that get no new connections, sorted by address and pod.
	Endpoints []Endpoint
	// Missing are pods that the selector selects and that are no endpoint, or one that is not ready, or that lacks a port,
	// sorted by pod. Those that terminate are not among them.
	Missing []MissingEndpoint
}

// RoutePort is one port of a Service.
type RoutePort struct {
	Name        string
	Protocol    corev1.Protocol
	Port        int32
	NodePort    int32 // 0 for none
	AppProtocol string
}

// Endpoint is one address behind a Service.
type Endpoint struct {
	Address netip.Addr
	// Pod and UID are empty for an endpoint that was written by hand without a pod.
	Pod  PodKey
	UID  string
	Node NodeID
	// Hostname is the endpoint's name below the Service's, empty for none.
	Hostname string
	// Ports are the endpoint's ports, one for each of Route.Ports; 0 where the endpoint does not have that port.
	Ports []int32
	// Ready: new connections go to it. Serving: it would be ready if it did not terminate.
	Ready, Serving, Terminating bool
	// Weight is its share of new connections, 1 to 100.
	Weight int
	// Written is the object that the endpoint was written in by hand, zero for a pod that the selector selects.
	Written object.Ref
}

// MissingEndpoint is a pod that is selected and gets no new connections, or not on every port.
type MissingEndpoint struct {
	Pod PodKey
	// Reason says in words why, for example "not ready: readiness probe failed: HTTP 503".
	Reason string
}

// Backends returns the indexes of the endpoints that get new connections on the port with that index: those that are
// ready; where there are none, those that are terminating and still serve. With a node only endpoints there count, as
// the Local traffic policies have it.
func (r *Route) Backends(port int, on NodeID) []int {
	var ready, draining []int
	for i := range r.Endpoints {
		switch e := &r.Endpoints[i]; {
		case e.Ports[port] == 0, on != "" && e.Node != on:
		case e.Ready:
			ready = append(ready, i)
		case e.Serving && e.Terminating:
			draining = append(draining, i)
		}
	}
	if len(ready) > 0 {
		return ready
	}
	return draining
}
