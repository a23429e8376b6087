package executor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// savedState is what is kept of a pod in a file: what the engine's labels cannot hold, because it
// changes while the pod lives, and the record, because it is written before anything is on the engine.
// Values of Secrets are not in it.
type savedState struct {
	UID     string    `json:"uid"`
	Record  string    `json:"record"`
	IP      string    `json:"ip,omitempty"`
	Created time.Time `json:"created"`
	// Configs are the ConfigMaps and Secrets that the pod was made with, by name.
	Configs    []object.Ref              `json:"configs,omitempty"`
	Next       int                       `json:"nextSandbox,omitempty"`
	ReadySince time.Time                 `json:"readySince,omitzero"`
	Deletion   time.Time                 `json:"deletion,omitzero"` // its deadline
	Leaving    time.Time                 `json:"leaving,omitzero"`  // since when it waits to be out of the routes
	Ending     *savedEnding              `json:"ending,omitempty"`
	Finished   *finished                 `json:"finished,omitempty"`
	Containers map[string]savedContainer `json:"containers,omitempty"`
	// SandboxCause is by whom the sandbox ended.
	SandboxCause *plan.Disturbance `json:"sandboxCause,omitempty"`
}

type savedEnding struct {
	Phase    string    `json:"phase"`
	Reason   string    `json:"reason,omitempty"`
	Message  string    `json:"message,omitempty"`
	Deadline time.Time `json:"deadline"`
}

type savedContainer struct {
	// Next is the number of the next attempt. What follows is of the one before it.
	Next    int         `json:"next"`
	Hooked  bool        `json:"hooked,omitempty"`
	Begun   bool        `json:"begun,omitempty"`
	Ready   bool        `json:"ready,omitempty"`
	Crash   crash       `json:"crash,omitzero"`
	Last    termination `json:"last,omitzero"`
	Started bool        `json:"started,omitempty"` // it ran, or runs
	// Cause is by whom it ended, or what else others did to it.
	Cause *plan.Disturbance `json:"cause,omitempty"`
}

func (p *pod) snapshot(record string) savedState {
	f := savedState{
		UID: p.uid, Record: record, IP: p.address(), Created: p.state.created, Next: p.sandbox.next,
		ReadySince: p.readySince, Finished: p.finished, Containers: map[string]savedContainer{},
		SandboxCause: p.sandbox.cause.disturbance(),
	}
	for _, c := range p.state.pod.Configs {
		f.Configs = append(f.Configs, c.Ref)
	}
	if p.deletion != nil {
		f.Deletion = p.deletion.deadline
	}
	if p.leaving != nil {
		f.Leaving = p.leaving.since
	}
	if e := p.ending; e != nil {
		f.Ending = &savedEnding{Phase: string(e.phase), Reason: e.reason, Message: e.message, Deadline: e.deadline}
	}
	for _, c := range p.containers {
		if c.next == 0 && c.status == absent {
			continue
		}
		f.Containers[c.spec.Name] = savedContainer{
			Next: c.next, Hooked: c.postStart == hookDone, Begun: c.begun, Ready: c.ready, Crash: c.crash, Last: c.last,
			Started: c.status == running || c.status == exited, Cause: c.cause.disturbance(),
		}
	}
	return f
}

// save writes the pod's file when something in it changed. Decisions that must not be forgotten are
// made durable.
func (p *pod) save() {
	if p.node.opt.ReadOnly || p.broken != "" || p.deletion != nil && (p.deletion.busy || p.deletion.gone) {
		return
	}
	record := p.saved.Record
	if p.recorded != p.state.pod {
		var err error
		if record, err = encodeRecord(p.state.pod); err != nil {
			p.node.opt.OnTrouble(fmt.Errorf("pod %s: encode its record: %w", p.key, err))
			return
		}
	}
	f := p.snapshot(record)
	if reflect.DeepEqual(f, p.saved) {
		return
	}
	durable := f.Record != p.saved.Record || f.Deletion.IsZero() != p.saved.Deletion.IsZero() ||
		(f.Finished == nil) != (p.saved.Finished == nil) || (f.Ending == nil) != (p.saved.Ending == nil)
	if err := p.node.writeState(f, durable); err != nil {
		p.node.opt.OnTrouble(fmt.Errorf("pod %s: keep its state: %w", p.key, err))
		return
	}
	p.saved, p.recorded = f, p.state.pod
}

func (n *Node) statePath(uid string) string {
	return filepath.Join(n.opt.StateDir, "pods", uid+".json")
}

// writeState replaces the file of a pod.
func (n *Node) writeState(f savedState, durable bool) error {
	data, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return replaceFile(n.statePath(f.UID), data, durable)
}

// halfWritten ends the name of a file that is to replace the one of that name.
const halfWritten = ".new"

// removeHalfWritten removes what replaceFile left when the program died in it.
func removeHalfWritten(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, "*.json"+halfWritten))
	for _, f := range left {
		err = errors.Join(err, os.Remove(f))
	}
	return err
}

// replaceFile replaces a file: readers find the old or the new one, never a part.
func replaceFile(path string, data []byte, durable bool) error {
	tmp := path + halfWritten
	w, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = w.Write(data)
	if err == nil && durable {
		err = w.Sync()
	}
	if err := errors.Join(err, w.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	if !durable {
		return nil
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (n *Node) removeState(uid string) error {
	err := os.Remove(n.statePath(uid))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove the state of pod %s: %w", uid, err)
	}
	return nil
}

// savedStates reads the files of all pods, by UID. A file that cannot be read is reported and left
// alone; then what the engine's labels say has to be enough.
func (n *Node) savedStates() map[string]savedState {
	dir := filepath.Join(n.opt.StateDir, "pods")
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		n.opt.OnTrouble(fmt.Errorf("read the states of pods: %w", err))
	}
	out := map[string]savedState{}
	for _, e := range entries {
		uid, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		var f savedState
		if err == nil {
			err = json.Unmarshal(data, &f)
		}
		if err == nil && f.UID != uid {
			err = fmt.Errorf("it is about pod %q", f.UID)
		}
		if err != nil {
			n.opt.OnTrouble(fmt.Errorf("read the state of pod %s: %w", uid, err))
			continue
		}
		out[uid] = f
	}
	return out
}

func parseIP(s string) netip.Addr {
	ip, _ := netip.ParseAddr(s) // no address is one that is not valid
	return ip
}
