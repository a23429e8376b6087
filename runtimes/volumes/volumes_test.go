package volumes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes"
)

// bench returns Volumes in directories of the test's own. Mounts need root.
func bench(t *testing.T, protected ...string) *Volumes {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("volumes are mounted and given to groups, which needs root")
	}
	root := t.TempDir()
	t.Cleanup(func() {
		if err := unmountBelow(root); err != nil {
			t.Error(err)
		}
	})
	v, err := New(Options{Dir: filepath.Join(root, "disk"), TmpfsDir: filepath.Join(root, "memory"), Protected: protected})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// podOf reads the spec of the pod default/web.
func podOf(t *testing.T, spec string) *plan.Pod {
	t.Helper()
	p := &plan.Pod{PodKey: plan.PodKey{Namespace: "default", Name: "web"}, Spec: &corev1.PodSpec{}}
	if err := yaml.UnmarshalStrict([]byte(spec), p.Spec); err != nil {
		t.Fatal(err)
	}
	return p
}

// facts answers the downward API with what was asked.
type facts struct{}

func (facts) VolumeField(_ *plan.Pod, path string) (string, error) {
	if path == "unknown" {
		return "", fmt.Errorf("%s: %w", path, runtimes.ErrInvalid)
	}
	return "field " + path, nil
}

func (facts) VolumeResource(_ *plan.Pod, ref *corev1.ResourceFieldSelector) (string, error) {
	return "resource " + ref.ContainerName + " " + ref.Resource, nil
}

func (v *Volumes) mustPrepare(t *testing.T, pod *plan.Pod) {
	t.Helper()
	if err := v.Prepare(t.Context(), pod, "uid", facts{}); err != nil {
		t.Fatal(err)
	}
}

// mustMount returns what the pod's first container mounts.
func (v *Volumes) mustMount(t *testing.T, pod *plan.Pod) []runtimes.Mount {
	t.Helper()
	ms, err := v.Mounts(t.Context(), pod, "uid", &pod.Spec.Containers[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	return ms
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func exists(t *testing.T, name string) bool {
	t.Helper()
	_, err := os.Lstat(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

// describe is mode and group of a file.
func describe(t *testing.T, name string) string {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%v %d", info.Mode(), groupOf(info))
}

func TestNewMakesPrivateDirectories(t *testing.T) {
	v := bench(t)
	for _, dir := range []string{v.disk, v.memory} {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", dir, info.Mode(), err)
		}
	}
	if ok, err := inMemory(v.memory); err != nil || !ok {
		t.Errorf("secrets are not kept in memory: %v", err)
	}
	again, err := New(Options{Dir: v.disk, TmpfsDir: v.memory})
	if err != nil {
		t.Fatal(err)
	}
	points, err := mountPoints()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, p := range points {
		if p == again.memory {
			n++
		}
	}
	if n > 1 {
		t.Errorf("%d file systems are mounted on %s", n, again.memory)
	}
	if _, err := New(Options{Dir: "relative", TmpfsDir: v.memory}); err == nil {
		t.Error("a relative directory is taken")
	}
}

func TestEmptyDir(t *testing.T) {
	for _, tt := range []struct {
		name, spec, want string
		memory           bool
		size             int64
	}{
		{"plain", `volumes: [{name: v, emptyDir: {}}]`, "drwxrwxrwx 0", false, 0},
		{"group", `{securityContext: {fsGroup: 4321}, volumes: [{name: v, emptyDir: {}}]}`, "dgrwxrwxrwx 4321", false, 0},
		{"memory", `volumes: [{name: v, emptyDir: {medium: Memory}}]`, "drwxrwxrwx 0", true, 0},
		{"memory, group", `{securityContext: {fsGroup: 4321}, volumes: [{name: v, emptyDir: {medium: Memory}}]}`, "dgrwxrwxrwx 4321", true, 0},
		{"memory, size", `volumes: [{name: v, emptyDir: {medium: Memory, sizeLimit: 1Mi}}]`, "drwxrwxrwx 0", true, 1 << 20},
		{"memory, size of the containers", `
containers:
- {name: a, resources: {limits: {memory: 1Mi}}}
- {name: b, resources: {limits: {memory: 1Mi}}}
volumes: [{name: v, emptyDir: {medium: Memory, sizeLimit: 1Gi}}]`, "drwxrwxrwx 0", true, 2 << 20},
		{"memory, one container without limit", `
containers:
- {name: a, resources: {limits: {memory: 1Mi}}}
- {name: b}
volumes: [{name: v, emptyDir: {medium: Memory, sizeLimit: 3Mi}}]`, "drwxrwxrwx 0", true, 3 << 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := bench(t)
			pod := podOf(t, tt.spec)
			v.mustPrepare(t, pod)
			dir := filepath.Join(v.podDir("uid"), "volumes", "v")
			if got := strings.ReplaceAll(describe(t, dir), "t", ""); got != tt.want {
				t.Errorf("it is %s, want %s", got, tt.want)
			}
			if ok, err := isMountPoint(dir); err != nil || ok != tt.memory {
				t.Errorf("mounted: %v, %v", ok, err)
			}
			write(t, filepath.Join(dir, "kept"), "x")
			v.mustPrepare(t, pod) // again, as after a restart of the daemon
			if !exists(t, filepath.Join(dir, "kept")) {
				t.Error("preparing again lost what was in it")
			}
			if tt.size > 0 {
				err := os.WriteFile(filepath.Join(dir, "large"), make([]byte, 2*tt.size), 0o644)
				if !errors.Is(classify(err), runtimes.ErrDiskFull) {
					t.Errorf("twice its size went in: %v", err)
				}
				if err := os.WriteFile(filepath.Join(dir, "large"), make([]byte, tt.size/2), 0o644); err != nil {
					t.Errorf("half its size did not go in: %v", err)
				}
			}
		})
	}
}

func TestEmptyDirUsage(t *testing.T) {
	v := bench(t)
	pod := podOf(t, `volumes: [{name: disk, emptyDir: {}}, {name: memory, emptyDir: {medium: Memory}}, {name: host, hostPath: {path: /}}]`)
	if used, err := v.Usage(t.Context(), pod, "uid"); err != nil || len(used) != 0 {
		t.Errorf("before it is prepared: %v, %v", used, err)
	}
	v.mustPrepare(t, pod)
	outside := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(outside, make([]byte, 4<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"disk", "memory"} {
		dir := filepath.Join(v.podDir("uid"), "volumes", name)
		write(t, filepath.Join(dir, "a", "b", "file"), strings.Repeat("x", 1<<20))
		if err := os.Link(filepath.Join(dir, "a", "b", "file"), filepath.Join(dir, "same")); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Dir(outside), filepath.Join(dir, "out")); err != nil {
			t.Fatal(err)
		}
	}
	used, err := v.Usage(t.Context(), pod, "uid")
	if err != nil || len(used) != 2 {
		t.Fatal(used, err)
	}
	for name, n := range used {
		if n < 1<<20 || n > 1<<20+64<<10 {
			t.Errorf("%s: %d bytes, want a little more than %d", name, n, 1<<20)
		}
	}
}

func TestPrepareFindsAll(t *testing.T) {
	v := bench(t)
	pod := podOf(t, `
volumes:
- {name: a, configMap: {name: absent}}
- {name: b, hostPath: {path: relative}}
- {name: c, nfs: {server: s, path: /}}
- {name: d, emptyDir: {medium: HugePages}}
- {name: e, emptyDir: {}}
`)
	err := v.Prepare(t.Context(), pod, "uid", facts{})
	if !errors.Is(err, runtimes.ErrMissing) || !errors.Is(err, runtimes.ErrInvalid) {
		t.Errorf("classes of %v", err)
	}
	for _, name := range []string{"a", "b", "c", "d"} {
		if !strings.Contains(err.Error(), "pod default/web: volume "+name+":") {
			t.Errorf("nothing on volume %s in %v", name, err)
		}
	}
	if !exists(t, filepath.Join(v.podDir("uid"), "volumes", "e")) {
		t.Error("what can be made was not made")
	}
	for _, uid := range []string{"", ".", "..", "a/b", "../a"} {
		if err := v.Prepare(t.Context(), pod, uid, facts{}); !errors.Is(err, runtimes.ErrInvalid) {
			t.Errorf("UID %q: %v", uid, err)
		}
		if err := v.Remove(t.Context(), uid); !errors.Is(err, runtimes.ErrInvalid) {
			t.Errorf("remove UID %q: %v", uid, err)
		}
	}
}
