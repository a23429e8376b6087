package docker

import (
	"context"
	"errors"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/volume"

	"github.com/fairlead-dev/fairlead/runtimes"
	"github.com/fairlead-dev/fairlead/runtimes/runtimetest"
)

func TestVolumes(t *testing.T) {
	e := open(t, runtimetest.Name(t))
	t.Cleanup(func() { e.Close() })
	ctx := t.Context()
	options := map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}
	for range 2 {
		if err := e.EnsureVolume(ctx, "data", "local", options); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := e.RemoveVolume(context.Background(), "data"); err != nil {
			t.Error(err)
		}
	})
	v, err := e.cli.VolumeInspect(ctx, e.volumeName("data"))
	if err != nil || v.Labels[labelInstallation] != e.opt.Installation || v.Options["o"] != "size=1m" {
		t.Fatalf("%+v %v", v, err)
	}
	for name, err := range map[string]error{
		"other options": e.EnsureVolume(ctx, "data", "local", map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=2m"}),
		"no options":    e.EnsureVolume(ctx, "data", "local", nil),
	} {
		if !errors.Is(err, runtimes.ErrConflict) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for range 2 {
		if err := e.RemoveVolume(ctx, "data"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := e.cli.VolumeInspect(ctx, e.volumeName("data")); !errdefs.IsNotFound(err) {
		t.Errorf("it is left: %v", err)
	}

	// What somebody else made with such a name is neither used nor removed.
	name := e.volumeName("strange")
	if _, err := e.cli.VolumeCreate(ctx, volume.CreateOptions{Name: name}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.cli.VolumeRemove(context.Background(), name, false); err != nil {
			t.Error(err)
		}
	})
	if err := e.EnsureVolume(ctx, "strange", "local", nil); !errors.Is(err, runtimes.ErrConflict) {
		t.Errorf("a stranger's: %v", err)
	}
	if err := e.RemoveVolume(ctx, "strange"); err != nil {
		t.Error(err)
	}
	if _, err := e.cli.VolumeInspect(ctx, name); err != nil {
		t.Errorf("a stranger's is gone: %v", err)
	}
	if err := e.EnsureVolume(ctx, "driven", "no-such-driver", nil); err == nil {
		t.Error("a driver that does not exist")
	} else {
		t.Log(err)
	}
}
