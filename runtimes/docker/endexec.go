package docker

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// How long a command that was given up may take to start, and how often it is looked for.
const (
	endBound = 5 * time.Second
	endPause = 20 * time.Millisecond
)

// endExec ends the process of a command that nobody waits for any more. The engine has no call for that, so
// it is done only where the engine's processes are those of this machine: over a unix socket, and when the
// control group of the process says that it is the container's. Elsewhere the process goes on until it ends.
func (e *Engine) endExec(ctx context.Context, container, exec string) {
	if !strings.HasPrefix(e.cli.DaemonHost(), "unix://") {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, endBound)
	defer cancel()
	for {
		r, err := e.cli.ContainerExecInspect(ctx, exec)
		switch {
		case err != nil, r.ExitCode != 0: // it cannot be run, or it has ended
			return
		case r.Pid > 0:
			if r.Running {
				_ = killIn(container, r.Pid) // it may have ended
			}
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(endPause):
		}
	}
}

// killIn kills a process of a container, and the others of its process group.
func killIn(container string, pid int) error {
	p, err := os.FindProcess(pid) // from here on it is this process or none, whoever gets its number
	if err != nil {
		return err
	}
	defer func() { _ = p.Release() }()
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return err
	}
	if len(container) != 64 || !bytes.Contains(groups, []byte(container)) {
		return fmt.Errorf("process %d is not in container %s", pid, short(container))
	}
	if group, err := syscall.Getpgid(pid); err == nil && group == pid {
		_ = syscall.Kill(-pid, syscall.SIGKILL) // the process itself follows in any case
	}
	return p.Signal(syscall.SIGKILL)
}
