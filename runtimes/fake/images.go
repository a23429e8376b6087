package fake

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/runtimes"
)

// Image is an image that the engine has or can pull.
type Image struct {
	// Image describes it; an ID is made from the reference when it has none, and a command too.
	runtimes.Image
	// Present is true when the image is on the node. A pull that succeeds makes it so.
	Present bool
	// Pull says what pulling does.
	Pull Pull
	// Process is what its containers do; Run, when it is not nil, decides that for each container.
	Process Process
	Run     func(spec runtimes.ContainerSpec) Process
}

// Pull is what pulling an image does.
type Pull struct {
	// Err fails the pull, for example runtimes.ErrDenied or runtimes.ErrNotFound.
	Err error
	// Takes is how long it takes.
	Takes time.Duration
	// Progress are lines for people; ProgressEvery passes before each.
	Progress      []string
	ProgressEvery time.Duration
	// Auth, when it is not nil, are the credentials without which the pull is runtimes.ErrDenied.
	Auth *runtimes.Auth
}

type image struct {
	Image
	ref string
}

func (i *image) run(spec runtimes.ContainerSpec) Process {
	if i.Run != nil {
		return i.Run(spec)
	}
	return i.Process
}

// AddImage makes an image known under a reference, in place of what was known under it.
func (e *Engine) AddImage(ref string, img Image) {
	if img.ID == "" {
		sum := sha256.Sum256([]byte(ref))
		img.ID = "sha256:" + hex.EncodeToString(sum[:])
	}
	if len(img.Entrypoint) == 0 && len(img.Cmd) == 0 {
		img.Entrypoint = []string{"/main"}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	i := &image{Image: img, ref: ref}
	e.images[tagged(ref)], e.images[img.ID] = i, i
}

// tagged adds the tag latest to a reference that has neither tag nor digest.
func tagged(ref string) string {
	if strings.ContainsRune(ref, '@') || strings.ContainsRune(ref[strings.LastIndexByte(ref, '/')+1:], ':') {
		return ref
	}
	return ref + ":latest"
}

// RemoveImage removes an image from the node, as somebody who cleans up does; it can be pulled again.
func (e *Engine) RemoveImage(ref string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if i := e.images[tagged(ref)]; i != nil {
		i.Present = false
	}
}

// Image implements runtimes.Engine.
func (e *Engine) Image(ctx context.Context, ref string) (runtimes.Image, error) {
	var out runtimes.Image
	err := e.call(ctx, Call{Kind: CallImage, Target: ref}, func() error {
		i, ok := e.images[tagged(ref)]
		if !ok || !i.Present {
			return fmt.Errorf("no such image %s: %w", ref, runtimes.ErrNotFound)
		}
		out = i.Image.Image
		return nil
	})
	return out, err
}

// Pull implements runtimes.Engine. What was never added does not exist in any registry.
func (e *Engine) Pull(ctx context.Context, ref string, auth *runtimes.Auth, progress func(string)) (runtimes.Image, error) {
	var (
		p   Pull
		out runtimes.Image
	)
	call := Call{Kind: CallPull, Target: ref}
	if auth != nil {
		copied := *auth
		call.Auth = &copied
	}
	err := e.callSlow(ctx, call, func() error {
		i, ok := e.images[tagged(ref)]
		if !ok {
			return fmt.Errorf("manifest of %s unknown: %w", ref, runtimes.ErrNotFound)
		}
		p = i.Pull
		return nil
	}, func() error {
		for _, line := range p.Progress {
			if err := wait(ctx, p.ProgressEvery); err != nil {
				return err
			}
			if progress != nil {
				progress(line)
			}
		}
		return wait(ctx, p.Takes)
	}, func() error {
		if p.Auth != nil && (auth == nil || auth.Username != p.Auth.Username || auth.Password != p.Auth.Password) {
			return fmt.Errorf("pull access denied for %s: %w", ref, runtimes.ErrDenied)
		}
		if p.Err != nil {
			return fmt.Errorf("pull %s: %w", ref, p.Err)
		}
		i := e.images[tagged(ref)]
		i.Present = true
		out = i.Image.Image
		return nil
	})
	return out, err
}

// SandboxImage implements runtimes.Engine.
func (e *Engine) SandboxImage(ctx context.Context) (string, error) {
	err := e.call(ctx, Call{Kind: CallSandboxImage}, func() error {
		if e.images[SandboxImageID] == nil {
			e.images[SandboxImageID] = &image{ref: "sandbox", Image: Image{
				Image: runtimes.Image{ID: SandboxImageID, Entrypoint: []string{"/pause"}}, Present: true,
			}}
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	return SandboxImageID, nil
}
