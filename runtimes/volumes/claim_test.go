package volumes

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes"
)

const withClaim = `
containers:
- name: web
  volumeMounts:
  - {name: data, mountPath: /data}
  - {name: data, mountPath: /part, subPath: part, readOnly: true}
  - {name: viewed, mountPath: /viewed}
volumes:
- {name: data, persistentVolumeClaim: {claimName: data}}
- {name: viewed, persistentVolumeClaim: {claimName: data, readOnly: true}}
`

func TestClaimIsMounted(t *testing.T) {
	v := bench(t)
	pod := podOf(t, withClaim)
	if err := v.Prepare(t.Context(), pod, "u1", facts{}); !errors.Is(err, runtimes.ErrMissing) {
		t.Errorf("a claim that is not bound: %v", err)
	}
	pod.Claims = map[string]plan.Source{"data": {Directory: "default/data"}}
	if err := v.Prepare(t.Context(), pod, "u1", facts{}); err == nil || !strings.Contains(err.Error(), "restore it from a backup") {
		t.Errorf("a directory that is gone: %v", err)
	}
	if err := v.MakeClaim(t.Context(), "default/data"); err != nil {
		t.Fatal(err)
	}
	if err := v.Prepare(t.Context(), pod, "u1", facts{}); err != nil {
		t.Fatal(err)
	}
	got, err := v.Mounts(t.Context(), pod, "u1", &pod.Spec.Containers[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(v.disk, "claims", "default", "data")
	want := []runtimes.Mount{
		{Source: dir, Target: "/data"},
		{Source: filepath.Join(v.disk, "pods", "u1", "subpaths", "web", "1"), Target: "/part", ReadOnly: true},
		{Source: dir, Target: "/viewed", ReadOnly: true},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("mounts (-want +got):\n%s", d)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o777 {
		t.Errorf("the directory: %v %v", info.Mode(), err)
	}

	// The pod goes, and what the claim holds stays.
	write(t, filepath.Join(dir, "kept"), "data")
	if err := v.Remove(t.Context(), "u1"); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Strays(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := v.Destroy(); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "kept")); err != nil || string(data) != "data" {
		t.Errorf("after everything is removed: %q %v", data, err)
	}
	for range 2 {
		if err := v.RemoveClaim(t.Context(), "default/data"); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Destroy(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(v.disk); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory for volumes is left: %v", err)
	}
}

func TestClaimStaysInItsDirectory(t *testing.T) {
	v := bench(t)
	for _, dir := range []string{"", "data", "../data", "a/../../data", "a/b/c", "/etc/passwd", ".removing/x"} {
		if err := v.MakeClaim(t.Context(), dir); !errors.Is(err, runtimes.ErrInvalid) {
			t.Errorf("%q: %v", dir, err)
		}
		if err := v.RemoveClaim(t.Context(), dir); !errors.Is(err, runtimes.ErrInvalid) {
			t.Errorf("%q: %v", dir, err)
		}
	}
}

func TestClaimOfTheEngine(t *testing.T) {
	v := bench(t)
	pod := podOf(t, strings.Replace(withClaim, "subPath: part, ", "", 1))
	pod.Claims = map[string]plan.Source{"data": {Volume: &plan.EngineVolume{Name: "nas", Driver: "local"}, ReadOnly: true}}
	if err := v.Prepare(t.Context(), pod, "u1", facts{}); err != nil {
		t.Fatal(err)
	}
	got, err := v.Mounts(t.Context(), pod, "u1", &pod.Spec.Containers[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []runtimes.Mount{
		{Volume: "nas", Target: "/data", ReadOnly: true}, {Volume: "nas", Target: "/part", ReadOnly: true}, {Volume: "nas", Target: "/viewed", ReadOnly: true},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("mounts (-want +got):\n%s", d)
	}
	pod.Spec.Containers[0].VolumeMounts[1].SubPath = "part"
	if _, err := v.Mounts(t.Context(), pod, "u1", &pod.Spec.Containers[0], nil); !errors.Is(err, runtimes.ErrInvalid) {
		t.Errorf("subPath: %v", err)
	}
}

func TestClaimIsGivenToTheGroup(t *testing.T) {
	v := bench(t)
	if err := v.MakeClaim(t.Context(), "default/data"); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(v.disk, "claims", "default", "data")
	outside := filepath.Join(t.TempDir(), "outside")
	write(t, outside, "not in the volume")
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "sub", "file"), "x")
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	groupAndMode := func(name string) (int, os.FileMode) {
		info, err := os.Lstat(name)
		if err != nil {
			t.Fatal(err)
		}
		return int(info.Sys().(*syscall.Stat_t).Gid), info.Mode()
	}
	pod := podOf(t, "securityContext: {fsGroup: 2000}\n"+withClaim)
	pod.Claims = map[string]plan.Source{"data": {Directory: "default/data"}}
	if err := v.Prepare(t.Context(), pod, "u1", facts{}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{
		"": 0o777 | os.ModeDir | os.ModeSetgid, "sub": 0o770 | os.ModeDir | os.ModeSetgid, "sub/file": 0o664,
	} {
		if gid, mode := groupAndMode(filepath.Join(dir, name)); gid != 2000 || mode != want {
			t.Errorf("%q has group %d and mode %s, not 2000 and %s", name, gid, mode, want)
		}
	}
	if gid, _ := groupAndMode(outside); gid == 2000 {
		t.Error("what a link in the volume leads to was given to the group")
	}

	// With OnRootMismatch a directory that has the group is not walked again.
	pod = podOf(t, "securityContext: {fsGroup: 2000, fsGroupChangePolicy: OnRootMismatch}\n"+withClaim)
	pod.Claims = map[string]plan.Source{"data": {Directory: "default/data"}}
	write(t, filepath.Join(dir, "later"), "x")
	if err := os.Chown(filepath.Join(dir, "later"), 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := v.Prepare(t.Context(), pod, "u2", facts{}); err != nil {
		t.Fatal(err)
	}
	if gid, _ := groupAndMode(filepath.Join(dir, "later")); gid != 0 {
		t.Error("the directory was walked again")
	}
}
