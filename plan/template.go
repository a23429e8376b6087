package plan

import (
	"slices"

	"github.com/fairlead-dev/fairlead/render/object"
)

// writtenTemplate returns the pod template in a manifest, or the whole manifest of a bare Pod.
func writtenTemplate(manifest []byte, at []string) map[string]any {
	v, _ := parse(manifest).(map[string]any)
	for _, key := range at {
		v, _ = v[key].(map[string]any)
	}
	return v
}

// templateHash identifies a pod template as it was written, without what is changed in place: CPU and
// memory of containers and, of a bare Pod, all metadata. Defaults are not part of it, so a fairlead with
// other defaults restarts nothing.
func templateHash(written map[string]any, bare bool) string {
	t := map[string]any{}
	if !bare {
		meta, _ := written["metadata"].(map[string]any)
		for _, key := range [...]string{"labels", "annotations"} {
			if m, ok := meta[key].(map[string]any); ok && len(m) > 0 {
				t[key] = m
			}
		}
	}
	if spec, ok := written["spec"].(map[string]any); ok {
		t["spec"] = specIdentity(spec)
	}
	return object.HashBytes(encode(withoutNulls(t)))
}

// specIdentity returns a copy of a written pod spec without the resources that are changed in place.
func specIdentity(spec map[string]any) map[string]any {
	out := make(map[string]any, len(spec))
	for k, v := range spec {
		if list, ok := v.([]any); ok && (k == "containers" || k == "initContainers") {
			copied := slices.Clone(list)
			for i, c := range copied {
				if m, ok := c.(map[string]any); ok {
					copied[i] = containerIdentity(m)
				}
			}
			v = copied
		}
		out[k] = v
	}
	return out
}

// containerIdentity leaves out cpu and memory, except those whose resizePolicy asks for a restart.
func containerIdentity(c map[string]any) map[string]any {
	resources, ok := c["resources"].(map[string]any)
	if !ok {
		return c
	}
	restarts := map[string]bool{}
	if policies, ok := c["resizePolicy"].([]any); ok {
		for _, p := range policies {
			if m, ok := p.(map[string]any); ok && m["restartPolicy"] == "RestartContainer" {
				if name, ok := m["resourceName"].(string); ok {
					restarts[name] = true
				}
			}
		}
	}
	kept := map[string]any{}
	for k, v := range resources {
		m, ok := v.(map[string]any)
		if !ok || (k != "limits" && k != "requests") {
			kept[k] = v
			continue
		}
		rest := map[string]any{}
		for name, quantity := range m {
			if (name != "cpu" && name != "memory") || restarts[name] {
				rest[name] = quantity
			}
		}
		if len(rest) > 0 {
			kept[k] = rest
		}
	}
	out := make(map[string]any, len(c))
	for k, v := range c {
		out[k] = v
	}
	delete(out, "resources")
	if len(kept) > 0 {
		out["resources"] = kept
	}
	return out
}
