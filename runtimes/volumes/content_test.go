package volumes

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/runtimes"
)

var update = flag.Bool("update", false, "rewrite golden files")

// TestContent compares what is written into volumes with golden files: pod.yaml is a pod's spec,
// configs.yaml its ConfigMaps and Secrets; out/VOLUME lists the files as a program in the pod sees them, and
// out/error is why there are none.
func TestContent(t *testing.T) {
	names, err := filepath.Glob("testdata/content/*.txtar")
	if err != nil || len(names) == 0 {
		t.Fatal("no golden files", err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			got := &txtar.Archive{Comment: archive.Comment}
			v := bench(t)
			pod := &plan.Pod{}
			for _, f := range archive.Files {
				switch f.Name {
				case "pod.yaml":
					pod.PodKey = plan.PodKey{Namespace: "default", Name: "web"}
					pod.Spec = podOf(t, string(f.Data)).Spec
				case "configs.yaml":
					pod.Configs = configs(t, string(f.Data))
				default:
					continue
				}
				got.Files = append(got.Files, f)
			}
			if err := v.Prepare(t.Context(), pod, "uid", facts{}); err != nil {
				got.Files = append(got.Files, txtar.File{Name: "out/error", Data: []byte(err.Error() + "\n")})
			}
			for i := range pod.Spec.Volumes {
				vol := &pod.Spec.Volumes[i]
				dir, _ := v.volumeDir("uid", vol)
				if exists(t, dir) {
					got.Files = append(got.Files, txtar.File{Name: "out/" + vol.Name, Data: []byte(listing(t, dir))})
				}
			}
			if *update {
				if err := os.WriteFile(name, txtar.Format(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(string(txtar.Format(archive)), string(txtar.Format(got))); d != "" {
				t.Errorf("golden file differs (-golden +now):\n%s", d)
			}
		})
	}
}

func configs(t *testing.T, text string) []plan.Config {
	t.Helper()
	var in []struct {
		Kind, Name string
		Data       map[string]string
	}
	if err := yaml.UnmarshalStrict([]byte(text), &in); err != nil {
		t.Fatal(err)
	}
	var out []plan.Config
	for _, c := range in {
		cfg := plan.Config{Ref: object.Ref{Kind: c.Kind, Namespace: "default", Name: c.Name}, Data: map[string][]byte{}, Digest: "digest of " + c.Name}
		for k, v := range c.Data {
			cfg.Data[k] = []byte(v)
		}
		out = append(out, cfg)
	}
	return out
}

// listing shows mode, group, path and content of everything in a volume, links followed.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	var list func(sub string)
	list = func(sub string) {
		entries, err := os.ReadDir(filepath.Join(dir, sub))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			name := filepath.Join(sub, e.Name())
			if strings.HasPrefix(name, "..") {
				continue
			}
			full := filepath.Join(dir, name)
			info, err := os.Stat(full)
			if err != nil {
				t.Fatal(err)
			}
			if info.IsDir() {
				fmt.Fprintf(&b, "%s %s/\n", describe(t, full), name)
				list(name)
				continue
			}
			data, err := os.ReadFile(full)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, "%s %s %q\n", describe(t, full), name, data)
		}
	}
	list(".")
	return b.String()
}

// settings is a pod with a ConfigMap and a Secret.
func settings(t *testing.T, level string) *plan.Pod {
	pod := podOf(t, `
volumes:
- {name: settings, configMap: {name: settings}}
- {name: login, secret: {secretName: login}}
containers: [{name: c, volumeMounts: [{name: settings, mountPath: /s}, {name: login, mountPath: /l}]}]`)
	pod.Configs = configs(t, `[{kind: ConfigMap, name: settings, data: {level: `+level+`}}, {kind: Secret, name: login, data: {password: p}}]`)
	return pod
}

func TestSecretsStayInMemory(t *testing.T) {
	v := bench(t)
	pod := settings(t, "debug")
	v.mustPrepare(t, pod)
	ms := v.mustMount(t, pod)
	for i, want := range []bool{false, true} {
		if got := strings.HasPrefix(ms[i].Source, v.memory); got != want {
			t.Errorf("volume of %s is at %s", ms[i].Target, ms[i].Source)
		}
	}
}

func TestUpdate(t *testing.T) {
	v := bench(t)
	pod := settings(t, "debug")
	v.mustPrepare(t, pod)
	dir := v.mustMount(t, pod)[0].Source
	before, err := os.Readlink(filepath.Join(dir, dataLink))
	if err != nil {
		t.Fatal(err)
	}
	if changed, err := v.Update(t.Context(), pod, "uid", facts{}); err != nil || len(changed) > 0 {
		t.Errorf("an update of nothing changed %q, %v", changed, err)
	}
	pod = settings(t, "info")
	pod.Configs[0].Data["other"] = []byte("x")
	pod.Configs[0].Digest = "another digest"
	changed, err := v.Update(t.Context(), pod, "uid", facts{})
	if err != nil || !slices.Equal(changed, []string{"settings"}) {
		t.Errorf("changed %q, %v", changed, err)
	}
	if got, want := listing(t, dir), "-rw-r--r-- 0 level \"info\"\n-rw-r--r-- 0 other \"x\"\n"; got != want {
		t.Errorf("after the update:\n%s", got)
	}
	if exists(t, filepath.Join(dir, before)) {
		t.Error("the old content is still there")
	}
	mounted, err := v.Mounted("uid")
	want := map[object.Ref]string{
		{Kind: "ConfigMap", Namespace: "default", Name: "settings"}: "another digest",
		{Kind: "Secret", Namespace: "default", Name: "login"}:       "digest of login",
	}
	if d := cmp.Diff(want, mounted); d != "" || err != nil {
		t.Error(d, err)
	}
	// What cannot be made leaves what is there.
	pod.Configs = pod.Configs[1:]
	if _, err := v.Update(t.Context(), pod, "uid", facts{}); !errors.Is(err, runtimes.ErrMissing) {
		t.Errorf("without the ConfigMap: %v", err)
	}
	if !exists(t, filepath.Join(dir, "level")) {
		t.Error("the content went with the ConfigMap")
	}
	// A key that is gone goes from the volume, and leftovers of an interrupted write too.
	pod = settings(t, "info")
	write(t, filepath.Join(dir, "..123", "level"), "broken off")
	if err := os.Symlink("..123", filepath.Join(dir, newLink)); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Update(t.Context(), pod, "uid", facts{}); err != nil {
		t.Fatal(err)
	}
	var raw []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Type() == fs.ModeDir {
			raw = append(raw, "directory")
			continue
		}
		raw = append(raw, e.Name())
	}
	if d := cmp.Diff([]string{"directory", "..data", "level"}, raw); d != "" {
		t.Error(d)
	}
}

// TestUpdateIsAtomic holds that a reader sees all files of one version.
func TestUpdateIsAtomic(t *testing.T) {
	v := bench(t)
	version := func(n int) *plan.Pod {
		pod := podOf(t, `volumes: [{name: v, configMap: {name: settings}}]`)
		pod.Configs = configs(t, fmt.Sprintf(`[{kind: ConfigMap, name: settings, data: {a: "%d", b: "%d"}}]`, n, n))
		return pod
	}
	v.mustPrepare(t, version(0))
	dir := filepath.Join(v.podDir("uid"), "volumes", "v")
	stop, done := make(chan struct{}), make(chan string)
	go func() {
		for {
			select {
			case <-stop:
				done <- ""
				return
			default:
			}
			d, err := os.Open(filepath.Join(dir, dataLink))
			if errors.Is(err, fs.ErrNotExist) {
				continue // replaced between looking up the link and opening where it led, as in Kubernetes
			}
			if err != nil {
				done <- err.Error()
				return
			}
			root := fmt.Sprintf("/proc/self/fd/%d/", d.Fd())
			a, errA := os.ReadFile(root + "a")
			b, errB := os.ReadFile(root + "b")
			d.Close()
			if errA == nil && errB == nil && string(a) != string(b) {
				done <- fmt.Sprintf("read %s and %s", a, b)
				return
			}
		}
	}()
	for n := range 200 {
		if _, err := v.Update(t.Context(), version(n), "uid", facts{}); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	if s := <-done; s != "" {
		t.Error(s)
	}
}
