package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/fairlead-dev/fairlead/render/object"
)

type storageClass = storagev1.StorageClass

// wish is a claim that is to be bound: one that is written, or one that a StatefulSet needs.
type wish struct {
	ref         object.Ref
	owner       object.Ref
	labels      map[string]string
	annotations map[string]string
	spec        *corev1.PersistentVolumeClaimSpec
}

// pending says why a claim is not bound, and what to do about it.
type pending struct{ why, hint string }

// bind returns what a claim is bound to, or why it is not. The volumes that are taken are those of other claims.
func (b *builder) bind(w wish) (*Storage, pending) {
	s := &b.storage
	have := s.world[w.ref]
	request := w.spec.Resources.Requests[corev1.ResourceStorage]
	out := &Storage{Ref: w.ref, Application: b.desired.Application.Name, Owner: w.owner, Labels: w.labels}
	if have != nil && have.Claim != nil {
		c := *have.Claim
		out.Created = have.Created
		c.Reclaim = reclaimOf(w.annotations, c.Reclaim, c.Provisioned)
		if c.Provisioned {
			if class := s.class(c.Class); class != nil {
				c.Expand = class.Expand
			}
			c.Modes = modes(w.spec.AccessModes)
		}
		switch n := request.Value(); {
		case n > c.Request && c.Provisioned && c.Expand:
			c.Request, c.Capacity = n, max(c.Capacity, n)
		case n > c.Request && n <= c.Capacity:
			c.Request = n
		}
		out.Claim = &c
		return out, pending{}
	}
	out.Created = b.now
	claim := &Claim{Modes: modes(w.spec.AccessModes), Request: request.Value()}
	out.Claim = claim
	take := func(v *Storage) (*Storage, pending) {
		claim.Volume, claim.Class, claim.Capacity, claim.Source = v.Name, v.Volume.Class, v.Volume.Capacity, v.Volume.Source
		claim.Provisioned, claim.Reclaim = v.Volume.Provisioned, reclaimOf(w.annotations, Retain, v.Volume.Provisioned)
		if v.Volume.Provisioned {
			if class := s.class(claim.Class); class != nil {
				claim.Expand = class.Expand
			}
			claim.Capacity = max(claim.Capacity, claim.Request)
		}
		return out, pending{}
	}
	// A name that is written is all that counts, as in Kubernetes.
	if name := w.spec.VolumeName; name != "" {
		v := s.world[VolumeRef(name)]
		if v == nil || v.Volume == nil {
			return nil, pending{fmt.Sprintf("PersistentVolume %s does not exist", name), "add it, or remove spec.volumeName"}
		}
		if why := b.unfit(v, w, true); why != "" {
			return nil, pending{fmt.Sprintf("it cannot have PersistentVolume %s: %s", name, why), "name another volume, or change one of the two"}
		}
		return take(v)
	}
	var none []string
	var best *Storage
	for _, v := range s.volumes {
		kept := v.Volume.For == key(w.ref) || v.Volume.Released == key(w.ref)
		if why := b.unfit(v, w, false); why != "" {
			none = append(none, v.Name+" "+why)
			continue
		}
		switch {
		case best == nil, kept && best.Volume.For != key(w.ref) && best.Volume.Released != key(w.ref):
			best = v
		case !kept && (best.Volume.For == key(w.ref) || best.Volume.Released == key(w.ref)):
		case v.Volume.Capacity < best.Volume.Capacity:
			best = v
		}
	}
	if best != nil {
		return take(best)
	}
	return b.provision(w, out, none)
}

// provision makes a volume for a claim, where its class does so. none are the volumes that do not fit, and why.
func (b *builder) provision(w wish, out *Storage, none []string) (*Storage, pending) {
	s := &b.storage
	name, class := s.classFor(w.spec)
	fits := "no PersistentVolume fits"
	if len(none) > 0 {
		const most = 3
		fits += ": " + strings.Join(none[:min(most, len(none))], "; ")
		if n := len(none) - most; n > 0 {
			fits += fmt.Sprintf("; and %d more", n)
		}
	}
	switch {
	case name == "":
		return nil, pending{fits + `, and storageClassName "" makes none`, "add a PersistentVolume that fits, or remove storageClassName"}
	case class == nil:
		return nil, pending{fmt.Sprintf("StorageClass %s does not exist, and %s", name, fits), fmt.Sprintf("add one with the provisioner %s, or remove storageClassName: then it is a directory on the node", DirectoryProvisioner)}
	case class.Provisioner == NoProvisioner:
		return nil, pending{fmt.Sprintf("%s, and StorageClass %s makes none", fits, name), "add a PersistentVolume that fits"}
	case class.Provisioner != DirectoryProvisioner && class.Provisioner != EngineProvisioner:
		return nil, pending{fmt.Sprintf("nobody here makes volumes of provisioner %s, which StorageClass %s names, and %s", class.Provisioner, name, fits), fmt.Sprintf("use %s or %s", DirectoryProvisioner, EngineProvisioner)}
	case w.spec.Selector != nil:
		return nil, pending{fits + ", and with a selector none is made", "add a PersistentVolume that fits, or remove the selector"}
	}
	c := out.Claim
	c.Volume, c.Class, c.Capacity = provisionedName(w.ref, name), name, c.Request
	c.Provisioned, c.Expand, c.Reclaim = true, class.Expand, reclaimOf(w.annotations, class.Reclaim, true)
	if class.Provisioner == DirectoryProvisioner {
		c.Source.Directory = w.ref.Namespace + "/" + w.ref.Name
		return out, pending{}
	}
	v := &EngineVolume{Name: c.Volume, Driver: "local"}
	for _, k := range sortedKeys(class.Parameters) {
		if k == DriverParameter {
			v.Driver = class.Parameters[k]
			continue
		}
		if v.Options == nil {
			v.Options = map[string]string{}
		}
		v.Options[k] = class.Parameters[k]
	}
	if len(class.MountOptions) > 0 {
		if v.Options == nil {
			v.Options = map[string]string{}
		}
		all := class.MountOptions
		if o := v.Options["o"]; o != "" {
			all = append([]string{o}, all...)
		}
		v.Options["o"] = strings.Join(all, ",")
	}
	c.Source.Volume = v
	return out, pending{}
}

// provisionedName follows from the claim and its class, so that a claim that comes again finds what was kept of it.
func provisionedName(claim object.Ref, class string) string {
	sum := sha256.Sum256([]byte(claim.Namespace + "/" + claim.Name + "/" + class))
	return "pvc-" + hex.EncodeToString(sum[:6])
}

// reclaimOf is what becomes of what a claim holds. What fairlead did not make is never deleted.
func reclaimOf(annotations map[string]string, class Reclaim, provisioned bool) Reclaim {
	if !provisioned {
		return Retain
	}
	switch r := Reclaim(annotations[ReclaimAnnotation]); r {
	case Delete, Retain:
		return r
	}
	return class
}

// unfit says why a claim cannot have a volume; empty when it can. One that names the volume, or is named by it, needs
// no class where it writes none.
func (b *builder) unfit(v *Storage, w wish, named bool) string {
	s := &b.storage
	n := v.Volume
	me := key(w.ref)
	request := w.spec.Resources.Requests[corev1.ResourceStorage]
	if c := s.taken[v.Name]; c != (object.Ref{}) && c != w.ref {
		return "is bound to claim " + key(c).String()
	}
	if n.For != (PodKey{}) && n.For != me {
		return "is kept for claim " + n.For.String()
	}
	if n.Released != (PodKey{}) && n.Released != me && !named {
		return "was released by claim " + n.Released.String() + ", and is only for a claim of that name, or one that names it"
	}
	kept := named || n.For == me || n.Released == me
	class, _ := s.classFor(w.spec)
	if class != n.Class && !(kept && w.spec.StorageClassName == nil) {
		return fmt.Sprintf("is of StorageClass %q, not %q", n.Class, class)
	}
	for _, m := range modes(w.spec.AccessModes) {
		if !slices.Contains(n.Modes, m) && !(n.Provisioned && n.Released == me) {
			return "does not have the access mode " + m
		}
	}
	if request.Value() > n.Capacity && !n.Provisioned {
		return fmt.Sprintf("has %s, and %s are asked for", Quantity(n.Capacity), request.String())
	}
	if w.spec.Selector != nil {
		sel, err := metav1.LabelSelectorAsSelector(w.spec.Selector)
		if err != nil || !sel.Matches(labels.Set(v.Labels)) {
			return "does not have the labels that the selector asks for"
		}
	}
	return ""
}

// class returns the StorageClass of that name, or nil.
func (s *storage) class(name string) *Class {
	if c := s.world[ClassRef(name)]; c != nil && c.Class != nil {
		return c.Class
	}
	if name == DefaultClass {
		return builtinClass()
	}
	return nil
}

// classFor returns the class of a claim: the one that it names, or the default one; no name for a claim that is only for
// volumes that exist.
func (s *storage) classFor(spec *corev1.PersistentVolumeClaimSpec) (string, *Class) {
	if n := spec.StorageClassName; n != nil {
		if *n == "" {
			return "", nil
		}
		return *n, s.class(*n)
	}
	return s.standard, s.class(s.standard)
}

// key is the namespace and name of something.
func key(r object.Ref) PodKey { return PodKey{Namespace: r.Namespace, Name: r.Name} }
