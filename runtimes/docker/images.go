package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/registry"

	"github.com/fairlead-dev/fairlead/runtimes"
)

// Image describes an image that is present.
func (e *Engine) Image(ctx context.Context, ref string) (runtimes.Image, error) {
	ctx, done, err := e.begin(ctx, e.bounds.read)
	defer done()
	if err != nil {
		return runtimes.Image{}, e.wrap(ctx, "inspect image "+ref, err)
	}
	r, err := e.cli.ImageInspect(ctx, ref)
	if err != nil {
		return runtimes.Image{}, e.wrap(ctx, "inspect image "+ref, err)
	}
	out := runtimes.Image{ID: r.ID, Digests: r.RepoDigests}
	if c := r.Config; c != nil {
		out.User, out.Entrypoint, out.Cmd, out.Env = c.User, c.Entrypoint, c.Cmd, c.Env
		out.WorkingDir, out.StopSignal, out.Volumes = c.WorkingDir, c.StopSignal, slices.Sorted(maps.Keys(c.Volumes))
	}
	return out, nil
}

// Pull fetches an image.
func (e *Engine) Pull(ctx context.Context, ref string, auth *runtimes.Auth, progress func(string)) (runtimes.Image, error) {
	if err := e.mayChange(ctx); err != nil {
		return runtimes.Image{}, err
	}
	doing := "pull image " + ref
	var o image.PullOptions
	if auth != nil {
		encoded, err := registry.EncodeAuthConfig(registry.AuthConfig{
			Username: auth.Username, Password: auth.Password, Auth: auth.Auth, IdentityToken: auth.IdentityToken, ServerAddress: auth.ServerAddress,
		})
		if err != nil {
			return runtimes.Image{}, fmt.Errorf("%s: encode credentials: %w", doing, err)
		}
		o.RegistryAuth = encoded
	}
	// A registry may take its time before there is an answer, so only the engine itself is held to be quick.
	pulling, done, err := e.begin(ctx, 0)
	defer done()
	if err == nil {
		err = e.ping(pulling, false)
	}
	if err != nil {
		return runtimes.Image{}, e.wrap(ctx, doing, err)
	}
	stream, err := e.cli.ImagePull(pulling, ref, o)
	if err != nil {
		return runtimes.Image{}, e.wrap(ctx, doing, registryError(withoutCredentials(err, auth)))
	}
	defer stream.Close()
	if err := follow(stream, progress); err != nil {
		return runtimes.Image{}, e.wrap(ctx, doing, registryError(withoutCredentials(err, auth)))
	}
	return e.Image(ctx, ref)
}

// follow reads the messages of the engine's long work to the end.
func follow(stream io.Reader, progress func(string)) error {
	d := json.NewDecoder(stream)
	for {
		var m struct {
			ID, Status, Error string
			ProgressDetail    struct{ Current int64 }
		}
		switch err := d.Decode(&m); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case m.Error != "":
			return errors.New(m.Error)
		case progress != nil && m.Status != "" && m.ProgressDetail.Current == 0:
			line := m.Status
			if m.ID != "" {
				line = m.ID + ": " + line
			}
			progress(line)
		}
	}
}

// SandboxImage makes the sandbox image present. Its tag is the digest of its content, so another version of
// fairlead brings its own. Once it was seen it is taken to be there; Create makes it again when it is not.
func (e *Engine) SandboxImage(ctx context.Context) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	e.mu.Lock()
	id := e.sandbox
	e.mu.Unlock()
	if id != "" {
		return id, nil
	}
	ctx, done, err := e.begin(ctx, e.bounds.change)
	defer done()
	if err != nil {
		return "", e.wrap(ctx, "make the sandbox image present", err)
	}
	// The first pods of a node come together. Each import would take the name from the one before and leave
	// that image without one, so one caller makes the image and the others wait for it.
	select {
	case e.making <- struct{}{}:
		defer func() { <-e.making }()
	case <-ctx.Done():
		return "", e.wrap(ctx, "make the sandbox image present", ctx.Err())
	}
	e.mu.Lock()
	made := e.sandbox
	e.mu.Unlock()
	if made != id {
		return made, nil
	}
	info, err := e.cli.ServerVersion(ctx)
	if err != nil {
		return "", e.wrap(ctx, "ask for the engine's architecture", err)
	}
	program, err := sandboxProgram(info.Arch)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(program)
	ref := sandboxRepository + ":" + hex.EncodeToString(sum[:6])
	img, err := e.Image(ctx, ref)
	if errors.Is(err, runtimes.ErrNotFound) {
		if err := e.mayChange(ctx); err != nil {
			return "", err
		}
		if err = e.importImage(ctx, ref, program); err == nil {
			img, err = e.Image(ctx, ref)
		}
	}
	if err != nil {
		return "", err
	}
	e.mu.Lock()
	e.sandbox = img.ID
	e.mu.Unlock()
	return img.ID, nil
}

// importImage makes an image that holds one program.
func (e *Engine) importImage(ctx context.Context, ref string, program []byte) error {
	var root bytes.Buffer
	w := tar.NewWriter(&root)
	if err := w.WriteHeader(&tar.Header{Name: "sandbox", Mode: 0o555, Size: int64(len(program))}); err != nil {
		return err
	}
	if _, err := w.Write(program); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	stream, err := e.cli.ImageImport(ctx, image.ImportSource{Source: &root, SourceName: "-"}, ref, image.ImportOptions{
		Changes: []string{`ENTRYPOINT ["/sandbox"]`, "USER 65535:65535", "LABEL " + labelSandboxImage + "=1"}, Message: "fairlead sandbox",
	})
	if err != nil {
		return e.wrap(ctx, "import the sandbox image", err)
	}
	defer stream.Close()
	if err := follow(stream, nil); err != nil {
		return e.wrap(ctx, "import the sandbox image", err)
	}
	return nil
}

// lostSandboxImage makes the sandbox image again if it is what a container could not be made from, because somebody
// removed it, for example with all images that no container uses. It returns its new id, or "".
func (e *Engine) lostSandboxImage(ctx context.Context, id string) string {
	e.mu.Lock()
	lost := id != "" && id == e.sandbox
	if lost {
		e.sandbox = ""
	}
	e.mu.Unlock()
	if !lost {
		return ""
	}
	again, err := e.SandboxImage(ctx)
	if err != nil || again == id {
		return ""
	}
	return again
}
