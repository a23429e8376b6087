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
	"slices"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Format is the version of the JSON. Readers of a version read all files of that version: fields are only
// ever added under a new one.
const Format = "fairlead.dev/planfile/v1"

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
	case head.Format != Format:
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
		return &args{Pod: &a.Pod, UID: a.UID}, nil
	}
	return nil, fmt.Errorf("arguments of the type %T have no form", a)
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
	if s.Op != plan.OpPullImage && a.Pod == nil {
		return nil, errors.New("its pod is missing")
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
		return plan.DeletePod{Pod: *a.Pod, UID: a.UID}, nil
	}
	return nil, fmt.Errorf("its operation %q is unknown", s.Op)
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
