package executor

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/distribution/reference"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes"
)

const (
	// pullFirst and pullMax are Kubernetes' back-off of pulls that failed. One that was let be for twice
	// pullMax begins anew.
	pullFirst = 10 * time.Second
	pullMax   = 5 * time.Minute
	// pullStall is how long a pull may go without any progress before it is given up.
	pullStall = 30 * time.Minute
	// progressEvery bounds how often progress is told.
	progressEvery = 2 * time.Second
	// freshFor is how long an image that was just pulled is not pulled again, though the policy is Always:
	// the pods of one rollout share a pull.
	freshFor = 10 * time.Second
	// presentFor is how long what the engine said of an image is believed.
	presentFor = 5 * time.Second
)

// images makes the images of containers present. An image is pulled once at a time for all pods that
// want it with the same credentials.
type images struct {
	n *Node

	mu      sync.Mutex
	present map[string]presence // by reference
	pulls   map[pullKey]*pull   // under way
	waits   map[pullKey]pullWait
	fresh   map[pullKey]time.Time // when it was last pulled
}

// pullKey is what pods share: an image and the credentials to get it with.
type pullKey struct {
	ref  string
	auth [sha256.Size]byte
}

type presence struct {
	image runtimes.Image
	until time.Time
}

// pullWait is the back-off of an image.
type pullWait struct {
	delay  time.Duration
	failed time.Time
	err    error
}

// pull is a pull that is under way. image and err are set when done is closed.
type pull struct {
	done  chan struct{}
	image runtimes.Image
	err   error

	mu        sync.Mutex
	listeners []func(line string)
}

func newImages(n *Node) *images {
	return &images{
		n: n, present: map[string]presence{}, pulls: map[pullKey]*pull{},
		waits: map[pullKey]pullWait{}, fresh: map[pullKey]time.Time{},
	}
}

// ensure returns the image of a container, which is present then. It pulls as the policy says and blocks
// until the image is there, ctx ends, or it cannot be had now: then the error is a *problem.
func (i *images) ensure(ctx context.Context, pod *plan.Pod, c *corev1.Container) (runtimes.Image, error) {
	ref, err := imageRef(c.Image)
	if err != nil {
		return runtimes.Image{}, err
	}
	event := func(warning bool, reason, format string, args ...any) {
		i.n.emit(pod, i.uid(pod), c.Name, warning, reason, fmt.Sprintf(format, args...))
	}
	policy := c.ImagePullPolicy
	if policy == "" {
		policy = defaultPolicy(ref)
	}
	if policy != corev1.PullAlways {
		img, err := i.lookup(ctx, ref)
		if err == nil {
			event(false, "Pulled", "Container image %q already present on machine", c.Image)
		}
		if err == nil || !errors.Is(err, runtimes.ErrNotFound) {
			return img, err
		}
		if policy == corev1.PullNever {
			return runtimes.Image{}, problemf(reasonErrImageNeverPull, "Container image %q is not present with pull policy of Never", c.Image)
		}
	}
	secrets, missing := pullSecrets(pod)
	for _, name := range missing {
		event(true, "FailedToRetrieveImagePullSecret", "Unable to retrieve image pull secret %s, which does not exist; attempting to pull the image may not succeed", name)
	}
	began := time.Now()
	img, pulled, err := i.fetch(ctx, ref, secrets, func(line string) {
		if line == "" {
			event(false, "Pulling", "Pulling image %q", c.Image)
			return
		}
		event(false, "Pulling", "Pulling image %q: %s", c.Image, line)
	})
	switch {
	case err != nil:
		return runtimes.Image{}, err
	case pulled:
		event(false, "Pulled", "Successfully pulled image %q in %v", c.Image, time.Since(began).Round(time.Millisecond))
	}
	return img, nil
}

// pull takes a step of a plan: it makes an image present before pods ask for it.
func (i *images) pull(ctx context.Context, s plan.PullImage) error {
	ref, err := imageRef(s.Image)
	if err != nil {
		return err
	}
	if !s.Always {
		if _, err := i.lookup(ctx, ref); err == nil || !errors.Is(err, runtimes.ErrNotFound) {
			return err
		}
	}
	_, _, err = i.fetch(ctx, ref, s.Secrets, func(string) {})
	return err
}

// forget drops what is known of an image: the engine turned out not to have it.
func (i *images) forget(image string) {
	ref, err := imageRef(image)
	if err != nil {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.present, ref)
	for key := range i.fresh {
		if key.ref == ref {
			delete(i.fresh, key)
		}
	}
}

// lookup describes an image that is present.
func (i *images) lookup(ctx context.Context, ref string) (runtimes.Image, error) {
	now := time.Now()
	i.mu.Lock()
	p, ok := i.present[ref]
	i.mu.Unlock()
	if ok && now.Before(p.until) {
		return p.image, nil
	}
	bounded, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	img, err := i.n.opt.Engine.Image(bounded, ref)
	if err != nil {
		return runtimes.Image{}, fmt.Errorf("inspect image %q: %w", ref, err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.remember(ref, img)
	return img, nil
}

// remember keeps what the engine said. The caller holds the lock.
func (i *images) remember(ref string, img runtimes.Image) {
	now := time.Now()
	for other, p := range i.present {
		if now.After(p.until) {
			delete(i.present, other)
		}
	}
	i.present[ref] = presence{img, now.Add(presentFor)}
}

// fetch pulls an image, or waits for a pull of it that is under way; pulled is false when it was fetched
// only just before. progress is called with an empty line when waiting begins, then with lines for people.
func (i *images) fetch(ctx context.Context, ref string, secrets []plan.Config, progress func(string)) (img runtimes.Image, pulled bool, err error) {
	auths, err := i.credentials(ref, secrets)
	if err != nil {
		return runtimes.Image{}, false, &problem{Reason: reasonErrImagePull, Err: err}
	}
	key, err := newPullKey(ref, auths)
	if err != nil {
		return runtimes.Image{}, false, err
	}
	i.mu.Lock()
	p, ok := i.pulls[key]
	if !ok {
		now := time.Now()
		if at, ok := i.fresh[key]; ok && now.Sub(at) < freshFor {
			i.mu.Unlock()
			if img, err := i.lookup(ctx, ref); !errors.Is(err, runtimes.ErrNotFound) {
				return img, false, err
			}
			i.forget(ref)
			return i.fetch(ctx, ref, secrets, progress)
		}
		if w, ok := i.waits[key]; ok && now.Before(w.failed.Add(w.delay)) {
			i.mu.Unlock()
			return runtimes.Image{}, false, &problem{
				Reason: reasonImagePullBackOff, RetryAt: w.failed.Add(w.delay),
				Err: fmt.Errorf("Back-off pulling image %q: %w", ref, w.err), //nolint:staticcheck // Kubernetes' words
			}
		}
		p = &pull{done: make(chan struct{})}
		if !i.n.spawn(func() { i.run(key, p, auths) }) {
			i.mu.Unlock()
			return runtimes.Image{}, false, errClosed
		}
		i.pulls[key] = p
	}
	i.mu.Unlock()
	progress("")
	p.listen(progress)
	select {
	case <-p.done:
	case <-ctx.Done():
	}
	select {
	case <-p.done: // also where ctx ended at the same time
		return p.image, true, p.err
	default:
		return runtimes.Image{}, false, ctx.Err()
	}
}

// run pulls with the first credentials that the registry takes, and notes what became of it.
func (i *images) run(key pullKey, p *pull, auths []*runtimes.Auth) {
	ctx, cancel := context.WithCancelCause(i.n.ctx)
	defer cancel(nil)
	stalled := time.AfterFunc(pullStall, func() { cancel(fmt.Errorf("no progress within %v", pullStall)) })
	defer stalled.Stop()
	told := time.Now()
	progress := func(line string) {
		stalled.Reset(pullStall)
		if now := time.Now(); line != "" && now.Sub(told) >= progressEvery {
			told = now
			p.tell(line)
		}
	}
	var errs []error
	for _, auth := range auths {
		img, err := i.n.opt.Engine.Pull(ctx, key.ref, auth, progress)
		if err == nil {
			errs, p.image = nil, img
			break
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		errs = append(errs, err)
		if ctx.Err() != nil || errors.Is(err, runtimes.ErrUnavailable) || errors.Is(err, runtimes.ErrDiskFull) {
			break // other credentials would not help
		}
	}
	err := errors.Join(errs...)
	i.mu.Lock()
	defer i.mu.Unlock()
	now := time.Now()
	delete(i.pulls, key)
	switch {
	case err == nil:
		delete(i.waits, key)
		i.fresh[key] = now
		i.remember(key.ref, p.image)
	case errors.Is(err, runtimes.ErrUnavailable), i.n.ctx.Err() != nil:
		p.err = fmt.Errorf("pull image %q: %w", key.ref, err) // no fault of the image's
	default:
		i.waits[key] = i.waits[key].next(now, err)
		p.err = problemf(reasonErrImagePull, "pull image %q: %w", key.ref, err)
	}
	i.tidy(now)
	close(p.done)
}

// next is the back-off after a failure.
func (w pullWait) next(now time.Time, err error) pullWait {
	if w.delay == 0 || now.Sub(w.failed) > 2*pullMax {
		return pullWait{pullFirst, now, err}
	}
	return pullWait{min(2*w.delay, pullMax), now, err}
}

// tidy drops what says nothing any more. The caller holds the lock.
func (i *images) tidy(now time.Time) {
	for key, w := range i.waits {
		if now.Sub(w.failed) > 2*pullMax {
			delete(i.waits, key)
		}
	}
	for key, at := range i.fresh {
		if now.Sub(at) > freshFor {
			delete(i.fresh, key)
		}
	}
}

func (p *pull) listen(f func(string)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listeners = append(p.listeners, f)
}

func (p *pull) tell(line string) {
	p.mu.Lock()
	listeners := slices.Clone(p.listeners)
	p.mu.Unlock()
	for _, f := range listeners {
		f(line)
	}
}

func newPullKey(ref string, auths []*runtimes.Auth) (pullKey, error) {
	data, err := json.Marshal(auths)
	if err != nil {
		return pullKey{}, fmt.Errorf("pull image %q: %w", ref, err)
	}
	return pullKey{ref, sha256.Sum256(data)}, nil
}

// credentials are what a pull is tried with, one after the other; nil is none.
func (i *images) credentials(ref string, secrets []plan.Config) ([]*runtimes.Auth, error) {
	return Credentials(ref, secrets, i.n.opt.DockerConfig)
}

// Credentials returns what an image is asked for with, one after the other, nil for nobody: those of pull secrets first, then
// those of a docker config.json, which may be empty or missing. Credential helpers are not run.
func Credentials(ref string, secrets []plan.Config, dockerConfig string) ([]*runtimes.Auth, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, err
	}
	var found []*runtimes.Auth
	ring, err := secretsRing(secrets)
	if err != nil {
		return nil, err
	}
	found = append(found, ring.lookup(named.Name())...)
	if dockerConfig != "" {
		data, err := os.ReadFile(dockerConfig)
		switch {
		case errors.Is(err, os.ErrNotExist):
		case err != nil:
			return nil, fmt.Errorf("read credentials of registries: %w", err)
		default:
			var own keyring
			if err := own.addConfigJSON(data); err != nil {
				return nil, fmt.Errorf("credentials of registries in %s: %w", dockerConfig, err)
			}
			found = append(found, own.lookup(named.Name())...)
		}
	}
	if len(found) == 0 {
		return []*runtimes.Auth{nil}, nil
	}
	return found, nil
}

// uid is that of a pod of the name, for events: while two exist, the one with the lower UID.
func (i *images) uid(pod *plan.Pod) string {
	i.n.mu.Lock()
	defer i.n.mu.Unlock()
	uid := ""
	for id, p := range i.n.pods {
		if p.key == pod.PodKey && (uid == "" || id < uid) {
			uid = id
		}
	}
	return uid
}

// imageRef returns an image's name as the engine takes it, with the tag latest where it has neither tag
// nor digest.
func imageRef(image string) (string, error) {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return "", problemf(reasonInvalidImageName, "couldn't parse image name %q: %w: %w", image, err, runtimes.ErrInvalid)
	}
	return reference.FamiliarString(reference.TagNameOnly(named)), nil
}

// defaultPolicy is Kubernetes': the tag latest is pulled always, everything else when it is not there.
func defaultPolicy(ref string) corev1.PullPolicy {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return corev1.PullIfNotPresent
	}
	_, digested := named.(reference.Digested)
	if t, ok := named.(reference.Tagged); ok && t.Tag() == "latest" && !digested {
		return corev1.PullAlways
	}
	return corev1.PullIfNotPresent
}
