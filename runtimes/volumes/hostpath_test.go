package volumes

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/runtimes"
)

func TestHostPathTypes(t *testing.T) {
	v := bench(t)
	// The paths of sockets have to be short.
	dir, err := os.MkdirTemp("", "fl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := os.Mkdir(at("dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, at("file"), "x")
	l, err := net.Listen("unix", at("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, mode := range map[string]uint32{"char": unix.S_IFCHR, "block": unix.S_IFBLK} {
		if err := unix.Mknod(at(name), mode|0o600, int(unix.Mkdev(1, 3))); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"link": "dir", "dangling": "nowhere"} {
		if err := os.Symlink(to, at(link)); err != nil {
			t.Fatal(err)
		}
	}
	all := []string{"dir", "file", "socket", "char", "block", "link", "dangling", "new"}
	for kind, good := range map[corev1.HostPathType]string{
		corev1.HostPathUnset:             "dir file socket char block link new",
		corev1.HostPathDirectory:         "dir link",
		corev1.HostPathDirectoryOrCreate: "dir link new",
		corev1.HostPathFile:              "file",
		corev1.HostPathFileOrCreate:      "file new",
		corev1.HostPathSocket:            "socket",
		corev1.HostPathCharDev:           "char",
		corev1.HostPathBlockDev:          "block",
		"Another":                        "",
	} {
		for _, name := range all {
			real, err := v.hostPath(&corev1.HostPathVolumeSource{Path: at(name), Type: &kind})
			want := strings.Contains(" "+good+" ", " "+name+" ")
			switch {
			case want && err != nil:
				t.Errorf("type %q refuses %s: %v", kind, name, err)
			case !want && !errors.Is(err, runtimes.ErrInvalid):
				t.Errorf("type %q takes %s as %s, %v", kind, name, real, err)
			case want && name == "link" && real != at("dir"):
				t.Errorf("the link leads to %s", real)
			}
			if err := os.RemoveAll(at("new")); err != nil {
				t.Fatal(err)
			}
		}
	}
	nested := at("new/a/b")
	if real, err := v.hostPath(&corev1.HostPathVolumeSource{Path: nested}); err != nil || real != nested {
		t.Errorf("nested: %s, %v", real, err)
	}
	file := corev1.HostPathFileOrCreate
	if _, err := v.hostPath(&corev1.HostPathVolumeSource{Path: at("other/file"), Type: &file}); !errors.Is(err, runtimes.ErrInvalid) {
		t.Errorf("a file in a directory that does not exist: %v", err)
	}
}

func TestHostPathProtected(t *testing.T) {
	keys := t.TempDir()
	v := bench(t, keys, filepath.Join(keys, "absent"))
	outside := t.TempDir()
	if err := os.Symlink(v.disk, filepath.Join(outside, "link")); err != nil {
		t.Fatal(err)
	}
	mounted := filepath.Join(outside, "mounted")
	if err := os.Mkdir(mounted, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(keys, mounted, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmount(mounted) })
	write(t, filepath.Join(keys, "key"), "secret")
	for _, path := range []string{
		v.disk, v.memory, keys, filepath.Join(v.disk, "pods"), filepath.Join(v.disk, "new", "dir"),
		filepath.Join(outside, "link"), filepath.Join(outside, "link", "pods"), mounted, filepath.Join(mounted, "key"),
		v.disk + "/../" + filepath.Base(v.disk), outside + "/../" + filepath.Base(outside) + "/link",
	} {
		if real, err := v.hostPath(&corev1.HostPathVolumeSource{Path: path}); !errors.Is(err, runtimes.ErrInvalid) {
			t.Errorf("%s is shown as %s, %v", path, real, err)
		}
	}
	if _, err := v.hostPath(&corev1.HostPathVolumeSource{Path: outside}); err != nil {
		t.Error(err)
	}
	pod := podOf(t, `
volumes: [{name: v, hostPath: {path: `+outside+`}}]
containers: [{name: c, volumeMounts: [{name: v, mountPath: /v, subPath: mounted/key}]}]`)
	if _, err := v.Mounts(t.Context(), pod, "uid", &pod.Spec.Containers[0], nil); !errors.Is(err, runtimes.ErrInvalid) {
		t.Errorf("a subPath shows it: %v", err)
	}
}
