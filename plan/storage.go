package plan

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/fairlead-dev/fairlead/render/object"
)

// Storage is one object of storage as a node keeps it: a StorageClass, a PersistentVolume, or a
// PersistentVolumeClaim that is bound. Exactly one of Class, Volume and Claim is set. It is immutable and shared.
type Storage struct {
	object.Ref
	// Application is whose it is; empty for a PersistentVolume that keeps what a deleted claim held.
	Application string `json:"application,omitempty"`
	// Owner is the StatefulSet that a claim was made for; zero for one that is written in a source.
	Owner object.Ref `json:"owner,omitzero"`
	// Created is when it was written down first.
	Created time.Time         `json:"created,omitzero"`
	Labels  map[string]string `json:"labels,omitempty"`
	Class   *Class            `json:"class,omitempty"`
	Volume  *Volume           `json:"volume,omitempty"`
	Claim   *Claim            `json:"claim,omitempty"`
}

// Class is a StorageClass: how volumes of claims are made.
type Class struct {
	Provisioner  string            `json:"provisioner"`
	Parameters   map[string]string `json:"parameters,omitempty"`
	Reclaim      Reclaim           `json:"reclaim"`
	Expand       bool              `json:"expand,omitempty"`
	MountOptions []string          `json:"mountOptions,omitempty"`
	// Default is for claims that name no class.
	Default bool `json:"default,omitempty"`
}

// Reclaim says what becomes of what a claim holds when the claim is deleted.
type Reclaim string

// What becomes of it.
const (
	// Delete deletes the data.
	Delete Reclaim = "Delete"
	// Retain keeps it, in a PersistentVolume that is Released.
	Retain Reclaim = "Retain"
)

// Volume is a PersistentVolume: storage that a claim can be bound to.
type Volume struct {
	Class    string   `json:"class,omitempty"`
	Capacity int64    `json:"capacity"`
	Modes    []string `json:"modes,omitempty"`
	Source   Source   `json:"source"`
	// For is the claim that it is kept for; zero for any.
	For PodKey `json:"for,omitzero"`
	// Released is the claim that had it and was deleted: only a claim of that name, or one that names the volume,
	// is bound to it.
	Released PodKey `json:"released,omitzero"`
	// Provisioned: fairlead made what it points to.
	Provisioned bool `json:"provisioned,omitempty"`
}

// Claim is a PersistentVolumeClaim that is bound.
type Claim struct {
	// Volume is the name of the PersistentVolume, Class that of its StorageClass.
	Volume string   `json:"volume"`
	Class  string   `json:"class,omitempty"`
	Modes  []string `json:"modes,omitempty"`
	// Request is what is asked for, Capacity what the volume has, in bytes.
	Request  int64   `json:"request"`
	Capacity int64   `json:"capacity"`
	Reclaim  Reclaim `json:"reclaim"`
	Source   Source  `json:"source"`
	// Provisioned: the volume was made for the claim, and nothing else has it. Expand: the claim may grow.
	Provisioned bool `json:"provisioned,omitempty"`
	Expand      bool `json:"expand,omitempty"`
}

// Source is where the data of a volume is. Exactly one of its forms is set.
type Source struct {
	// Directory is a directory below the node's own for claims: "namespace/name".
	Directory string `json:"directory,omitempty"`
	// Path is a path of the node, and PathType what is to be there.
	Path     string              `json:"path,omitempty"`
	PathType corev1.HostPathType `json:"pathType,omitempty"`
	// Volume is a volume of the Docker engine.
	Volume *EngineVolume `json:"volume,omitempty"`
	// ReadOnly: nobody may write to it.
	ReadOnly bool `json:"readOnly,omitempty"`
}

// EngineVolume is a volume of the Docker engine.
type EngineVolume struct {
	// Name is without what tells the installations on one engine apart.
	Name    string            `json:"name"`
	Driver  string            `json:"driver"`
	Options map[string]string `json:"options,omitempty"`
}

// String says in words where the data is.
func (s Source) String() string {
	switch {
	case s.Directory != "":
		return "directory " + s.Directory
	case s.Volume != nil:
		return fmt.Sprintf("Docker volume %s (driver %s)", s.Volume.Name, s.Volume.Driver)
	}
	return "path " + s.Path
}

// String names a claim, a volume or a class, and what it is bound to.
func (s *Storage) String() string {
	switch {
	case s.Claim != nil:
		return fmt.Sprintf("%s → %s, %s", s.Ref, s.Claim.Volume, s.Claim.Source)
	case s.Volume != nil:
		return fmt.Sprintf("%s, %s, %s", s.Ref, Quantity(s.Volume.Capacity), s.Volume.Source)
	case s.Class != nil:
		return fmt.Sprintf("%s, provisioner %s", s.Ref, s.Class.Provisioner)
	}
	return s.Ref.String()
}

// Quantity writes a number of bytes as Kubernetes does.
func Quantity(n int64) string { return resource.NewQuantity(n, resource.BinarySI).String() }

// Provisioners that make volumes for claims.
const (
	// DirectoryProvisioner makes a directory on the node.
	DirectoryProvisioner = "fairlead.dev/directory"
	// EngineProvisioner makes a volume of the Docker engine. The parameters of its class are the options of the volume's
	// driver, but for DriverParameter.
	EngineProvisioner = "fairlead.dev/docker-volume"
	// DriverParameter names the driver; without it that is "local".
	DriverParameter = "fairlead.dev/driver"
	// NoProvisioner makes none: claims wait for a PersistentVolume.
	NoProvisioner = "kubernetes.io/no-provisioner"
)

// DefaultClass is the class that is there without being declared: directories on the node. It is for claims that name
// no class where no declared class is the default one.
const DefaultClass = "directory"

// builtinClass is DefaultClass.
func builtinClass() *Class {
	return &Class{Provisioner: DirectoryProvisioner, Reclaim: Delete, Expand: true}
}

// ReclaimAnnotation on a claim says what becomes of what it holds, whatever its class says: Delete or Retain.
const ReclaimAnnotation = "fairlead.dev/reclaim-policy"

// Refs of objects of storage.

// ClaimRef is the object.Ref of a PersistentVolumeClaim.
func ClaimRef(namespace, name string) object.Ref {
	return object.Ref{Kind: "PersistentVolumeClaim", Namespace: namespace, Name: name}
}

// VolumeRef is the object.Ref of a PersistentVolume.
func VolumeRef(name string) object.Ref { return object.Ref{Kind: "PersistentVolume", Name: name} }

// ClassRef is the object.Ref of a StorageClass.
func ClassRef(name string) object.Ref {
	return object.Ref{Group: "storage.k8s.io", Kind: "StorageClass", Name: name}
}

// isStorage reports whether objects of a kind are kept by nodes as Storage.
func isStorage(r object.Ref) bool {
	return isVolume(r) || r.Group == "storage.k8s.io" && r.Kind == "StorageClass"
}

// claimsOf are the claims that a pod uses, in the order of its volumes, each once.
func claimsOf(namespace string, spec *corev1.PodSpec) []object.Ref {
	var out []object.Ref
	for i := range spec.Volumes {
		if c := spec.Volumes[i].PersistentVolumeClaim; c != nil {
			if r := ClaimRef(namespace, c.ClaimName); !slices.Contains(out, r) {
				out = append(out, r)
			}
		}
	}
	return out
}

// UsesClaim reports whether a pod uses a claim.
func UsesClaim(namespace string, spec *corev1.PodSpec, claim object.Ref) bool {
	return spec != nil && slices.Contains(claimsOf(namespace, spec), claim)
}

// sameStorage reports whether two say the same, but for when they were written down.
func sameStorage(a, b *Storage) bool {
	text := func(s *Storage) []byte {
		c := *s
		c.Created = time.Time{}
		out, err := json.Marshal(c)
		if err != nil {
			panic("storage cannot be encoded: " + err.Error()) // it holds texts and numbers
		}
		return out
	}
	return bytes.Equal(text(a), text(b))
}

// storageOf returns what a node is to keep of a StorageClass or PersistentVolume; false for other objects. Of a claim that
// follows from what it is bound to.
func storageOf(app string, o *object.Object) (*Storage, bool) {
	s := &Storage{Ref: o.Ref, Application: app}
	switch v := o.Value.(type) {
	case *storageClass:
		if v == nil {
			return nil, false
		}
		c := &Class{Provisioner: v.Provisioner, Parameters: v.Parameters, Reclaim: Delete, MountOptions: v.MountOptions, Expand: v.AllowVolumeExpansion != nil && *v.AllowVolumeExpansion}
		if v.ReclaimPolicy != nil && *v.ReclaimPolicy == corev1.PersistentVolumeReclaimRetain {
			c.Reclaim = Retain
		}
		c.Default = v.Annotations["storageclass.kubernetes.io/is-default-class"] == "true" || v.Annotations["storageclass.beta.kubernetes.io/is-default-class"] == "true"
		s.Class, s.Labels = c, v.Labels
	case *corev1.PersistentVolume:
		if v == nil {
			return nil, false
		}
		n := &Volume{Class: v.Spec.StorageClassName, Modes: modes(v.Spec.AccessModes)}
		q := v.Spec.Capacity[corev1.ResourceStorage]
		n.Capacity = q.Value()
		if c := v.Spec.ClaimRef; c != nil {
			n.For = PodKey{Namespace: c.Namespace, Name: c.Name}
		}
		switch p := &v.Spec.PersistentVolumeSource; {
		case p.HostPath != nil:
			n.Source.Path = p.HostPath.Path
			if p.HostPath.Type != nil {
				n.Source.PathType = *p.HostPath.Type
			}
		case p.Local != nil:
			n.Source.Path, n.Source.PathType = p.Local.Path, corev1.HostPathDirectory
		case p.NFS != nil:
			n.Source.Volume = nfsVolume(v.Name, p.NFS, v.Spec.MountOptions)
			n.Source.ReadOnly = p.NFS.ReadOnly
		}
		s.Volume, s.Labels = n, v.Labels
	default:
		return nil, false
	}
	return s, true
}

// nfsVolume is the volume of the engine's own driver that mounts what an NFS server exports.
func nfsVolume(name string, nfs *corev1.NFSVolumeSource, mountOptions []string) *EngineVolume {
	kind := "nfs"
	options := []string{"addr=" + nfs.Server}
	for _, o := range mountOptions {
		options = append(options, o)
		if v, ok := strings.CutPrefix(o, "nfsvers="); ok && strings.HasPrefix(v, "4") {
			kind = "nfs4"
		}
	}
	if nfs.ReadOnly {
		options = append(options, "ro")
	}
	return &EngineVolume{Name: name, Driver: "local", Options: map[string]string{"type": kind, "device": ":" + nfs.Path, "o": strings.Join(options, ",")}}
}

func modes(list []corev1.PersistentVolumeAccessMode) []string {
	out := make([]string, 0, len(list))
	for _, m := range list {
		if !slices.Contains(out, string(m)) {
			out = append(out, string(m))
		}
	}
	slices.Sort(out)
	return out
}

func compareStorage(a, b **Storage) int {
	return cmp.Or(object.Compare((*a).Ref, (*b).Ref), cmp.Compare((*a).Application, (*b).Application))
}

// WithStorage returns what a node keeps once it has been told to keep x, sorted. A node does the same.
func WithStorage(list []*Storage, x *Storage) []*Storage {
	out := make([]*Storage, 0, len(list)+1)
	for _, y := range list {
		switch {
		case y.Ref == x.Ref:
		case x.Claim == nil || y.Volume == nil || y.Name != x.Claim.Volume:
			out = append(out, y)
		case y.Application == "": // the claim says all of it from now on
		case y.Volume.Released != (PodKey{}):
			again, v := *y, *y.Volume
			v.Released = PodKey{}
			again.Volume = &v
			out = append(out, &again)
		default:
			out = append(out, y)
		}
	}
	out = append(out, x)
	slices.SortFunc(out, func(a, b *Storage) int { return compareStorage(&a, &b) })
	return out
}

// WithoutStorage returns what a node keeps once it has been told to delete something, sorted.
func WithoutStorage(list []*Storage, a DeleteStorage) []*Storage {
	var out []*Storage
	for _, y := range list {
		if y.Ref != a.Storage || y.Application != a.Application {
			out = append(out, y)
			continue
		}
		if v := y.Left(a.Keep); v != nil {
			out = append(out, v)
		}
	}
	for i, y := range out {
		for _, gone := range list {
			c := gone.Claim
			if gone.Ref == a.Storage && c != nil && !c.Provisioned && y.Volume != nil && y.Name == c.Volume {
				again, v := *y, *y.Volume
				v.Released = key(gone.Ref)
				again.Volume = &v
				out[i] = &again
			}
		}
	}
	slices.SortFunc(out, func(a, b *Storage) int { return compareStorage(&a, &b) })
	return out
}

// Left is the PersistentVolume that keeps what a claim holds when the claim is deleted; nil where nothing is kept, or the
// volume was not made for the claim.
func (s *Storage) Left(keep bool) *Storage {
	c := s.Claim
	if c == nil || !c.Provisioned || !keep {
		return nil
	}
	return &Storage{
		Ref: VolumeRef(c.Volume), Created: s.Created,
		Volume: &Volume{Class: c.Class, Capacity: c.Capacity, Modes: c.Modes, Source: c.Source, Released: key(s.Ref), Provisioned: true},
	}
}

// Volumes are the classes and volumes that an application wants, as a node keeps them.
func Volumes(d Desired) []*Storage {
	var out []*Storage
	for i := range d.Objects {
		if s, ok := storageOf(d.Application.Name, &d.Objects[i]); ok {
			out = append(out, s)
		}
	}
	return out
}

// Whole reports whether it holds what its kind says.
func (s *Storage) Whole() bool {
	switch s.Kind {
	case "StorageClass":
		return s.Class != nil && s.Volume == nil && s.Claim == nil
	case "PersistentVolume":
		return s.Volume != nil && s.Class == nil && s.Claim == nil
	case "PersistentVolumeClaim":
		return s.Claim != nil && s.Class == nil && s.Volume == nil
	}
	return false
}
