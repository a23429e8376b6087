package plan

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// configOf returns the content of a ConfigMap or Secret; false for other objects.
func configOf(o object.Object) (Config, bool) {
	c := Config{Ref: o.Ref, Data: map[string][]byte{}}
	switch v := o.Value.(type) {
	case *corev1.ConfigMap:
		if v == nil {
			return c, false
		}
		for k, s := range v.Data {
			c.Data[k] = []byte(s)
		}
		maps.Copy(c.Data, v.BinaryData)
	case *corev1.Secret:
		if v == nil {
			return c, false
		}
		maps.Copy(c.Data, v.Data)
		for k, s := range v.StringData {
			c.Data[k] = []byte(s)
		}
	default:
		return c, false
	}
	c.Digest = configDigest(c.Data)
	return c, true
}

func configDigest(data map[string][]byte) string {
	h := sha256.New()
	var n [8]byte
	for _, k := range slices.Sorted(maps.Keys(data)) {
		for _, part := range [...][]byte{[]byte(k), data[k]} {
			binary.BigEndian.PutUint64(n[:], uint64(len(part)))
			h.Write(n[:])
			h.Write(part)
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// configUse is one reference of a pod to a ConfigMap or Secret.
type configUse struct {
	ref      object.Ref
	optional bool
	// mounted is true for volumes, which follow changes while the pod runs.
	mounted bool
	// pull is true for registry credentials, without which a pod can still run.
	pull bool
	// field is where the reference is, below the pod's spec.
	field string
}

// configUses lists what a pod spec refers to, in the spec's order.
func configUses(namespace string, spec *corev1.PodSpec) []configUse {
	var uses []configUse
	add := func(kind, name string, optional *bool, mounted bool, field string) {
		if name == "" {
			return
		}
		uses = append(uses, configUse{
			ref: object.Ref{Kind: kind, Namespace: namespace, Name: name}, optional: optional != nil && *optional, mounted: mounted, field: field,
		})
	}
	for i := range spec.Volumes {
		v := &spec.Volumes[i]
		field := "volumes[" + v.Name + "]"
		switch {
		case v.ConfigMap != nil:
			add("ConfigMap", v.ConfigMap.Name, v.ConfigMap.Optional, true, field+".configMap.name")
		case v.Secret != nil:
			add("Secret", v.Secret.SecretName, v.Secret.Optional, true, field+".secret.secretName")
		case v.Projected != nil:
			for _, s := range v.Projected.Sources {
				if s.ConfigMap != nil {
					add("ConfigMap", s.ConfigMap.Name, s.ConfigMap.Optional, true, field+".projected.sources.configMap.name")
				}
				if s.Secret != nil {
					add("Secret", s.Secret.Name, s.Secret.Optional, true, field+".projected.sources.secret.name")
				}
			}
		}
	}
	for _, list := range [...]struct {
		name       string
		containers []corev1.Container
	}{{"initContainers", spec.InitContainers}, {"containers", spec.Containers}} {
		for i := range list.containers {
			c := &list.containers[i]
			field := list.name + "[" + c.Name + "]"
			for _, e := range c.EnvFrom {
				if e.ConfigMapRef != nil {
					add("ConfigMap", e.ConfigMapRef.Name, e.ConfigMapRef.Optional, false, field+".envFrom.configMapRef.name")
				}
				if e.SecretRef != nil {
					add("Secret", e.SecretRef.Name, e.SecretRef.Optional, false, field+".envFrom.secretRef.name")
				}
			}
			for _, e := range c.Env {
				if e.ValueFrom == nil {
					continue
				}
				if r := e.ValueFrom.ConfigMapKeyRef; r != nil {
					add("ConfigMap", r.Name, r.Optional, false, field+".env["+e.Name+"].valueFrom.configMapKeyRef.name")
				}
				if r := e.ValueFrom.SecretKeyRef; r != nil {
					add("Secret", r.Name, r.Optional, false, field+".env["+e.Name+"].valueFrom.secretKeyRef.name")
				}
			}
		}
	}
	for _, s := range spec.ImagePullSecrets {
		if s.Name != "" {
			uses = append(uses, configUse{ref: object.Ref{Kind: "Secret", Namespace: namespace, Name: s.Name}, pull: true, field: "imagePullSecrets"})
		}
	}
	return uses
}

// resolveConfigs returns the ConfigMaps and Secrets that the workload's pods refer to and that exist,
// sorted, and a warning for each that is missing.
func resolveConfigs(w *Workload, uses []configUse, configs Configs) ([]Config, diag.List) {
	var out []Config
	var found diag.List
	seen := map[object.Ref]bool{}
	for _, u := range uses {
		if seen[u.ref] {
			continue
		}
		c, exists := configs.Get(u.ref)
		switch {
		case exists:
			seen[u.ref] = true
			out = append(out, c)
		case !u.optional:
			seen[u.ref] = true
			message, hint := "the application has no "+u.ref.String()+": its pods wait until it exists", "add it, or mark the reference optional"
			if u.pull {
				message, hint = "the application has no "+u.ref.String()+": images are pulled without it", "add it"
			}
			found = append(found, diag.Diagnostic{
				Severity: diag.Warning, Code: "missing-config", Ref: w.Ref, Origin: w.Origin, Field: specPath(w) + u.field, Message: message, Hint: hint,
			})
		}
	}
	slices.SortFunc(out, func(a, b Config) int { return object.Compare(a.Ref, b.Ref) })
	return out, found
}

// specPath is where the workload's pod spec is, with a dot at the end.
func specPath(w *Workload) string {
	if w.Pod.Name != "" {
		return "spec."
	}
	return "spec.template.spec."
}

// pull adds the steps that make the pod's images present and returns them.
func (b *builder) pull(p *Pod) []StepID {
	var secrets []Config
	for _, s := range p.Spec.ImagePullSecrets {
		for _, c := range p.Configs {
			if c.Ref.Kind == "Secret" && c.Ref.Name == s.Name {
				secrets = append(secrets, c)
			}
		}
	}
	var ids []StepID
	for _, list := range [...][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			c := &list[i]
			if c.ImagePullPolicy == corev1.PullNever || c.Image == "" {
				continue
			}
			id := b.pullImage(c.Image, c.ImagePullPolicy == corev1.PullAlways, secrets)
			if !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// pullImage adds one step for an image on the node, however many pods want it.
func (b *builder) pullImage(image string, always bool, secrets []Config) StepID {
	key := pullKey{b.opt.Node, image, always, 0}
	id, ok := b.pulls[key]
	if !ok {
		key.gate = b.gate
		id, ok = b.pulls[key]
	}
	if ok {
		s := &b.steps[id-1]
		args := s.Args.(PullImage)
		for _, c := range secrets {
			if !slices.ContainsFunc(args.Secrets, func(have Config) bool { return have.Ref == c.Ref }) {
				args.Secrets = append(slices.Clip(args.Secrets), c)
			}
		}
		s.Args = args
		return id
	}
	cause := fmt.Sprintf("image %s is needed", image)
	if always {
		cause += ", and always pulled"
	}
	id = b.step(Step{Op: OpPullImage, Node: b.opt.Node, Target: object.Ref{Kind: "Image", Name: image}, Cause: cause,
		Args: PullImage{Image: image, Always: always, Secrets: slices.Clone(secrets)}}, nil)
	b.pulls[key] = id
	return id
}
