package volumes

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/runtimes"
)

// TestRemove holds that everything of a pod goes, and nothing that was only mounted there.
func TestRemove(t *testing.T) {
	v := bench(t)
	host := t.TempDir()
	write(t, filepath.Join(host, "sub", "precious"), "x")
	pod := podOf(t, `
volumes:
- {name: host, hostPath: {path: `+host+`}}
- {name: memory, emptyDir: {medium: Memory}}
- {name: disk, emptyDir: {}}
- {name: login, secret: {secretName: login}}
containers:
- name: c
  volumeMounts:
  - {name: host, mountPath: /h, subPath: sub}
  - {name: host, mountPath: /f, subPath: sub/precious}
  - {name: memory, mountPath: /m, subPath: a}
`)
	pod.Configs = configs(t, `[{kind: Secret, name: login, data: {password: p}}]`)
	v.mustPrepare(t, pod)
	v.mustMount(t, pod)
	if _, err := v.WriteFile("uid", "hosts", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := v.TerminationLog("uid", "c", 0); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(v.podDir("uid"), "volumes", "disk")
	if err := os.Symlink(host, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	deep := dir
	for range 300 { // deeper than descriptors are kept open, and in the end than a path can be
		deep = filepath.Join(deep, "d")
		if err := os.Mkdir(deep, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "d"), 0); err != nil {
		t.Fatal(err)
	}
	for range 2 { // what is gone already is no error
		if err := v.Remove(t.Context(), "uid"); err != nil {
			t.Fatal(err)
		}
	}
	for _, root := range []string{v.disk, v.memory} {
		entries, err := os.ReadDir(filepath.Join(root, "pods"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) || len(entries) > 0 {
			t.Errorf("%s still has %v, %v", root, entries, err)
		}
	}
	if !exists(t, filepath.Join(host, "sub", "precious")) {
		t.Error("a file of the host was removed")
	}
	points, err := mountPoints()
	if err != nil {
		t.Fatal(err)
	}
	if i := slices.IndexFunc(points, func(p string) bool { return strings.HasPrefix(p, v.disk+"/") }); i >= 0 {
		t.Errorf("%s is still mounted", points[i])
	}
}

func TestStrays(t *testing.T) {
	v := bench(t)
	pod := settings(t, "debug")
	for _, uid := range []string{"kept", "stray-1", "stray-2"} {
		if err := v.Prepare(t.Context(), pod, uid, facts{}); err != nil {
			t.Fatal(err)
		}
	}
	removed, err := v.Strays(t.Context(), []string{"kept", "not-here"})
	slices.Sort(removed)
	if err != nil || !slices.Equal(removed, []string{"stray-1", "stray-2"}) {
		t.Errorf("removed %q, %v", removed, err)
	}
	if m, err := v.Mounted("kept"); err != nil || len(m) != 2 {
		t.Errorf("the pod that stays has %v, %v", m, err)
	}
	if m, err := v.Mounted("stray-1"); err != nil || len(m) != 0 {
		t.Errorf("the stray still has %v, %v", m, err)
	}
}

func TestWriteFileKeepsInode(t *testing.T) {
	v := bench(t)
	path, err := v.WriteFile("uid", "hosts", []byte("one"))
	if err != nil {
		t.Fatal(err)
	}
	before, err := identify(path)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := v.WriteFile("uid", "hosts", []byte("another")); err != nil || again != path {
		t.Fatal(again, err)
	}
	after, err := identify(path)
	if err != nil || after != before {
		t.Errorf("the file was replaced: %v", err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "another" {
		t.Errorf("it holds %q, %v", data, err)
	}
	if got := describe(t, path); got != "-rw-r--r-- 0" {
		t.Errorf("it is %s", got)
	}
	for _, name := range []string{"", "..", "a/b"} {
		if _, err := v.WriteFile("uid", name, nil); !errors.Is(err, runtimes.ErrInvalid) {
			t.Errorf("name %q: %v", name, err)
		}
	}
}

func TestTerminationLog(t *testing.T) {
	v := bench(t)
	read := func(attempt int, limit int64) string {
		t.Helper()
		s, err := v.ReadTerminationLog("uid", "c", attempt, limit)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if got := read(0, 100); got != "" {
		t.Errorf("before the container: %q", got)
	}
	var paths []string
	for attempt := range 3 {
		p, err := v.TerminationLog("uid", "c", attempt)
		if err != nil {
			t.Fatal(err)
		}
		if got := describe(t, p); got != "-rw-rw-rw- 0" {
			t.Errorf("it is %s", got)
		}
		paths = append(paths, p)
		write(t, p, "message of attempt "+string(rune('0'+attempt)))
	}
	if exists(t, paths[0]) || !exists(t, paths[1]) {
		t.Error("not the last two attempts are kept")
	}
	if got := read(2, 9); got != "attempt 2" {
		t.Errorf("its end is %q", got)
	}
	if _, err := v.TerminationLog("uid", "c", 2); err != nil || read(2, 100) != "message of attempt 2" {
		t.Errorf("asking for it again lost the message: %v", err)
	}
	write(t, paths[2], "\xffü")
	if got := read(2, 1); got != "�" {
		t.Errorf("what is not text is %q", got)
	}
	// A container cannot make the daemon read another file.
	if err := os.Remove(paths[2]); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", paths[2]); err != nil {
		t.Fatal(err)
	}
	if s, err := v.ReadTerminationLog("uid", "c", 2, 100); err == nil {
		t.Errorf("it followed a link: %q", s)
	}
}
