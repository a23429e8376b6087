// Package planfile writes a plan as versioned JSON and reads it back. No value of a Secret is in it, and of
// what a pod is made from only its identity: a plan that was read is for showing and comparing. To carry it
// out, plan again and compare: the same basis gives the same plan.
//
// It is pure: bytes in, values out.
package planfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Format is the version of the JSON. Readers of a version read all files of that version, and of those before:
// fields are only ever added under a new one. Version 2 added Services, version 3 stages, syncs and moves between
// applications, version 4 storage.
const Format = "fairlead.dev/planfile/v4"

// before are the versions that are read as well.
var before = [...]string{"fairlead.dev/planfile/v1", "fairlead.dev/planfile/v2", "fairlead.dev/planfile/v3"}

// ErrFormat is wrapped by Decode's error for what is no plan, or one of another version.
var ErrFormat = errors.New("not a plan that can be read")

// document is the file: the plan, with its steps in a form that has their arguments.
type document struct {
	Format string `json:"format"`
	plan.Plan
	Steps []step `json:"steps,omitempty"`
}

type step struct {
	plan.Step
	Args *args `json:"args,omitempty"`
}

// args are the parameters of any step; which are set follows from the step's op.
type args struct {
	Image  string `json:"image,omitempty"`
	Always bool   `json:"always,omitempty"`
	// Pod is the pod that is made, changed, waited for or deleted; UID the one that was observed.
	Pod      *plan.PodKey `json:"pod,omitempty"`
	UID      string       `json:"uid,omitempty"`
	Owner    *object.Ref  `json:"owner,omitempty"`
	Template string       `json:"template,omitempty"`
	// Index is set for the pods of indexed Jobs.
	Index    *int      `json:"index,omitempty"`
	Changes  []string  `json:"changes,omitempty"`
	MinReady duration  `json:"minReady,omitempty"`
	Deadline time.Time `json:"deadline,omitzero"`
	// Object is the Service, or what has hand-written endpoints, that is set or deleted; For is the endpoints' Service.
	Object *object.Ref `json:"object,omitempty"`
	// Application is whose it is, and To the application that it moves to.
	Application string      `json:"application,omitempty"`
	To          string      `json:"to,omitempty"`
	For         *object.Ref `json:"for,omitempty"`
	Hash        string      `json:"hash,omitempty"`
	// Type and the addresses are those of the Service.
	Type          corev1.ServiceType `json:"type,omitempty"`
	ClusterIP     string             `json:"clusterIP,omitempty"`
	Ports         []port             `json:"ports,omitempty"`
	HealthPort    int32              `json:"healthCheckNodePort,omitempty"`
	LoadBalancers []netip.Addr       `json:"loadBalancerIPs,omitempty"`
	ExternalIPs   []string           `json:"externalIPs,omitempty"`
	ExternalName  string             `json:"externalName,omitempty"`
	// Storage is the class, volume or claim that is set; Keep keeps what a claim that is deleted holds.
	Storage *plan.Storage `json:"storage,omitempty"`
	Keep    bool          `json:"keep,omitempty"`
	// Stage is what waits until Objects are healthy.
	Stage   *plan.Stage  `json:"stage,omitempty"`
	Objects []object.Ref `json:"objects,omitempty"`
}

// port is one port of a Service.
type port struct {
	Name     string          `json:"name,omitempty"`
	Protocol corev1.Protocol `json:"protocol"`
	Port     int32           `json:"port"`
	NodePort int32           `json:"nodePort,omitempty"`
}

// duration is a time.Duration that is written as Go prints it, for example 1m30s.
type duration time.Duration

func (d duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

func (d *duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = duration(v)
	return err
}

// Encode returns the plan as indented JSON. Equal plans give equal bytes.
func Encode(p plan.Plan) ([]byte, error) {
	d := document{Format: Format, Plan: p}
	d.Plan.Steps = nil
	d.Changes = make([]plan.Change, len(p.Changes))
	for i, c := range p.Changes {
		c.Fields = hidden(c)
		d.Changes[i] = c
	}
	for _, s := range p.Steps {
		a, err := argsOf(s.Args)
		if err != nil {
			return nil, fmt.Errorf("encode step %d: %w", s.ID, err)
		}
		d.Steps = append(d.Steps, step{Step: s, Args: a})
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(d); err != nil {
		return nil, fmt.Errorf("encode plan: %w", err)
	}
	return b.Bytes(), nil
}

// Decode reads what Encode wrote. Its error says what version was found where it is another one.
func Decode(b []byte) (plan.Plan, error) {
	var head struct {
		Format string `json:"format"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return plan.Plan{}, fmt.Errorf("%w: it is not JSON: %w", ErrFormat, err)
	}
	switch {
	case head.Format == "":
		return plan.Plan{}, fmt.Errorf("%w: it says no format, and %s is expected", ErrFormat, Format)
	case head.Format != Format && !slices.Contains(before[:], head.Format):
		return plan.Plan{}, fmt.Errorf("%w: its format is %q, and this fairlead reads %s: make the plan again", ErrFormat, head.Format, Format)
	}
	var d document
	r := json.NewDecoder(bytes.NewReader(b))
	r.DisallowUnknownFields()
	if err := r.Decode(&d); err != nil {
		return plan.Plan{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if _, err := r.Token(); err != io.EOF {
		return plan.Plan{}, fmt.Errorf("%w: something follows after its end", ErrFormat)
	}
	p := d.Plan
	p.Steps = nil
	for i, s := range d.Steps {
		if s.ID != plan.StepID(i+1) || slices.ContainsFunc(s.After, func(id plan.StepID) bool { return id < 1 || id >= s.ID }) {
			return plan.Plan{}, fmt.Errorf("%w: step %d is out of order", ErrFormat, s.ID)
		}
		a, err := s.restored()
		if err != nil {
			return plan.Plan{}, fmt.Errorf("%w: step %d: %w", ErrFormat, s.ID, err)
		}
		s.Step.Args = a
		p.Steps = append(p.Steps, s.Step)
	}
	return p, nil
}

// sensitive stands for the values of Secrets, as JSON.
const sensitive = `"(sensitive)"`

// hidden returns the fields of a change without values of Secrets. The planner leaves none in; this is
// the second lock.
func hidden(c plan.Change) []plan.FieldChange {
	if c.Ref.Kind != "Secret" || c.Ref.Group != "" {
		return c.Fields
	}
	out := slices.Clone(c.Fields)
	for i := range out {
		f := &out[i]
		if !strings.HasPrefix(f.Path, "data") && !strings.HasPrefix(f.Path, "stringData") {
			continue
		}
		if f.Old != "" {
			f.Old = sensitive
		}
		if f.New != "" {
			f.New = sensitive
		}
	}
	return out
}

func argsOf(a plan.Args) (*args, error) {
	switch a := a.(type) {
	case nil:
		return nil, nil
	case plan.PullImage:
		return &args{Image: a.Image, Always: a.Always}, nil
	case plan.CreatePod:
		return podArgs(a.Pod)
	case plan.UpdatePod:
		out, err := podArgs(a.Pod)
		if err == nil {
			out.Changes = a.Changes
		}
		return out, err
	case plan.WaitReady:
		return &args{Pod: &a.Pod, MinReady: duration(a.MinReady), Deadline: a.Deadline}, nil
	case plan.DeletePod:
		return &args{Pod: &a.Pod, UID: a.UID, Application: a.Application}, nil
	case plan.MovePod:
		return &args{Pod: &a.Pod, UID: a.UID, Application: a.From, To: a.To}, nil
	case plan.SetService:
		return serviceArgs(a.Service)
	case plan.DeleteService:
		return &args{Object: &a.Service, Application: a.Application}, nil
	case plan.SetEndpoints:
		if a.Endpoints == nil {
			return nil, errors.New("the endpoints are missing")
		}
		return &args{Object: &a.Endpoints.Ref, Application: a.Endpoints.Application, For: &a.Endpoints.Service, Hash: a.Endpoints.Hash}, nil
	case plan.DeleteEndpoints:
		return &args{Object: &a.Endpoints, Application: a.Application}, nil
	case plan.SetStorage:
		if a.Storage == nil {
			return nil, errors.New("the storage is missing")
		}
		return &args{Storage: a.Storage}, nil
	case plan.DeleteStorage:
		return &args{Object: &a.Storage, Application: a.Application, Keep: a.Keep}, nil
	case plan.WaitHealthy:
		return &args{Stage: &a.Stage, Objects: a.Objects}, nil
	}
	return nil, fmt.Errorf("arguments of the type %T have no form", a)
}

func serviceArgs(s *plan.Service) (*args, error) {
	if s == nil || s.Spec == nil {
		return nil, errors.New("the Service is missing")
	}
	out := &args{
		Object: &s.Ref, Application: s.Application, Hash: s.Hash, Type: s.Spec.Type, ClusterIP: s.Spec.ClusterIP,
		HealthPort: s.Spec.HealthCheckNodePort, LoadBalancers: s.LoadBalancerIPs, ExternalIPs: s.Spec.ExternalIPs, ExternalName: s.Spec.ExternalName,
	}
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		out.Ports = append(out.Ports, port{Name: p.Name, Protocol: p.Protocol, Port: p.Port, NodePort: p.NodePort})
	}
	return out, nil
}

func podArgs(p *plan.Pod) (*args, error) {
	if p == nil {
		return nil, errors.New("the pod is missing")
	}
	out := &args{Pod: &p.PodKey, Owner: &p.Owner, Template: p.Template}
	if p.Index >= 0 {
		out.Index = &p.Index
	}
	return out, nil
}

// restored returns the arguments of a step that was read.
func (s step) restored() (plan.Args, error) {
	a := s.Args
	if a == nil {
		return nil, errors.New("its arguments are missing")
	}
	switch s.Op {
	case plan.OpSetStorage:
		if a.Storage == nil {
			return nil, errors.New("its storage is missing")
		}
	case plan.OpSetService, plan.OpDeleteService, plan.OpSetEndpoints, plan.OpDeleteEndpoints, plan.OpDeleteStorage:
		if a.Object == nil {
			return nil, errors.New("its object is missing")
		}
	case plan.OpCreatePod, plan.OpUpdatePod, plan.OpWaitReady, plan.OpDeletePod, plan.OpMovePod:
		if a.Pod == nil {
			return nil, errors.New("its pod is missing")
		}
	case plan.OpWaitHealthy:
		if a.Stage == nil {
			return nil, errors.New("its stage is missing")
		}
	case plan.OpPullImage:
	}
	switch s.Op {
	case plan.OpPullImage:
		return plan.PullImage{Image: a.Image, Always: a.Always}, nil
	case plan.OpCreatePod:
		return plan.CreatePod{Pod: a.pod()}, nil
	case plan.OpUpdatePod:
		return plan.UpdatePod{Pod: a.pod(), Changes: a.Changes}, nil
	case plan.OpWaitReady:
		return plan.WaitReady{Pod: *a.Pod, MinReady: time.Duration(a.MinReady), Deadline: a.Deadline}, nil
	case plan.OpDeletePod:
		return plan.DeletePod{Pod: *a.Pod, UID: a.UID, Application: a.Application}, nil
	case plan.OpMovePod:
		return plan.MovePod{Pod: *a.Pod, UID: a.UID, From: a.Application, To: a.To}, nil
	case plan.OpSetService:
		return plan.SetService{Service: a.service()}, nil
	case plan.OpDeleteService:
		return plan.DeleteService{Service: *a.Object, Application: a.Application}, nil
	case plan.OpSetEndpoints:
		e := &plan.EndpointSlice{Ref: *a.Object, Application: a.Application, Hash: a.Hash}
		if a.For != nil {
			e.Service = *a.For
		}
		return plan.SetEndpoints{Endpoints: e}, nil
	case plan.OpDeleteEndpoints:
		return plan.DeleteEndpoints{Endpoints: *a.Object, Application: a.Application}, nil
	case plan.OpSetStorage:
		return plan.SetStorage{Storage: a.Storage}, nil
	case plan.OpDeleteStorage:
		return plan.DeleteStorage{Storage: *a.Object, Application: a.Application, Keep: a.Keep}, nil
	case plan.OpWaitHealthy:
		return plan.WaitHealthy{Stage: *a.Stage, Objects: a.Objects}, nil
	}
	return nil, fmt.Errorf("its operation %q is unknown", s.Op)
}

// service returns the identity of a Service and its addresses, which is all that a file holds of it.
func (a *args) service() *plan.Service {
	spec := &corev1.ServiceSpec{
		Type: a.Type, ClusterIP: a.ClusterIP, HealthCheckNodePort: a.HealthPort, ExternalIPs: a.ExternalIPs, ExternalName: a.ExternalName,
	}
	for _, p := range a.Ports {
		spec.Ports = append(spec.Ports, corev1.ServicePort{Name: p.Name, Protocol: p.Protocol, Port: p.Port, NodePort: p.NodePort})
	}
	return &plan.Service{Ref: *a.Object, Application: a.Application, Hash: a.Hash, Spec: spec, LoadBalancerIPs: a.LoadBalancers}
}

// pod returns the identity of a pod, which is all that a file holds of it.
func (a *args) pod() *plan.Pod {
	p := &plan.Pod{PodKey: *a.Pod, Template: a.Template, Index: -1}
	if a.Owner != nil {
		p.Owner = *a.Owner
	}
	if a.Index != nil {
		p.Index = *a.Index
	}
	return p
}
