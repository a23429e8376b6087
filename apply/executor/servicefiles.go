package executor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// serviceFiles keep what a node serves: one file for each Service and for each object of hand-written endpoints, so that
// a change costs one file.
type serviceFiles struct{ dir string }

// savedService is the form of a Service in its file, of which it is all that is needed.
type savedService struct {
	Ref             object.Ref          `json:"ref"`
	Application     string              `json:"application"`
	SourceRevision  string              `json:"revision,omitempty"`
	Labels          map[string]string   `json:"labels,omitempty"`
	Annotations     map[string]string   `json:"annotations,omitempty"`
	Spec            *corev1.ServiceSpec `json:"spec"`
	LoadBalancerIPs []netip.Addr        `json:"loadBalancerIPs,omitempty"`
	Balancing       plan.Balancing      `json:"balancing,omitempty"`
	Hash            string              `json:"hash"`
}

// savedEndpoints is the form of hand-written endpoints in their file.
type savedEndpoints struct {
	Ref         object.Ref                   `json:"ref"`
	Application string                       `json:"application"`
	Service     object.Ref                   `json:"service"`
	Value       []*discoveryv1.EndpointSlice `json:"value"`
	Hash        string                       `json:"hash"`
}

// make makes the directory.
func (f serviceFiles) make() error {
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return fmt.Errorf("make the directory for Services: %w", err)
	}
	return nil
}

// path names the file of an object. Names that are long, or not as Kubernetes has them, are in it by their hash.
func (f serviceFiles) path(ref object.Ref) string {
	name := strings.ToLower(ref.Kind) + "_" + ref.Namespace + "_" + ref.Name
	odd := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_'
	}
	if len(name) > 200 || strings.ContainsFunc(name, odd) || strings.Contains(ref.Namespace+ref.Name, "_") {
		name = object.HashBytes([]byte(ref.String()))
	}
	return filepath.Join(f.dir, name+".json")
}

func (f serviceFiles) writeService(s *plan.Service) error {
	return f.write(s.Ref, savedService{
		Ref: s.Ref, Application: s.Application, SourceRevision: s.SourceRevision, Labels: s.Labels, Annotations: s.Annotations,
		Spec: s.Spec, LoadBalancerIPs: s.LoadBalancerIPs, Balancing: s.Balancing, Hash: s.Hash,
	})
}

func (f serviceFiles) writeEndpoints(e *plan.EndpointSlice) error {
	return f.write(e.Ref, savedEndpoints{Ref: e.Ref, Application: e.Application, Service: e.Service, Value: e.Value, Hash: e.Hash})
}

func (f serviceFiles) write(ref object.Ref, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write down %s: %w", ref, err)
	}
	if err := replaceFile(f.path(ref), data, true); err != nil {
		return fmt.Errorf("write down %s: %w", ref, err)
	}
	return nil
}

func (f serviceFiles) remove(ref object.Ref) error {
	err := os.Remove(f.path(ref))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = syncDir(f.dir)
	}
	if err != nil {
		return fmt.Errorf("remove what is written down of %s: %w", ref, err)
	}
	return nil
}

// read returns everything that is written down, in the order of file names. A file that cannot be read is reported and
// left alone.
func (f serviceFiles) read(trouble func(error)) (services []*plan.Service, endpoints []*plan.EndpointSlice) {
	entries, err := os.ReadDir(f.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		trouble(fmt.Errorf("read which Services the node serves: %w", err))
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		path := filepath.Join(f.dir, e.Name())
		s, w, err := f.readFile(path)
		if err != nil {
			trouble(fmt.Errorf("read which Services the node serves: %s: %w; what it says is not served until it is set again", path, err))
		}
		if s != nil {
			services = append(services, s)
		}
		if w != nil {
			endpoints = append(endpoints, w)
		}
	}
	return services, endpoints
}

func (f serviceFiles) readFile(path string) (*plan.Service, *plan.EndpointSlice, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	var s savedService
	if err := json.Unmarshal(data, &struct {
		Ref *object.Ref `json:"ref"`
	}{&s.Ref}); err != nil {
		return nil, nil, err
	}
	if f.path(s.Ref) != path {
		return nil, nil, fmt.Errorf("it is about %s", s.Ref)
	}
	if s.Ref.Kind == "Service" {
		if err := json.Unmarshal(data, &s); err != nil {
			return nil, nil, err
		}
		if s.Spec == nil {
			return nil, nil, errors.New("it has no spec")
		}
		return &plan.Service{
			Ref: s.Ref, Application: s.Application, SourceRevision: s.SourceRevision, Labels: s.Labels, Annotations: s.Annotations,
			Spec: s.Spec, LoadBalancerIPs: s.LoadBalancerIPs, Balancing: s.Balancing, Hash: s.Hash,
		}, nil, nil
	}
	var e savedEndpoints
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, nil, err
	}
	return nil, &plan.EndpointSlice{Ref: e.Ref, Application: e.Application, Service: e.Service, Value: e.Value, Hash: e.Hash}, nil
}
