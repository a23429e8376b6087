package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/runtimes"
)

// storage is what the node keeps of classes, volumes and claims: one file each. The data of a claim is never in it, and
// never goes before its file: a claim whose deletion was interrupted is deleted again.
type storage struct {
	files serviceFiles

	write sync.Mutex // held while anything is written
	mu    sync.Mutex
	list  []*plan.Storage // sorted; never modified, only replaced
	bad   []error         // what could not be read: nothing is written in its place
}

// ClaimVolumes makes directories for claims. *volumes.Volumes is one; Options.Volumes that is none keeps no claims.
type ClaimVolumes interface {
	// MakeClaim makes a directory for a claim; one that is there stays as it is.
	MakeClaim(ctx context.Context, dir string) error
	// RemoveClaim removes it with all that it holds; a missing one is not an error.
	RemoveClaim(ctx context.Context, dir string) error
}

func newStorage(dir string, trouble func(error)) *storage {
	s := &storage{files: serviceFiles{dir: dir}}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.bad = append(s.bad, err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		at := filepath.Join(dir, e.Name())
		x, err := s.readFile(at)
		if err != nil {
			s.bad = append(s.bad, fmt.Errorf("%s: %w", at, err))
			continue
		}
		s.list = append(s.list, x)
	}
	slices.SortFunc(s.list, func(a, b *plan.Storage) int { return object.Compare(a.Ref, b.Ref) })
	for _, err := range s.bad {
		trouble(fmt.Errorf("read which claims the node keeps: %w; nothing of them is deleted, and no claim is bound anew until it can be read", err))
	}
	return s
}

func (s *storage) readFile(at string) (*plan.Storage, error) {
	data, err := os.ReadFile(at)
	if err != nil {
		return nil, err
	}
	var x plan.Storage
	if err := json.Unmarshal(data, &x); err != nil {
		return nil, err
	}
	if s.files.path(x.Ref) != at {
		return nil, fmt.Errorf("it is about %s", x.Ref)
	}
	if !x.Whole() {
		return nil, fmt.Errorf("it says nothing of %s", x.Ref)
	}
	return &x, nil
}

func (s *storage) all() []*plan.Storage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.list
}

func (s *storage) find(r object.Ref) *plan.Storage {
	for _, x := range s.all() {
		if x.Ref == r {
			return x
		}
	}
	return nil
}

// replace brings the files to what is to be kept: what is new is written before anything goes.
func (s *storage) replace(list []*plan.Storage) error {
	had := s.all()
	for _, x := range list {
		if !slices.Contains(had, x) {
			if err := s.files.write(x.Ref, x); err != nil {
				return err
			}
		}
	}
	for _, x := range had {
		if !slices.ContainsFunc(list, func(y *plan.Storage) bool { return y.Ref == x.Ref }) {
			if err := s.files.remove(x.Ref); err != nil {
				return err
			}
		}
	}
	s.mu.Lock()
	s.list = list
	s.mu.Unlock()
	return nil
}

func (n *Node) doSetStorage(ctx context.Context, x *plan.Storage) error {
	s := n.storage
	s.write.Lock()
	defer s.write.Unlock()
	if err := s.readable(); err != nil {
		return fmt.Errorf("set %s: %w", x.Ref, err)
	}
	if have := s.find(x.Ref); have != nil && have.Application != x.Application && have.Claim != nil && x.Claim != nil && have.Claim.Volume != x.Claim.Volume {
		return fmt.Errorf("set %s: application %s has one of this name: %w", x.Ref, have.Application, runtimes.ErrConflict)
	}
	if x.Claim != nil {
		for _, y := range s.all() {
			if y.Claim != nil && y.Ref != x.Ref && y.Claim.Volume == x.Claim.Volume {
				return fmt.Errorf("set %s: PersistentVolume %s is bound to claim %s/%s: %w", x.Ref, x.Claim.Volume, y.Namespace, y.Name, runtimes.ErrConflict)
			}
		}
		if err := n.makeSource(ctx, x.Claim.Source); err != nil {
			return fmt.Errorf("make the volume of claim %s/%s: %w", x.Namespace, x.Name, err)
		}
	}
	if err := s.replace(plan.WithStorage(s.all(), x)); err != nil {
		return err
	}
	n.served()
	n.retryMounts(x.Ref)
	return nil
}

// readable returns an error while it is not known what the node keeps.
func (s *storage) readable() error {
	if len(s.bad) == 0 {
		return nil
	}
	return fmt.Errorf("it is not known which claims the node keeps: %w (repair or remove the file, and restart the daemon)", errors.Join(s.bad...))
}

// makeSource makes what a claim is bound to, where that is the node's to make.
func (n *Node) makeSource(ctx context.Context, src plan.Source) error {
	switch {
	case src.Directory != "":
		v, ok := n.opt.Volumes.(ClaimVolumes)
		if !ok {
			return fmt.Errorf("this node keeps no claims: %w", runtimes.ErrInvalid)
		}
		return v.MakeClaim(ctx, src.Directory)
	case src.Volume != nil:
		e, ok := n.opt.Engine.(runtimes.VolumeEngine)
		if !ok {
			return fmt.Errorf("this engine keeps no volumes: %w", runtimes.ErrInvalid)
		}
		if err := n.answering(); err != nil {
			return err
		}
		return e.EnsureVolume(ctx, src.Volume.Name, src.Volume.Driver, src.Volume.Options)
	}
	return nil
}

func (n *Node) removeSource(ctx context.Context, src plan.Source) error {
	switch {
	case src.Directory != "":
		if v, ok := n.opt.Volumes.(ClaimVolumes); ok {
			return v.RemoveClaim(ctx, src.Directory)
		}
	case src.Volume != nil:
		if e, ok := n.opt.Engine.(runtimes.VolumeEngine); ok {
			if err := n.answering(); err != nil {
				return err
			}
			return e.RemoveVolume(ctx, src.Volume.Name)
		}
	}
	return nil
}

func (n *Node) doDeleteStorage(ctx context.Context, a plan.DeleteStorage) error {
	s := n.storage
	s.write.Lock()
	defer s.write.Unlock()
	if err := s.readable(); err != nil {
		return fmt.Errorf("delete %s: %w", a.Storage, err)
	}
	x := s.find(a.Storage)
	if x == nil || x.Application != a.Application {
		return nil
	}
	if err := n.answering(); err != nil {
		return err // pods that use it may run unseen
	}
	switch {
	case x.Claim != nil:
		if user := n.userOf(x.Ref); user != "" {
			return fmt.Errorf("delete %s: pod %s uses it: %w", x.Ref, user, runtimes.ErrConflict)
		}
		if x.Claim.Provisioned && !a.Keep {
			if err := n.removeSource(ctx, x.Claim.Source); err != nil {
				return fmt.Errorf("delete what claim %s/%s holds: %w", x.Namespace, x.Name, err)
			}
		}
	case x.Volume != nil:
		for _, y := range s.all() {
			if y.Claim != nil && y.Claim.Volume == x.Name {
				return fmt.Errorf("delete %s: claim %s/%s is bound to it: %w", x.Ref, y.Namespace, y.Name, runtimes.ErrConflict)
			}
		}
	}
	if err := s.replace(plan.WithoutStorage(s.all(), a)); err != nil {
		return err
	}
	n.served()
	return nil
}

// userOf returns the name of a pod that uses a claim; empty when none does.
func (n *Node) userOf(claim object.Ref) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, uid := range sortedUIDs(n.pods) {
		if p := n.pods[uid]; plan.UsesClaim(p.key.Namespace, p.seen.Spec, claim) {
			return p.key.Name
		}
	}
	return ""
}

// withClaims fills in what the pod's claims are bound to.
func (n *Node) withClaims(pod *plan.Pod) (*plan.Pod, error) {
	var sources map[string]plan.Source
	for i := range pod.Spec.Volumes {
		c := pod.Spec.Volumes[i].PersistentVolumeClaim
		if c == nil {
			continue
		}
		x := n.storage.find(plan.ClaimRef(pod.Namespace, c.ClaimName))
		if x == nil || x.Claim == nil {
			return nil, fmt.Errorf("persistentvolumeclaim %q is not bound: %w", c.ClaimName, runtimes.ErrMissing)
		}
		if slices.Contains(x.Claim.Modes, string(corev1.ReadWriteOncePod)) {
			if other := n.earlierUser(pod.PodKey, x.Ref); other != "" {
				return nil, fmt.Errorf("persistentvolumeclaim %q has the access mode ReadWriteOncePod, and pod %s uses it: %w", c.ClaimName, other, runtimes.ErrMissing)
			}
		}
		if sources == nil {
			sources = map[string]plan.Source{}
		}
		sources[c.ClaimName] = x.Claim.Source
	}
	if sources == nil {
		return pod, nil
	}
	filled := *pod
	filled.Claims = sources
	return &filled, nil
}

// earlierUser returns another pod that uses a claim and was made before; empty when there is none.
func (n *Node) earlierUser(me plan.PodKey, claim object.Ref) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	mine := n.findLocked(me)
	for _, uid := range sortedUIDs(n.pods) {
		p := n.pods[uid]
		if p == mine || mine == nil || p.key == me || !plan.UsesClaim(p.key.Namespace, p.seen.Spec, claim) {
			continue
		}
		ended := p.seen.Phase == corev1.PodSucceeded || p.seen.Phase == corev1.PodFailed
		if !ended && (p.seen.Created.Before(mine.seen.Created) || p.seen.Created.Equal(mine.seen.Created) && p.uid < mine.uid) {
			return p.key.Name
		}
	}
	return ""
}

// retryMounts has pods that use a claim try at once what failed for want of it.
func (n *Node) retryMounts(claim object.Ref) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.pods {
		if !plan.UsesClaim(p.key.Namespace, p.seen.Spec, claim) {
			continue
		}
		p.tell(func() {
			p.volumes.notBefore = time.Time{}
			for _, c := range p.containers {
				if c.problem != nil && c.problem.Reason == reasonConfigError {
					c.wait = time.Time{}
				}
			}
		})
	}
}
