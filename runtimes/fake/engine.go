// Package fake is a container engine in memory for tests. It keeps state as a real engine does,
// runs processes that do what the test says, and breaks on command.
//
// Time goes through package time and everything that a test waits for can be waited for in a
// synctest bubble. IDs and PIDs are the same in every run that makes the same calls.
package fake

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes"
)

// firstPID is above what Linux gives, so that no PID is that of a process on this machine.
const firstPID = 5_000_000

// SandboxImageID is the id of the sandbox image of every fake engine.
const SandboxImageID = "sha256:00000000000000000000000000000000000000000000000000000000005a0db0"

// Engine is a runtimes.Engine in memory, as one installation sees it. Its methods may be called from
// any goroutine.
type Engine struct {
	*machine
	installation string
	closed       bool
}

var _ runtimes.Engine = (*Engine)(nil)

// machine is what all installations on it share.
type machine struct {
	mu          sync.Mutex
	info        runtimes.EngineInfo
	containers  map[string]*container // by id
	order       []*container          // the same, the oldest first
	names       map[string]*container
	images      map[string]*image // by reference and by id
	subs        map[*subscriber]struct{}
	faults      []*fault
	calls       []Call
	changed     chan struct{} // closed and made anew by every change
	made        int
	pids        int
	down        bool
	dropEvents  bool
	checkMounts bool
	ahead       time.Duration // of the engine's clock
}

// New returns an engine without containers; the only image it knows is the sandbox's.
func New() *Engine {
	m := &machine{
		info: runtimes.EngineInfo{
			Name: "fake", Version: "20.10.24", APIVersion: "1.41", CPUs: 2, MemoryBytes: 8 << 30, AppArmor: true, Root: "/var/lib/fake",
		},
		containers: map[string]*container{},
		names:      map[string]*container{},
		images:     map[string]*image{},
		subs:       map[*subscriber]struct{}{},
		changed:    make(chan struct{}),
		pids:       firstPID,
	}
	return &Engine{machine: m, installation: "fairlead"}
}

// Open returns the same engine as an installation of that name sees it; that of New is "fairlead".
// Faults and calls are shared.
func (e *Engine) Open(installation string) *Engine {
	return &Engine{machine: e.machine, installation: installation}
}

// container is one container, ours or not.
type container struct {
	runtimes.Container
	spec    runtimes.ContainerSpec
	name    string
	owner   string // the installation; empty when it is nobody's
	process Process
	lines   []line
	// made is when it was created, and began when its process started, by this process's clock.
	made, began time.Time
	timer       *time.Timer                // ends the process by itself
	stop        *time.Timer                // ends the process after a signal
	execs       map[int]context.CancelFunc // commands that run in it
}

// Name returns the name that the engine gives to a container of that identity.
func (e *Engine) Name(id runtimes.Identity) string {
	return fmt.Sprintf("%s_%s_%s_%s_%s_%d", e.installation, id.Container, id.Pod.Name, id.Pod.Namespace, id.UID, id.Attempt)
}

// CheckMounts makes Create refuse mounts whose source does not exist on this machine.
func (e *Engine) CheckMounts() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.checkMounts = true
}

// SetInfo replaces what Info returns.
func (e *Engine) SetInfo(info runtimes.EngineInfo) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.info = info
}

// Info implements runtimes.Engine.
func (e *Engine) Info(ctx context.Context) (runtimes.EngineInfo, error) {
	var info runtimes.EngineInfo
	err := e.call(ctx, Call{Kind: CallInfo}, func() error {
		info = e.info
		return nil
	})
	return info, err
}

// List implements runtimes.Engine. The containers are sorted by creation.
func (e *Engine) List(ctx context.Context) ([]runtimes.Container, error) {
	var list []runtimes.Container
	err := e.call(ctx, Call{Kind: CallList}, func() error {
		for _, c := range e.order {
			if c.owner == e.installation {
				list = append(list, c.Container)
			}
		}
		return nil
	})
	return list, err
}

// Inspect implements runtimes.Engine.
func (e *Engine) Inspect(ctx context.Context, id string) (runtimes.Container, error) {
	var out runtimes.Container
	err := e.call(ctx, Call{Kind: CallInspect, Target: id}, func() error {
		c, err := e.ours(id)
		if err != nil {
			return err
		}
		out = c.Container
		return nil
	})
	return out, err
}

// Create implements runtimes.Engine.
func (e *Engine) Create(ctx context.Context, spec runtimes.ContainerSpec) (string, error) {
	var id string
	err := e.call(ctx, Call{Kind: CallCreate, Target: e.Name(spec.Identity), Identity: spec.Identity, Spec: &spec}, func() error {
		if spec.UID == "" || spec.Container == "" || spec.Pod.Name == "" {
			return fmt.Errorf("the identity has no pod, UID or container: %w", runtimes.ErrInvalid)
		}
		name := e.Name(spec.Identity)
		if c := e.names[name]; c != nil {
			if c.owner != e.installation || c.Identity != spec.Identity {
				return fmt.Errorf("the name %s is taken by container %s, which is not this one: %w", name, c.ID, runtimes.ErrConflict)
			}
			id = c.ID
			return nil
		}
		img, ok := e.images[tagged(spec.Image)]
		if !ok || !img.Present {
			return fmt.Errorf("no such image %s: %w", spec.Image, runtimes.ErrNotFound)
		}
		if spec.SandboxID != "" && e.containers[spec.SandboxID] == nil {
			return fmt.Errorf("no such container %s to join: %w", spec.SandboxID, runtimes.ErrInvalid)
		}
		if len(spec.Command) == 0 && len(spec.Args) == 0 && len(img.Entrypoint) == 0 && len(img.Cmd) == 0 {
			return fmt.Errorf("no command specified: %w", runtimes.ErrInvalid)
		}
		if e.checkMounts {
			for _, m := range spec.Mounts {
				if _, err := os.Stat(m.Source); err != nil {
					return fmt.Errorf("mount on %s: %w: %w", m.Target, err, runtimes.ErrInvalid)
				}
			}
		}
		c := e.add(name)
		c.owner = e.installation
		c.Identity, c.spec = spec.Identity, spec
		c.Image, c.ImageID, c.Resources, c.SandboxID = spec.Image, img.ID, spec.Resources, spec.SandboxID
		c.process = img.run(spec)
		id = c.ID
		return nil
	})
	return id, err
}

// add makes a container that is not running. The caller holds the lock.
func (m *machine) add(name string) *container {
	m.made++
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", name, m.made))
	c := &container{name: name, made: time.Now()}
	c.ID, c.Created = hex.EncodeToString(sum[:]), m.now()
	m.containers[c.ID], m.names[name] = c, c
	m.order = append(m.order, c)
	m.change()
	return c
}

// now is the time by the engine's clock.
func (m *machine) now() time.Time { return time.Now().Add(m.ahead) }

// Start implements runtimes.Engine.
func (e *Engine) Start(ctx context.Context, id string) error {
	return e.call(ctx, Call{Kind: CallStart, Target: id}, func() error {
		c, err := e.ours(id)
		if err != nil {
			return err
		}
		return e.start(c)
	})
}

// Kill implements runtimes.Engine.
func (e *Engine) Kill(ctx context.Context, id, signal string) error {
	return e.call(ctx, Call{Kind: CallKill, Target: id, Signal: signal}, func() error {
		if c, err := e.ours(id); err == nil {
			e.signal(c, signal)
		}
		return nil
	})
}

// Remove implements runtimes.Engine.
func (e *Engine) Remove(ctx context.Context, id string) error {
	return e.call(ctx, Call{Kind: CallRemove, Target: id}, func() error {
		if c, err := e.ours(id); err == nil {
			e.remove(c)
		}
		return nil
	})
}

// Update implements runtimes.Engine.
func (e *Engine) Update(ctx context.Context, id string, r plan.Resources) error {
	return e.call(ctx, Call{Kind: CallUpdate, Target: id, Resources: r}, func() error {
		c, err := e.ours(id)
		if err != nil {
			return err
		}
		c.Resources = r
		e.emit(c, runtimes.EventUpdate)
		return nil
	})
}

// Close makes Events return and lets the installation's processes do nothing by themselves any more. It
// may be called more than once.
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	for _, c := range e.containers {
		if c.owner == e.installation {
			c.stopTimers()
		}
	}
	e.change()
	return nil
}

// ours finds a container of this installation. The caller holds the lock.
func (e *Engine) ours(id string) (*container, error) {
	c := e.containers[id]
	if c == nil || c.owner != e.installation {
		return nil, fmt.Errorf("no such container %s: %w", id, runtimes.ErrNotFound)
	}
	return c, nil
}

// change wakes everybody who waits for something to change. The caller holds the lock.
func (m *machine) change() {
	close(m.changed)
	m.changed = make(chan struct{})
}
