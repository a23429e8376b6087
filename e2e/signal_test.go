package e2e

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSignalBeforeMain stops a daemon that is only just being started. It catches signals before most of it is initialised,
// and ends in good order.
func TestSignalBeforeMain(t *testing.T) {
	program := fairlead(t)
	dir := t.TempDir()
	config := filepath.Join(dir, "fairlead.yaml")
	settings := fmt.Sprintf("installation: fltsignal\nstateDir: %s\nrunDir: %s\nengine: unix://%s\n", filepath.Join(dir, "state"), filepath.Join(dir, "run"), filepath.Join(dir, "nobody.sock"))
	if err := os.WriteFile(config, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(filepath.Join(dir, "run"), syscall.MNT_DETACH) }) // it may not have come that far
	daemon := exec.Command(program, "run", "--config", config)
	daemon.Env = append(os.Environ(), "GODEBUG=inittrace=1") // a line for each package, as it is initialised
	stderr, err := daemon.StderrPipe()
	if err == nil {
		err = daemon.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	stuck := time.AfterFunc(time.Minute, func() { _ = daemon.Process.Kill() })
	defer stuck.Stop()
	sent, early := false, true
	var said strings.Builder
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		line := lines.Text()
		switch {
		case strings.Contains(line, "/fairlead/signals @"):
			sent = true
			if err := daemon.Process.Signal(syscall.SIGTERM); err != nil {
				t.Error(err)
			}
		case strings.HasPrefix(line, "init k8s.io/"):
			early = early && sent
		case !strings.HasPrefix(line, "init "):
			said.WriteString(line + "\n")
		}
	}
	if err := daemon.Wait(); err != nil || !sent || !strings.Contains(said.String(), "fairlead stopped") {
		t.Errorf("the daemon got its signal: %v; it ended with %v:\n%s", sent, err, &said)
	}
	if !early {
		t.Error("signals are not caught before what is large is initialised")
	}
}
