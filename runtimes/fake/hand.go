package fake

import (
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes"
)

// Hand is somebody at the machine who does things to containers without asking. Its methods report
// whether there is such a container.
type Hand struct{ e *machine }

// Hand returns somebody at the machine.
func (e *Engine) Hand() Hand { return Hand{e.machine} }

func (h Hand) on(id string, do func(c *container)) bool {
	h.e.mu.Lock()
	defer h.e.mu.Unlock()
	c := h.e.containers[id]
	if c == nil {
		return false
	}
	do(c)
	return true
}

// Remove removes a container, running or not.
func (h Hand) Remove(id string) bool { return h.on(id, h.e.remove) }

// Kill sends a signal.
func (h Hand) Kill(id, signal string) bool {
	return h.on(id, func(c *container) { h.e.signal(c, signal) })
}

// Exit ends a container's process with an exit code, as the process itself can.
func (h Hand) Exit(id string, code int) bool {
	return h.on(id, func(c *container) {
		if c.Running {
			h.e.exit(c, code)
		}
	})
}

// Start starts a container.
func (h Hand) Start(id string) bool {
	return h.on(id, func(c *container) { _ = h.e.start(c) })
}

// Pause freezes a running container.
func (h Hand) Pause(id string) bool {
	return h.on(id, func(c *container) {
		if c.Running && !c.Paused {
			c.Paused = true
			h.e.emit(c, runtimes.EventPause)
		}
	})
}

// Unpause lets a frozen container go on.
func (h Hand) Unpause(id string) bool {
	return h.on(id, func(c *container) {
		if c.Paused {
			c.Paused = false
			h.e.emit(c, runtimes.EventUnpause)
		}
	})
}

// Rename gives a container another name.
func (h Hand) Rename(id, name string) bool {
	return h.on(id, func(c *container) {
		delete(h.e.names, c.name)
		c.name, h.e.names[name] = name, c
		h.e.emit(c, runtimes.EventRename)
	})
}

// Update changes the limits of a container.
func (h Hand) Update(id string, r plan.Resources) bool {
	return h.on(id, func(c *container) {
		c.Resources = r
		h.e.emit(c, runtimes.EventUpdate)
	})
}

// Dead marks a container as dead: its removal was begun and did not end.
func (h Hand) Dead(id string) bool {
	return h.on(id, func(c *container) {
		if c.Running {
			h.e.exit(c, 137)
		}
		c.Dead = true
	})
}

// AddForeign makes a running container that is not ours and returns its id.
func (e *Engine) AddForeign(name string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.add(name)
	_ = e.start(c)
	return c.ID
}

// Tamper makes a copy of a container with labels that were changed, so that it is not ours, and returns
// its id.
func (h Hand) Tamper(id string) string {
	var copied string
	h.on(id, func(c *container) {
		t := h.e.add(c.name + "_copy")
		t.spec, t.process = c.spec, c.process
		copied = t.ID
	})
	return copied
}

// State is a container as it is, of this installation or not.
type State struct {
	runtimes.Container
	Name    string
	Foreign bool
	Spec    runtimes.ContainerSpec
	// Made is when it was created, and Began when its process last started, by this process's clock.
	Made, Began time.Time
}

// Containers returns all containers, the oldest first. It is not a call of the engine.
func (e *Engine) Containers() []State {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]State, 0, len(e.order))
	for _, c := range e.order {
		out = append(out, e.stateOf(c))
	}
	return out
}

// Get returns the container of an id. It is not a call of the engine.
func (e *Engine) Get(id string) (State, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.containers[id]
	if c == nil {
		return State{}, false
	}
	return e.stateOf(c), true
}

func (e *Engine) stateOf(c *container) State {
	return State{Container: c.Container, Name: c.name, Foreign: c.owner != e.installation, Spec: c.spec, Made: c.made, Began: c.began}
}

// Find returns the newest attempt of a pod's container. It is not a call of the engine.
func (e *Engine) Find(pod plan.PodKey, container string) (State, bool) {
	all := slices.DeleteFunc(e.Containers(), func(s State) bool {
		return s.Foreign || s.Pod != pod || s.Container.Container != container
	})
	if len(all) == 0 {
		return State{}, false
	}
	return slices.MaxFunc(all, func(a, b State) int {
		if c := a.Attempt - b.Attempt; c != 0 {
			return c
		}
		return a.Created.Compare(b.Created)
	}), true
}

// Running reports whether a process of that id runs.
func (e *Engine) Running(pid int) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range e.containers {
		if c.Running && c.PID == pid {
			return true
		}
	}
	return false
}
