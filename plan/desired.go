package plan

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/render/object"
)

// NodeID names a node: a machine with a Docker engine.
type NodeID string

// Application is what the planner has to know of one application.
type Application struct {
	// Name is unique in the daemon: "name", or "namespace/name" when declared by an object.
	Name     string `json:"name"`
	Source   string `json:"source,omitempty"`
	Revision string `json:"revision,omitempty"`
	Path     string `json:"path,omitempty"`
	// Prune allows the deletion of objects that are gone from the source.
	Prune bool `json:"prune,omitempty"`
	// AllowEmpty allows a complete render without any object to prune everything.
	AllowEmpty bool `json:"allowEmpty,omitempty"`
	// Limit is how much one plan may delete without an approval, Approval what else waits for one. Approved are the digests of
	// deletions that were approved, Granted are those of Blocked.Tokens.
	Limit    PruneLimit `json:"limit,omitzero"`
	Approval Approval   `json:"approval,omitzero"`
	Approved []string   `json:"approved,omitempty"`
	Granted  []string   `json:"granted,omitempty"`
	// Removed says why everything of the application goes; empty while the application stays.
	Removed string `json:"removed,omitempty"`
	// Force replaces objects whose immutable fields changed.
	Force bool `json:"force,omitempty"`
	// Ignore are fields whose drift and changes are left alone.
	Ignore []IgnoreRule `json:"ignore,omitempty"`
}

// IgnoreRule leaves fields of matching objects alone. Empty fields match everything.
type IgnoreRule struct {
	Group, Kind, Namespace, Name string
	// Pointers are JSON pointers (RFC 6901), for example /spec/replicas.
	Pointers []string
}

// Desired is what one application wants, made by Expand.
type Desired struct {
	Application Application
	// Complete is false when fetching or rendering failed: then nothing may be deleted.
	Complete bool
	// Objects are all objects, sorted by object.Compare.
	Objects []object.Object
	// Workloads are the objects that run pods, in the order of Objects.
	Workloads []Workload
	// Services and Endpoints are the Services and the hand-written endpoints, in the order of Objects.
	Services  []DesiredService
	Endpoints []DesiredEndpoints
	Configs   Configs
	// Orders say of objects when they are applied, where they say something themselves.
	Orders map[object.Ref]Order
}

// Configs are ConfigMaps and Secrets, sorted by Ref. They are shared, and never modified.
type Configs []Config

// Get returns the one of a name.
func (c Configs) Get(r object.Ref) (Config, bool) {
	at, ok := object.Find(c, configName, r)
	if !ok {
		return Config{}, false
	}
	return c[at], true
}

func configName(c *Config) object.Ref { return c.Ref }

// Config is the content of a ConfigMap or Secret. Its String never shows values.
type Config struct {
	Ref    object.Ref
	Data   map[string][]byte
	Digest string
}

// String returns the name and digest, never the content.
func (c Config) String() string { return c.Ref.String() + "@" + c.Digest }

// Secret reports whether the values must never be shown.
func (c Config) Secret() bool { return c.Ref.Kind == "Secret" }

// PodKey names a pod.
type PodKey struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// String returns "namespace/name".
func (k PodKey) String() string { return k.Namespace + "/" + k.Name }

// Ref returns the pod's object.Ref.
func (k PodKey) Ref() object.Ref {
	return object.Ref{Kind: "Pod", Namespace: k.Namespace, Name: k.Name}
}

// Pod is one pod that is to run. It is immutable and shared: never modify what it points to.
type Pod struct {
	PodKey
	Application string
	// SourceRevision is the commit that the pod was planned from; informative.
	SourceRevision string
	// Owner is the workload that the pod belongs to; the pod's own Ref for a bare Pod.
	Owner object.Ref
	// Template identifies the pod template as it was written, without what can be changed in place.
	// Pods of one workload with the same Template differ only by name.
	Template string
	// Labels and Annotations are the template's, with what the workload adds.
	Labels      map[string]string
	Annotations map[string]string
	// Spec has Kubernetes' defaults applied.
	Spec *corev1.PodSpec
	// Index is the completion index of an indexed Job's pod, otherwise -1.
	Index int
	// Configs are the ConfigMaps and Secrets that the pod refers to and that exist, sorted by Ref.
	Configs []Config
	// Claims are what the pod's claims are bound to, by the claim's name. The node that runs it fills them in.
	Claims map[string]Source
}
