package runtimetest

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/runtimes"
)

// ProgramPath is where the test program is in the image that Image makes; it is its entrypoint too.
const ProgramPath = "/program"

// Name returns a name that no other test on this machine uses, for example for an installation. It
// begins with "flt" and is 13 bytes long.
func Name(testing.TB) string {
	b := make([]byte, 5)
	rand.Read(b)
	return "flt" + hex.EncodeToString(b)
}

// Program returns the command line of the test program: its subcommands are documented in package
// program, which is runtimes/runtimetest/program.
func Program(args ...string) []string { return append([]string{ProgramPath}, args...) }

// Image makes an image of the test program and returns its reference, which is this process's own. The
// engine is the one that DOCKER_HOST names, or the local one. The image is removed after the last test
// that asked for it. Under -short the test is skipped.
func Image(t testing.TB) string {
	t.Helper()
	return imageFrom(t, programTar)
}

// ImageOf makes an image as Image does, of another program: a main package of this module, whose variable
// main.version is set. Its path in the image is ProgramPath.
func ImageOf(t testing.TB, pkg, version string) string {
	t.Helper()
	return imageFrom(t, func() ([]byte, error) { return tarOf(pkg, "-s -w -X main.version="+version) })
}

func imageFrom(t testing.TB, build func() ([]byte, error)) string {
	t.Helper()
	if testing.Short() {
		t.Skip("needs the Docker engine")
	}
	root, err := build()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(root)
	ref := fmt.Sprintf("fairlead-test/program:%s-%d", hex.EncodeToString(sum[:6]), os.Getpid())
	if err := images.acquire(ref, root); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := images.release(ref); err != nil {
			t.Error(err)
		}
	})
	return ref
}

// RemoveAll removes all containers of the engine's installation when the test ends, with or without
// success.
func RemoveAll(t testing.TB, e runtimes.Engine) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		all, err := e.List(ctx)
		if err != nil {
			t.Error(err)
		}
		for _, c := range all {
			if err := e.Remove(ctx, c.ID); err != nil {
				t.Error(err)
			}
		}
	})
}

// programTar is tarOf the test program. The result never changes; it is kept because every test of a package
// needs it.
var programTar = sync.OnceValues(func() ([]byte, error) { return tarOf("runtimes/runtimetest/program", "-s -w") })

// tarOf builds a main package of this module and returns a tar of a root file system that holds it.
func tarOf(pkg, ldflags string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "runtimetest-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "program")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags="+ldflags, "-o", file, "github.com/fairlead-dev/fairlead/"+pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var root bytes.Buffer
	tw := tar.NewWriter(&root)
	for _, h := range []tar.Header{
		{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777},
		{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: strings.TrimPrefix(ProgramPath, "/"), Mode: 0o755, Size: int64(len(content))},
	} {
		if err := tw.WriteHeader(&h); err != nil {
			return nil, err
		}
	}
	if _, err := tw.Write(content); err != nil {
		return nil, err
	}
	return root.Bytes(), tw.Close()
}

// images counts the tests of this process that use an image. Go has no cleanup per process, so this
// is the one state of the package.
var images counted

type counted struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *counted) acquire(ref string, root []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n[ref] == 0 {
		repo, tag, _ := strings.Cut(ref, ":")
		q := url.Values{"fromSrc": {"-"}, "repo": {repo}, "tag": {tag}, "changes": {`ENTRYPOINT ["` + ProgramPath + `"]`}}
		if err := call(http.MethodPost, "/images/create?"+q.Encode(), bytes.NewReader(root)); err != nil {
			return fmt.Errorf("import the test program: %w", err)
		}
	}
	if c.n == nil {
		c.n = map[string]int{}
	}
	c.n[ref]++
	return nil
}

func (c *counted) release(ref string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n[ref]--; c.n[ref] > 0 {
		return nil
	}
	if err := call(http.MethodDelete, "/images/"+ref+"?force=1", nil); err != nil {
		return fmt.Errorf("remove the image of the test program: %w", err)
	}
	return nil
}

// call asks the engine directly, so that this package needs no runtime.
func call(method, path string, body io.Reader) error {
	host := os.Getenv("DOCKER_HOST")
	if host == "" {
		host = "unix:///var/run/docker.sock"
	}
	u, err := url.Parse(host)
	if err != nil {
		return fmt.Errorf("DOCKER_HOST: %w", err)
	}
	c, base := &http.Client{Timeout: time.Minute}, "http://"+u.Host
	switch u.Scheme {
	case "unix":
		base = "http://docker"
		transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", u.Path)
		}}
		defer transport.CloseIdleConnections()
		c.Transport = transport
	case "tcp":
	default:
		return fmt.Errorf("DOCKER_HOST=%s: tests understand unix and tcp only", host)
	}
	req, err := http.NewRequest(method, base+path, body)
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode >= 300 || bytes.Contains(text, []byte(`"errorDetail"`))) {
		err = fmt.Errorf("the Docker engine answered %s: %s", resp.Status, bytes.TrimSpace(text))
	}
	return err
}
