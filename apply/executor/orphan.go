package executor

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// orphanEnds is how long the engine's own helpers may take to notice that the processes of a container have ended.
const orphanEnds = 2 * time.Second

// reapOrphan ends the processes of a container that the engine takes for one that does not run, and reports whether there were any.
//
// An engine that dies in the moment in which it starts a container can come back without knowing that it runs. It can then neither start
// nor, with some storage drivers, remove it ("id already in use"), and the processes keep the pod's ports from what comes after them.
// What such a container leaves is its cgroup, so that looking for one costs next to nothing where there is none.
func (n *Node) reapOrphan(id string) bool {
	const whole = 64
	if n.opt.ReadOnly || len(id) != whole || !hasCgroup(id) {
		return false
	}
	ctx, cancel := n.call()
	defer cancel()
	if c, err := n.opt.Engine.Inspect(ctx, id); err != nil || c.Running {
		return false
	}
	pids := processesOf(id)
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended meanwhile
	}
	if len(pids) == 0 {
		return false
	}
	for deadline := time.Now().Add(orphanEnds); hasCgroup(id) && time.Now().Before(deadline) && ctx.Err() == nil; {
		time.Sleep(20 * time.Millisecond)
	}
	return true
}

// hasCgroup reports whether a container has a cgroup where engines make them: with either driver, and either version of cgroups.
func hasCgroup(id string) bool {
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids"} {
		for _, at := range []string{"docker/" + id, "system.slice/docker-" + id + ".scope"} {
			if _, err := os.Stat(filepath.Join(root, at)); err == nil {
				return true
			}
		}
	}
	return false
}

// processesOf returns the processes in the cgroups of a container.
func processesOf(id string) []int {
	files, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		return nil
	}
	var pids []int
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(b, []byte(id)) {
			continue // it has ended, or is none of them
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil && pid > 1 && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}
