// Package probes watches over containers: it runs their startup, readiness and liveness probes and
// reports when a verdict changes. It also runs lifecycle hooks that need the same transports.
//
// What counts and when the next attempt is due is decided by a machine of values (machine.go);
// Manager drives one machine for each probe; Runner makes the attempts.
package probes

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Kind is what a probe decides.
type Kind string

// The kinds of probes.
const (
	// Startup decides when a container has started; until then the other probes wait.
	Startup Kind = "startup"
	// Readiness decides whether a container takes traffic.
	Readiness Kind = "readiness"
	// Liveness decides whether a container is to be restarted.
	Liveness Kind = "liveness"
)

// Target is the container that probes are made against.
type Target struct {
	UID       string // of the pod
	Container string
	Attempt   int // changes with every restart of the container
	// ContainerID is the engine's, for exec.
	ContainerID string
	// IP is the pod's address, or the host's with host networking.
	IP string
	// Started is when the container started: initial delays count from there.
	Started time.Time
}

// Result is a verdict that changed, or the first one.
type Result struct {
	UID       string
	Container string
	Attempt   int
	Kind      Kind
	Success   bool
	// Message says how the last attempt failed, or with which warning it succeeded.
	Message string
	// GracePeriod is the probe's terminationGracePeriodSeconds; nil for the pod's.
	GracePeriod *int64
}

// Outcome is how one attempt ended.
type Outcome struct {
	Success bool
	// Message explains a failure, or warns about a success.
	Message string
}

// Prober makes one attempt.
type Prober interface {
	// Probe makes one attempt and blocks until it is over or ctx ends, which is its timeout. An error
	// means that the attempt could not be made, for example because the engine did not answer: it
	// counts neither as success nor as failure.
	Probe(ctx context.Context, p *corev1.Probe, c *corev1.Container, t Target) (Outcome, error)
}

// State is what is known about a container now.
type State struct {
	// Started is true when the startup probe succeeded, or there is none.
	Started bool
	// Ready is true when Started and the readiness probe says so, or there is none.
	Ready bool
	// Known is false until the probes that Ready depends on have given their first verdict.
	Known bool
	// Message is the last failure of the probe that keeps the container from being ready.
	Message string
}
