package decode

import (
	"testing"

	kjson "sigs.k8s.io/json"
)

// FuzzParsePath reads arbitrary field paths: nothing panics, and the path of a path is the same.
func FuzzParsePath(f *testing.F) {
	for _, p := range []string{"spec.containers[0].image", "data[a.b]", "metadata.labels[x", "[", "]", "[]", "a..b", "spec[9999999999999999999]", "a[0][1]", "a[-1]"} {
		f.Add(p, []byte(`{"spec":{"containers":[{"name":"web"}]},"data":{"a.b":"c"},"a":[[1,2]]}`))
	}
	f.Fuzz(func(t *testing.T, path string, value []byte) {
		var v any
		_ = kjson.UnmarshalCaseSensitivePreserveInts(value, &v)
		if a, b := ParsePath(path, v).String(), ParsePath(path, v).String(); a != b {
			t.Errorf("%q is %q and %q", path, a, b)
		}
	})
}

// FuzzObject decodes arbitrary content as every kind that is run: nothing panics, every finding says something, the
// object can be made again from what was kept, and no value of a Secret is in a finding.
func FuzzObject(f *testing.F) {
	for _, s := range []string{
		`{"metadata":{"name":"a"},"data":{"a":"Q0FOQVJZ"},"stringData":{"b":7}}`, `{"spec":{"containers":[{"name":"c","image":"i","resources":{"limits":{"cpu":"1e9999"}}}]}}`,
		`{"spec":{"replicas":"many","template":[]},"metadata":[]}`, `{"spec":{"ports":[{"port":-1,"targetPort":{}}]}}`, `{"items":[{}],"metadata":{"annotations":{"a":1}}}`,
	} {
		f.Add([]byte(s))
	}
	kinds := [][2]string{
		{"v1", "Pod"}, {"v1", "ConfigMap"}, {"v1", "Secret"}, {"v1", "Service"}, {"v1", "Namespace"}, {"v1", "ServiceAccount"}, {"v1", "Endpoints"},
		{"apps/v1", "Deployment"}, {"apps/v1", "ReplicaSet"}, {"batch/v1", "Job"}, {"discovery.k8s.io/v1", "EndpointSlice"}, {"batch/v1", "CronJob"}, {"x/v1", "Y"},
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		for _, k := range kinds {
			var v map[string]any
			if kjson.UnmarshalCaseSensitivePreserveInts(content, &v) != nil || v == nil {
				return
			}
			v["apiVersion"], v["kind"] = k[0], k[1]
			obj, list, ok := Object(v, Options{})
			for _, d := range list {
				if d.Message == "" || d.Severity == "" || d.Code == "" {
					t.Fatalf("%s: a finding without words: %+v", k[1], d)
				}
			}
			if !ok {
				if !list.HasErrors() {
					t.Fatalf("%s is refused without a finding", k[1])
				}
				continue
			}
			again, err := Restore(obj.APIVersion, obj.Ref, obj.Written, obj.Origin)
			if err == nil && (again.Ref != obj.Ref || again.Hash != obj.Hash) {
				t.Fatalf("%s: %+v became %+v", k[1], obj.Ref, again.Ref)
			}
			if err != nil && !list.HasErrors() {
				t.Fatalf("%s without a finding cannot be made again: %v", k[1], err)
			}
		}
	})
}
