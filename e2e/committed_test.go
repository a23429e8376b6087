package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// committedHost is an installation on an engine of its own, whose one application comes from a Git server.
type committedHost struct {
	*ownHost
	repo  string
	words int // how many revisions there are
	since int64
}

// commitTo makes an installation with further settings for the branch main of a repository that is empty yet. Its daemon is
// not started.
func commitTo(t *testing.T, e *ownEngine, further string) *committedHost {
	t.Helper()
	repos := t.TempDir()
	h := &committedHost{repo: filepath.Join(repos, "app")}
	git := serveGitAt(t, repos, listenIn(t, e.netns))
	h.ownHost = hostOn(t, e, `services: {cidr: `+subnet()+`}
applications:
  - name: app
    location: `+git.URL+`/app/.git
    ref: main
    auth: {username: `+gitUser+`, passwordFile: PASSWORD, caFile: CA}
`+further)
	h.patience = 5 * time.Minute
	config := filepath.Join(h.dir, "fairlead.yaml")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	ca, password := filepath.Join(h.dir, "ca.pem"), filepath.Join(h.dir, "password")
	settings := strings.NewReplacer("PASSWORD", password, "CA", ca).Replace(string(text))
	if err := errors.Join(os.WriteFile(config, []byte(settings), 0o600), os.WriteFile(ca, git.CA, 0o600), os.WriteFile(password, []byte(gitPassword), 0o600)); err != nil {
		t.Fatal(err)
	}
	return h
}

// word is what is new in the newest revision.
func (h *committedHost) word() string { return fmt.Sprintf("w%d", h.words) }

// commit makes the next revision, of manifests with a word of its own.
func (h *committedHost) commit(manifests func(word string) string) {
	h.t.Helper()
	h.since = h.logSize()
	h.words++
	git := func(args ...string) error {
		cmd := exec.Command("git", append([]string{"-C", h.repo, "-c", "user.name=Jane", "-c", "user.email=jane@example.org"}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("git %v: %w\n%s", args, err, out)
		}
		return nil
	}
	var err error
	if h.words == 1 {
		err = errors.Join(os.Mkdir(h.repo, 0o700), git("init", "-q", "-b", "main"))
	}
	file := filepath.Join(h.repo, "app.yaml")
	err = errors.Join(err, os.WriteFile(file, []byte(manifests(h.word())), 0o600), git("add", "-A"), git("commit", "-q", "-m", h.word()))
	if err != nil {
		h.t.Fatal(err)
	}
}

// inNetns runs f in a network namespace.
func inNetns(netns string, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends in that namespace
		ns, err := os.Open(netns)
		if err == nil {
			err = errors.Join(unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET), ns.Close())
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// listenIn listens on the loopback of a network namespace.
func listenIn(t *testing.T, netns string) (l net.Listener) {
	t.Helper()
	err := inNetns(netns, func() (err error) {
		l, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// clientIn asks in a network namespace, with a connection for each question.
func clientIn(netns string) *http.Client {
	return &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(_ context.Context, network, addr string) (conn net.Conn, err error) {
			err = inNetns(netns, func() error {
				conn, err = net.DialTimeout(network, addr, 10*time.Second)
				return err
			})
			return conn, err
		},
	}}
}
