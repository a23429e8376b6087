package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// binDir is where TestMain puts the program under test.
var binDir string

func TestMain(m *testing.M) {
	code, err := 0, error(nil)
	if binDir, err = os.MkdirTemp("", "fairlead-e2e-"); err == nil {
		code = m.Run()
		err = os.RemoveAll(binDir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// buildFairlead builds the program once.
var buildFairlead = sync.OnceValues(func() (string, error) {
	file := filepath.Join(binDir, "fairlead")
	cmd := exec.Command("go", "build", "-trimpath", "-tags", "grpcnotrace", "-o", file, "../daemon/cmd/fairlead")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build fairlead: %w\n%s", err, out)
	}
	return file, nil
})

// fairlead returns the path of the program under test. Tests that run it need the engine, so -short skips them.
func fairlead(t testing.TB) string {
	t.Helper()
	if testing.Short() {
		t.Skip("needs the Docker engine")
	}
	file, err := buildFairlead()
	if err != nil {
		t.Fatal(err)
	}
	return file
}
