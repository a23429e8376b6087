// Package environment builds the environment variables of a container and answers the downward
// API, as Kubernetes does.
//
// It is pure: values only, no I/O, no clock.
package environment

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/runtimes"
)

// Build returns the environment of container c of the pod as NAME=value lines without duplicates:
// what envFrom brings and the variables of Services, sorted by name, then env in the order in which it
// is written. env overrides envFrom, which overrides those of Services; later entries override earlier
// ones, and $(NAME) in a value refers to what was defined before it.
//
// A ConfigMap, Secret or key that is missing and not optional is runtimes.ErrMissing.
func Build(pod *plan.Pod, c *corev1.Container, f Facts) ([]string, error) {
	values := serviceVariables(pod, f.Services)
	for i, from := range c.EnvFrom {
		if err := addFrom(values, pod, from); err != nil {
			return nil, fmt.Errorf("container %s: envFrom[%d]: %w", c.Name, i, err)
		}
	}
	order := slices.Sorted(maps.Keys(values))
	seen := make(map[string]bool, len(order)+len(c.Env))
	for _, name := range order {
		seen[name] = true
	}
	for _, v := range c.Env {
		value, ok, err := resolve(pod, c, v, values, f)
		if err != nil {
			return nil, fmt.Errorf("container %s: env %s: %w", c.Name, v.Name, err)
		}
		if !ok {
			continue
		}
		values[v.Name] = value
		if !seen[v.Name] {
			seen[v.Name] = true
			order = append(order, v.Name)
		}
	}
	out := make([]string, 0, len(order))
	for _, name := range order {
		if strings.IndexByte(values[name], 0) >= 0 {
			return nil, fmt.Errorf("container %s: env %s: the value contains a NUL byte, which no environment variable can hold: mount it as a file: %w",
				c.Name, name, runtimes.ErrInvalid)
		}
		out = append(out, name+"="+values[name])
	}
	return out, nil
}

func addFrom(values map[string]string, pod *plan.Pod, from corev1.EnvFromSource) error {
	var (
		ref      object.Ref
		optional bool
	)
	switch {
	case from.ConfigMapRef != nil:
		ref = configRef("ConfigMap", pod.Namespace, from.ConfigMapRef.Name)
		optional = isTrue(from.ConfigMapRef.Optional)
	case from.SecretRef != nil:
		ref = configRef("Secret", pod.Namespace, from.SecretRef.Name)
		optional = isTrue(from.SecretRef.Optional)
	default:
		return nil
	}
	cfg, ok := find(pod, ref)
	if !ok {
		if optional {
			return nil
		}
		return fmt.Errorf("%s does not exist: %w", ref, runtimes.ErrMissing)
	}
	for key, value := range cfg.Data {
		name := from.Prefix + key
		if name == "" || strings.ContainsRune(name, '=') {
			continue // no variable can have that name; Kubernetes leaves it out too
		}
		values[name] = string(value)
	}
	return nil
}

// resolve returns the value of v; ok is false when an optional source is missing.
func resolve(pod *plan.Pod, c *corev1.Container, v corev1.EnvVar, defined map[string]string, f Facts) (value string, ok bool, err error) {
	if v.Value != "" || v.ValueFrom == nil {
		return expand(v.Value, defined), true, nil
	}
	switch from := v.ValueFrom; {
	case from.FieldRef != nil:
		value, err = f.envField(pod, from.FieldRef.FieldPath)
		return value, true, err
	case from.ResourceFieldRef != nil:
		value, err = f.resource(pod, c, from.ResourceFieldRef)
		return value, true, err
	case from.ConfigMapKeyRef != nil:
		r := from.ConfigMapKeyRef
		return key(pod, configRef("ConfigMap", pod.Namespace, r.Name), r.Key, isTrue(r.Optional))
	case from.SecretKeyRef != nil:
		r := from.SecretKeyRef
		return key(pod, configRef("Secret", pod.Namespace, r.Name), r.Key, isTrue(r.Optional))
	case from.FileKeyRef != nil:
		return "", false, fmt.Errorf("valueFrom.fileKeyRef is not supported: %w", runtimes.ErrInvalid)
	}
	return "", true, nil
}

func key(pod *plan.Pod, ref object.Ref, name string, optional bool) (string, bool, error) {
	cfg, ok := find(pod, ref)
	if !ok {
		if optional {
			return "", false, nil
		}
		return "", false, fmt.Errorf("%s does not exist: %w", ref, runtimes.ErrMissing)
	}
	value, ok := cfg.Data[name]
	if !ok {
		if optional {
			return "", false, nil
		}
		return "", false, fmt.Errorf("%s has no key %q: %w", ref, name, runtimes.ErrMissing)
	}
	return string(value), true, nil
}

func configRef(kind, namespace, name string) object.Ref {
	return object.Ref{Kind: kind, Namespace: namespace, Name: name}
}

func find(pod *plan.Pod, ref object.Ref) (plan.Config, bool) {
	for _, c := range pod.Configs {
		if c.Ref == ref {
			return c, true
		}
	}
	return plan.Config{}, false
}

func isTrue(b *bool) bool { return b != nil && *b }
