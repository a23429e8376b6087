package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// previousVersion is the commit whose fairlead is upgraded from. A release raises it to the one before.
const previousVersion = "433069e55bd58ea52b0c683d8572f16ac2c114d1"

var keepFlag = flag.Bool("keep-state", false, "write what the previous version leaves in its state directory to testdata/state")

// buildPrevious builds the previous version once, from the history of this clone.
var buildPrevious = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(binDir, "previous")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	archive := exec.Command("git", "-C", "..", "archive", previousVersion)
	tree := exec.Command("tar", "-x", "-C", dir)
	var err error
	if tree.Stdin, err = archive.StdoutPipe(); err != nil {
		return "", err
	}
	if err := errors.Join(tree.Start(), archive.Run(), tree.Wait()); err != nil {
		return "", fmt.Errorf("take %s from the history: %w", previousVersion, err)
	}
	file := filepath.Join(binDir, "fairlead-previous")
	build := exec.Command("go", "build", "-trimpath", "-tags", "grpcnotrace", "-o", file, "./daemon/cmd/fairlead")
	build.Dir, build.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", previousVersion, err, out)
	}
	return file, nil
})

// TestUpgradeRestartsNothing runs the previous version and then this one on what it left: the same containers run on, nothing
// is to be done, and the next change is carried out as ever.
func TestUpgradeRestartsNothing(t *testing.T) {
	program := fairlead(t)
	if out, err := exec.Command("git", "-C", "..", "cat-file", "-e", previousVersion+"^{commit}").CombinedOutput(); err != nil {
		t.Skipf("THE UPGRADE IS NOT TESTED: this clone does not have commit %s (git fetch --unshallow gets it): %v %s", previousVersion, err, out)
	}
	previous, err := buildPrevious()
	if err != nil {
		t.Fatal(err)
	}
	h := torturedOn(t)
	h.program = previous
	h.write(h.manifests(0))
	h.startDaemon()
	h.settle("with the previous version")
	if err := h.endDaemon(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if *keepFlag {
		if err := keepState(h.ownHost.state(), filepath.Join("testdata", "state")); err != nil {
			t.Fatal(err)
		}
	}
	before := h.everything()

	h.program = program
	h.since.Store(h.logSize())
	h.startDaemon()
	h.settle("with this version")
	if d := cmp.Diff(before, h.everything()); d != "" {
		t.Errorf("the upgrade changed what runs (-before +after):\n%s", d)
	}
	if plans := h.plans(); len(plans) > 0 {
		t.Errorf("the upgrade carried out plans of %v steps", plans)
	}
	h.turn("a change after the upgrade", nil)
}

// everything is each container of the installation, and what would change if it were restarted.
func (h *tortured) everything() []string {
	h.t.Helper()
	all, err := h.containers(context.Background(), h.installation)
	if err != nil {
		h.t.Fatal(err)
	}
	var out []string
	for _, c := range all {
		out = append(out, fmt.Sprintf("%s %.12s %s", c.Names[0], c.ID, h.stranger(c.ID)))
	}
	slices.Sort(out)
	return out
}

// keepState copies a state directory but for what is not state: clones, volumes, sockets and locks.
func keepState(from, to string) error {
	for _, part := range []string{"applications", "pods", "services"} {
		if err := os.RemoveAll(filepath.Join(to, part)); err != nil {
			return err
		}
	}
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch top, _, _ := strings.Cut(name, string(filepath.Separator)); {
		case top == "sources" || top == "volumes":
			return fs.SkipDir
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, name), 0o755)
		case !d.Type().IsRegular() || top == "lock":
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, name), b, 0o644)
	})
}
