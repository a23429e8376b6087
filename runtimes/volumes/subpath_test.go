package volumes

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/runtimes"
)

func TestMounts(t *testing.T) {
	v := bench(t)
	host := t.TempDir()
	pod := podOf(t, `
volumes:
- {name: scratch, emptyDir: {}}
- {name: host, hostPath: {path: `+host+`}}
- {name: settings, configMap: {name: settings}}
containers:
- name: c
  volumeMounts:
  - {name: scratch, mountPath: /scratch}
  - {name: scratch, mountPath: /again/, readOnly: true}
  - {name: host, mountPath: host, mountPropagation: Bidirectional}
  - {name: host, mountPath: /slave, mountPropagation: HostToContainer}
  - {name: host, mountPath: /private, mountPropagation: None}
  - {name: settings, mountPath: /settings}
`)
	pod.Configs = []plan.Config{{Ref: object.Ref{Kind: "ConfigMap", Namespace: "default", Name: "settings"}}}
	if _, err := v.Mounts(t.Context(), pod, "uid", &pod.Spec.Containers[0], nil); err == nil {
		t.Error("volumes that were not prepared are mounted")
	}
	v.mustPrepare(t, pod)
	dir := filepath.Join(v.podDir("uid"), "volumes")
	want := []runtimes.Mount{
		{Source: dir + "/scratch", Target: "/scratch"},
		{Source: dir + "/scratch", Target: "/again", ReadOnly: true},
		{Source: host, Target: "/host", Propagation: "rshared"},
		{Source: host, Target: "/slave", Propagation: "rslave"},
		{Source: host, Target: "/private"},
		{Source: dir + "/settings", Target: "/settings", ReadOnly: true},
	}
	if d := cmp.Diff(want, v.mustMount(t, pod)); d != "" {
		t.Error(d)
	}
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "absent", MountPath: "/x"}}
	if _, err := v.Mounts(t.Context(), pod, "uid", &pod.Spec.Containers[0], nil); !errors.Is(err, runtimes.ErrInvalid) {
		t.Errorf("a volume that the pod does not have: %v", err)
	}
}

// subPathPod mounts one subPath of an emptyDir.
func subPathPod(t *testing.T, sub string) *plan.Pod {
	return podOf(t, fmt.Sprintf(`
securityContext: {fsGroup: 4321}
volumes: [{name: v, emptyDir: {}}]
containers: [{name: c, volumeMounts: [{name: v, mountPath: /v, subPath: %q}]}]`, sub))
}

func TestSubPath(t *testing.T) {
	v := bench(t)
	pod := subPathPod(t, "a/b")
	v.mustPrepare(t, pod)
	dir := filepath.Join(v.podDir("uid"), "volumes", "v")
	source := v.mustMount(t, pod)[0].Source
	write(t, filepath.Join(source, "file"), "text")
	if !exists(t, filepath.Join(dir, "a", "b", "file")) {
		t.Error("what was written into the mount is not in the volume")
	}
	for _, made := range []string{"a", "a/b"} {
		if got := describe(t, filepath.Join(dir, made)); got != describe(t, dir) {
			t.Errorf("%s is %s, the volume is %s", made, got, describe(t, dir))
		}
	}
	// A file can be mounted too, in place of the directory that was there.
	pod.Spec.Containers[0].VolumeMounts[0].SubPath = "a/b/file"
	source = v.mustMount(t, pod)[0].Source
	if data, err := os.ReadFile(source); err != nil || string(data) != "text" {
		t.Errorf("the file has %q, %v", data, err)
	}
	// And again in place of the file.
	pod.Spec.Containers[0].VolumeMounts[0].SubPath = "a"
	source = v.mustMount(t, pod)[0].Source
	if !exists(t, filepath.Join(source, "b", "file")) {
		t.Error("the directory is not mounted")
	}
	n := 0
	points, err := mountPoints()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range points {
		if strings.HasPrefix(p, v.podDir("uid")) {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d mounts are left of one subPath", n)
	}
}

func TestSubPathExpr(t *testing.T) {
	v := bench(t)
	pod := podOf(t, `
volumes: [{name: v, emptyDir: {}}]
containers: [{name: c, volumeMounts: [{name: v, mountPath: /v, subPathExpr: $(POD)}]}]`)
	v.mustPrepare(t, pod)
	c := &pod.Spec.Containers[0]
	for _, tt := range []struct {
		to  string
		err error
		ok  bool
	}{{"logs", nil, true}, {"../logs", nil, false}, {"/logs", nil, false}, {"", errors.New("not defined"), false}} {
		_, err := v.Mounts(t.Context(), pod, "uid", c, func(expr string) (string, error) {
			if expr != "$(POD)" {
				t.Errorf("asked to expand %q", expr)
			}
			return tt.to, tt.err
		})
		if (err == nil) != tt.ok {
			t.Errorf("expanded to %q: %v", tt.to, err)
		}
	}
	if !exists(t, filepath.Join(v.podDir("uid"), "volumes", "v", "logs")) {
		t.Error("the directory was not made")
	}
	if _, err := v.Mounts(t.Context(), pod, "uid", c, nil); !errors.Is(err, runtimes.ErrInvalid) {
		t.Errorf("without a way to expand: %v", err)
	}
}

// TestSubPathEscape holds that nothing that a pod does in its volume leads out of it.
func TestSubPathEscape(t *testing.T) {
	for _, tt := range []struct{ name, link, to, sub string }{
		{"link to an absolute path", "out", "/etc", "out"},
		{"link through a directory", "out", "/etc", "out/passwd"},
		{"link upwards", "out", "../../../../../../../../etc", "out"},
		{"link where a directory is to be made", "out", "/etc", "out/new/dir"},
		{"link to the root", "out", "/", "out/etc/passwd"},
		{"link to a process's root", "out", "/proc/self/root", "out/etc"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := bench(t)
			pod := subPathPod(t, tt.sub)
			v.mustPrepare(t, pod)
			dir := filepath.Join(v.podDir("uid"), "volumes", "v")
			if err := os.Symlink(tt.to, filepath.Join(dir, tt.link)); err != nil {
				t.Fatal(err)
			}
			ms, err := v.Mounts(t.Context(), pod, "uid", &pod.Spec.Containers[0], nil)
			if err != nil {
				return
			}
			if exists(t, filepath.Join(ms[0].Source, "passwd")) {
				t.Error("/etc is mounted")
			}
			if data, err := os.ReadFile(ms[0].Source); err == nil && strings.Contains(string(data), "root:") {
				t.Error("/etc/passwd is mounted")
			}
		})
	}
	t.Run("written", func(t *testing.T) {
		v := bench(t)
		for _, sub := range []string{"..", "../x", "a/../../x", "/etc", "a/.."} {
			pod := subPathPod(t, sub)
			v.mustPrepare(t, pod)
			if _, err := v.Mounts(t.Context(), pod, "uid", &pod.Spec.Containers[0], nil); !errors.Is(err, runtimes.ErrInvalid) {
				t.Errorf("subPath %q: %v", sub, err)
			}
		}
	})
	t.Run("a file in the way", func(t *testing.T) {
		v := bench(t)
		pod := subPathPod(t, "file/dir")
		v.mustPrepare(t, pod)
		write(t, filepath.Join(v.podDir("uid"), "volumes", "v", "file"), "x")
		if _, err := v.Mounts(t.Context(), pod, "uid", &pod.Spec.Containers[0], nil); !errors.Is(err, runtimes.ErrInvalid) {
			t.Errorf("error %v", err)
		}
	})
}

// TestSubPathRace swaps a directory for a link to / as fast as it can while subPaths in it are mounted.
func TestSubPathRace(t *testing.T) {
	v := bench(t)
	pod := subPathPod(t, "dir/sub")
	v.mustPrepare(t, pod)
	dir := filepath.Join(v.podDir("uid"), "volumes", "v")
	for _, d := range []string{"dir/sub", "real"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	outside := t.TempDir()
	write(t, filepath.Join(outside, "sub", "secret"), "x")
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				unix.Renameat2(unix.AT_FDCWD, filepath.Join(dir, "dir"), unix.AT_FDCWD, filepath.Join(dir, "link"), unix.RENAME_EXCHANGE)
			}
		}
	}()
	for range 300 {
		ms, err := v.Mounts(t.Context(), pod, "uid", &pod.Spec.Containers[0], nil)
		if err == nil && exists(t, filepath.Join(ms[0].Source, "secret")) {
			t.Error("a directory outside of the volume is mounted")
			break
		}
	}
	close(stop)
	<-done
}

func TestSubPathOfContent(t *testing.T) {
	v := bench(t)
	pod := podOf(t, `
volumes:
- {name: settings, configMap: {name: settings}}
- {name: maybe, configMap: {name: absent, optional: true}}
containers:
- name: c
  volumeMounts:
  - {name: settings, mountPath: /level, subPath: level}
  - {name: maybe, mountPath: /maybe, subPath: level}
- name: absent
  volumeMounts:
  - {name: settings, mountPath: /x, subPath: absent}
`)
	pod.Configs = []plan.Config{{
		Ref: object.Ref{Kind: "ConfigMap", Namespace: "default", Name: "settings"}, Data: map[string][]byte{"level": []byte("debug")},
	}}
	v.mustPrepare(t, pod)
	ms := v.mustMount(t, pod)
	if data, err := os.ReadFile(ms[0].Source); err != nil || string(data) != "debug" || !ms[0].ReadOnly {
		t.Errorf("%+v holds %q, %v", ms[0], data, err)
	}
	if info, err := os.Stat(ms[1].Source); err != nil || !info.IsDir() {
		t.Errorf("in place of what is optional: %v, %v", info, err)
	}
	if _, err := v.Mounts(t.Context(), pod, "uid", &pod.Spec.Containers[1], nil); !errors.Is(err, runtimes.ErrMissing) {
		t.Errorf("a key that does not exist: %v", err)
	}
	if names, err := userLinks(filepath.Join(v.podDir("uid"), "volumes", "settings")); err != nil || len(names) != 1 {
		t.Errorf("a subPath changed the content: %q, %v", names, err)
	}
}
