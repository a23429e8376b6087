package volumes

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/runtimes"
)

// content is what a volume is to hold.
type content struct {
	files map[string]file
	// digests are those of the ConfigMaps and Secrets that the files come from.
	digests map[object.Ref]string
}

type file struct {
	data []byte
	mode fs.FileMode
}

// hasContent reports whether fairlead writes what is in the volume.
func hasContent(vol *corev1.Volume) bool {
	return vol.ConfigMap != nil || vol.Secret != nil || vol.DownwardAPI != nil || vol.Projected != nil
}

// isSecret reports whether the volume's content must stay in memory.
func isSecret(vol *corev1.Volume) bool {
	if vol.Secret != nil {
		return true
	}
	return vol.Projected != nil && slices.ContainsFunc(vol.Projected.Sources, func(s corev1.VolumeProjection) bool { return s.Secret != nil })
}

// build collects a volume's content. It reads nothing but its arguments.
func build(pod *plan.Pod, vol *corev1.Volume, facts Facts) (content, error) {
	c := content{files: map[string]file{}, digests: map[object.Ref]string{}}
	var err error
	switch {
	case vol.ConfigMap != nil:
		s := vol.ConfigMap
		err = c.addConfig(pod, "ConfigMap", s.Name, s.Items, s.DefaultMode, s.Optional)
	case vol.Secret != nil:
		s := vol.Secret
		err = c.addConfig(pod, "Secret", s.SecretName, s.Items, s.DefaultMode, s.Optional)
	case vol.DownwardAPI != nil:
		err = c.addDownward(pod, vol.DownwardAPI.Items, vol.DownwardAPI.DefaultMode, facts)
	case vol.Projected != nil:
		err = c.addProjected(pod, vol.Projected, facts)
	}
	if err != nil {
		return content{}, err
	}
	return c, c.check()
}

func (c *content) addProjected(pod *plan.Pod, p *corev1.ProjectedVolumeSource, facts Facts) error {
	var errs []error
	for i, s := range p.Sources {
		var err error
		switch {
		case s.ConfigMap != nil:
			err = c.addConfig(pod, "ConfigMap", s.ConfigMap.Name, s.ConfigMap.Items, p.DefaultMode, s.ConfigMap.Optional)
		case s.Secret != nil:
			err = c.addConfig(pod, "Secret", s.Secret.Name, s.Secret.Items, p.DefaultMode, s.Secret.Optional)
		case s.DownwardAPI != nil:
			err = c.addDownward(pod, s.DownwardAPI.Items, p.DefaultMode, facts)
		default:
			err = fmt.Errorf("its kind is not supported: use configMap, secret or downwardAPI: %w", runtimes.ErrInvalid)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("sources[%d]: %w", i, err))
		}
	}
	return errors.Join(errs...)
}

func (c *content) addConfig(pod *plan.Pod, kind, name string, items []corev1.KeyToPath, mode *int32, optional *bool) error {
	ref := object.Ref{Kind: kind, Namespace: pod.Namespace, Name: name}
	opt := optional != nil && *optional
	i := slices.IndexFunc(pod.Configs, func(c plan.Config) bool { return c.Ref == ref })
	if i < 0 {
		if opt {
			return nil
		}
		return fmt.Errorf("%s does not exist: %w", ref, runtimes.ErrMissing)
	}
	cfg := pod.Configs[i]
	c.digests[ref] = cfg.Digest
	if len(items) == 0 {
		for key, value := range cfg.Data {
			c.files[key] = file{data: value, mode: fileMode(nil, mode)}
		}
		return nil
	}
	for _, it := range items {
		value, ok := cfg.Data[it.Key]
		if !ok {
			if opt {
				continue
			}
			return fmt.Errorf("%s has no key %q: %w", ref, it.Key, runtimes.ErrMissing)
		}
		c.files[path.Clean(it.Path)] = file{data: value, mode: fileMode(it.Mode, mode)}
		if err := checkItemPath(it.Path); err != nil {
			return err
		}
	}
	return nil
}

func (c *content) addDownward(pod *plan.Pod, items []corev1.DownwardAPIVolumeFile, mode *int32, facts Facts) error {
	for _, it := range items {
		if err := checkItemPath(it.Path); err != nil {
			return err
		}
		var (
			value string
			err   error
		)
		switch {
		case it.FieldRef != nil:
			value, err = facts.VolumeField(pod, it.FieldRef.FieldPath)
		case it.ResourceFieldRef != nil:
			value, err = facts.VolumeResource(pod, it.ResourceFieldRef)
		default:
			err = fmt.Errorf("it has neither fieldRef nor resourceFieldRef: %w", runtimes.ErrInvalid)
		}
		if err != nil {
			return fmt.Errorf("file %s: %w", it.Path, err)
		}
		c.files[path.Clean(it.Path)] = file{data: []byte(value), mode: fileMode(it.Mode, mode)}
	}
	return nil
}

// check refuses names that would leave the volume, hide its own names, or contradict each other.
func (c *content) check() error {
	for name := range c.files {
		if err := checkItemPath(name); err != nil {
			return err
		}
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if _, ok := c.files[dir]; ok {
				return fmt.Errorf("%q is both a file and the directory of %q: %w", dir, name, runtimes.ErrInvalid)
			}
		}
	}
	return nil
}

// checkItemPath holds Kubernetes' rule: relative, without "..", and not beginning with two dots,
// because such names at the top of a volume are the volume's own.
func checkItemPath(p string) error {
	switch {
	case p == "", path.Clean(p) == ".":
		return fmt.Errorf("a file needs a path: %w", runtimes.ErrInvalid)
	case path.IsAbs(p):
		return fmt.Errorf("the path %q must be relative: %w", p, runtimes.ErrInvalid)
	case strings.HasPrefix(p, ".."):
		return fmt.Errorf("the path %q must not begin with \"..\": %w", p, runtimes.ErrInvalid)
	case slices.Contains(strings.Split(p, "/"), ".."):
		return fmt.Errorf("the path %q must not contain \"..\": %w", p, runtimes.ErrInvalid)
	case strings.ContainsRune(p, 0):
		return fmt.Errorf("the path %q contains a NUL byte: %w", p, runtimes.ErrInvalid)
	}
	return nil
}

func fileMode(own, def *int32) fs.FileMode {
	switch {
	case own != nil:
		return permissions(*own)
	case def != nil:
		return permissions(*def)
	}
	return 0o644
}

// permissions turns the number of a manifest into Go's mode; only permission bits count, as Kubernetes validates.
func permissions(mode int32) fs.FileMode { return fs.FileMode(mode) & fs.ModePerm }
