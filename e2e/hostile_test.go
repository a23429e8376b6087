package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/fairlead-dev/fairlead/sources/git/gittest"
)

// TestHostileRepositoriesAndTheProgram runs some of the crafted repositories of package daemon through the program
// itself: with its own render workers, over HTTP and from a bare repository, with only traps in its search path.
func TestHostileRepositoriesAndTheProgram(t *testing.T) {
	program := fairlead(t)
	const canary = "CANARY-8f14e45fceea167a"
	dir := t.TempDir()
	outside := filepath.Join(dir, "secret.yaml")
	if err := os.WriteFile(outside, []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: stolen}\ndata: {a: "+canary+"}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	traps := filepath.Join(dir, "traps")
	for _, name := range []string{"sh", "git", "helm", "ssh", "kustomize", "touch"} {
		if err := errors.Join(os.MkdirAll(traps, 0o755), os.WriteFile(filepath.Join(traps, name), []byte("#!/bin/sh\n: > "+dir+"/ran\n"), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	server := gittest.NewServer()
	t.Cleanup(server.Close)
	good := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {a: b}\n"
	for name, tt := range map[string]struct {
		files map[string]string
		tree  func(r *gittest.Repository) gittest.ID
		want  string
	}{
		"T-P2 link to a file of the machine": {files: map[string]string{"a.yaml -> " + outside: ""}, want: "a.yaml: error: is a symbolic link"},
		"T-P3 file of the machine":           {files: map[string]string{"kustomization.yaml": "configMapGenerator: [{name: c, files: [" + outside + ", /proc/self/environ]}]\n"}, want: `"/proc/self/environ" leads out of the source`},
		"T-P4 .git in a tree": {tree: func(r *gittest.Repository) gittest.ID {
			hooks := r.Files(map[string]string{"hooks/post-checkout": "#!/bin/sh\n: > " + dir + "/ran\n"})
			return r.List(gittest.Entry{Mode: gittest.ModeDir, Name: ".git", ID: hooks}, gittest.Entry{Mode: gittest.ModeDir, Name: "..", ID: hooks}, gittest.Entry{Mode: gittest.ModeFile, Name: "cm.yaml", ID: r.File(good)})
		}},
		"T-S3 helm": {files: map[string]string{"kustomization.yaml": "helmCharts: [{name: x}]\n"}, want: "helmCharts would run Helm"},
		"T-D1 a JSON patch that doubles 40 times": {files: map[string]string{
			"cm.yaml": strings.Replace(good, "{name: m}", "{name: m, annotations: {a: b}}", 1),
			"kustomization.yaml": "resources: [cm.yaml]\npatches:\n- target: {kind: ConfigMap}\n  patch: |-\n" + func() string {
				var b strings.Builder
				for i := range 40 {
					fmt.Fprintf(&b, "    - {op: copy, from: /metadata/annotations, path: /metadata/annotations/a%d}\n", i)
				}
				return b.String()
			}(),
		}, want: "error: "},
	} {
		t.Run(name, func(t *testing.T) {
			r := gittest.New()
			if tt.tree != nil {
				r.Commit(tt.tree(r))
			} else {
				r.Commit(r.Files(tt.files))
			}
			bare := filepath.Join(t.TempDir(), "bare")
			if err := r.Write(bare); err != nil {
				t.Fatal(err)
			}
			for _, location := range []string{server.Put("config", r, gittest.Answer{}), bare} {
				cmd := exec.Command(program, "validate", location, "--state-dir", t.TempDir())
				cmd.Env = []string{"PATH=" + traps, "HOME=" + dir, "SECRET=" + canary}
				out, err := cmd.CombinedOutput()
				text := string(out)
				if (err != nil) != (tt.want != "") || !strings.Contains(text, tt.want) || strings.Contains(text, "panic") {
					t.Errorf("%s: %v\n%.3000s\nwant %q", location, err, text, tt.want)
				}
				if strings.Contains(text, canary) {
					t.Errorf("%s: what is outside is shown:\n%s", location, text)
				}
				if use, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok && use.Maxrss<<10 > 512<<20 {
					t.Errorf("%s: it needed %d MiB", location, use.Maxrss>>10)
				}
			}
			if _, err := os.Stat(filepath.Join(dir, "ran")); err == nil {
				t.Error("a program was run")
			}
		})
	}
}
