package executor

import (
	"encoding/json"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
)

// FuzzKeyring reads arbitrary pull secrets and looks arbitrary images up in them: nothing panics, and no error shows
// what is in a Secret.
func FuzzKeyring(f *testing.F) {
	f.Add([]byte(`{"auths":{"https://index.docker.io/v1/":{"auth":"YWRhOnN1cGVyc2VjcmV0"},"*.example.com:5000/team":{"username":"a","password":"supersecret"}}}`), "web:1")
	f.Add([]byte(`{"auths":{"[::1":{"auth":"!"},"a":{"auth":"supersecret"}}}`), "a.example.com:5000/team/x@sha256:0")
	f.Add([]byte(`{"auths":[1]}`), "UPPER")
	f.Fuzz(func(t *testing.T, secret []byte, image string) {
		for _, key := range []string{corev1.DockerConfigJsonKey, corev1.DockerConfigKey} {
			k, err := secretsRing([]plan.Config{{Data: map[string][]byte{key: secret}}})
			if err != nil {
				if strings.Contains(err.Error(), "supersecret") {
					t.Errorf("an error shows a secret: %v", err)
				}
				continue
			}
			for _, a := range k.lookup(image) {
				if a == nil {
					t.Error("no credentials")
				}
			}
		}
		ref, err := imageRef(image)
		if err != nil {
			return
		}
		if again, err := imageRef(ref); err != nil || again != ref {
			t.Errorf("%q is %q, and that %q (%v)", image, ref, again, err)
		}
		defaultPolicy(image)
	})
}

// FuzzRecord reads arbitrary records of pods, which are in labels that anybody can write: nothing panics, and what
// was read is the same after it was written.
func FuzzRecord(f *testing.F) {
	for _, image := range []string{"web:1", strings.Repeat("x", packFrom)} {
		s, err := encodeRecord(&plan.Pod{PodKey: plan.PodKey{Namespace: "n", Name: "p"}, Spec: &corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: image}}}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(s)
	}
	f.Add(plainRecord + `{"namespace":"n","name":"p","spec":null}`)
	f.Add(packedRecord + "AAAA")
	f.Fuzz(func(t *testing.T, s string) {
		pod, err := decodeRecord(s)
		if err != nil {
			return
		}
		out, err := encodeRecord(pod)
		if err != nil {
			t.Skip("a quantity that cannot be written") // it was in no manifest
		}
		again, err := decodeRecord(out)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		a, _ := json.Marshal(pod)
		b, _ := json.Marshal(again)
		if string(a) != string(b) {
			t.Errorf("%s became %s", a, b)
		}
	})
}
