package engineproxy

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"
	"github.com/docker/docker/pkg/stdcopy"

	"github.com/fairlead-dev/fairlead/runtimes/runtimetest"
)

// bench is a client behind a proxy, and one that is not.
type bench struct {
	*testing.T
	image         string
	proxy         *Proxy
	cli, straight *client.Client
}

func newBench(t *testing.T) bench {
	t.Helper()
	b := bench{T: t, image: runtimetest.Image(t)}
	engine := strings.TrimPrefix(os.Getenv("DOCKER_HOST"), "unix://")
	if engine == "" {
		engine = "/var/run/docker.sock"
	}
	var err error
	if b.proxy, err = New(filepath.Join(t.TempDir(), "s"), engine); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.proxy.Close(); err != nil {
			t.Error(err)
		}
	})
	open := func(o ...client.Opt) *client.Client {
		c, err := client.NewClientWithOpts(append(o, client.WithAPIVersionNegotiation())...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	b.cli, b.straight = open(client.WithHost(b.proxy.Host())), open(client.FromEnv)
	return b
}

// create asks for a container through the proxy, which is removed when the test ends, if it was made.
func (b bench) create(args ...string) (name string, err error) {
	b.Helper()
	name = runtimetest.Name(b)
	b.Cleanup(func() {
		err := b.straight.ContainerRemove(context.Background(), name, container.RemoveOptions{Force: true})
		if err != nil && !cerrdefs.IsNotFound(err) {
			b.Error(err)
		}
	})
	_, err = b.cli.ContainerCreate(b.Context(), &container.Config{Image: b.image, Cmd: args}, &container.HostConfig{NetworkMode: "none"}, nil, nil, name)
	return name, err
}

func (b bench) exists(name string) bool {
	b.Helper()
	_, err := b.straight.ContainerInspect(b.Context(), name)
	if err != nil && !cerrdefs.IsNotFound(err) {
		b.Fatal(err)
	}
	return err == nil
}

// TestFaults does everything that can be done to a call.
func TestFaults(t *testing.T) {
	b := newBench(t)
	for _, tt := range []struct {
		name           string
		fault          Fault
		fails, made    bool
		kills, archive bool
	}{
		{name: "nothing", made: true},
		{name: "before", fault: Fault{Kill: Before}, fails: true, kills: true},
		{name: "after", fault: Fault{Kill: After}, fails: true, made: true, kills: true},
		{name: "dropped", fault: Fault{Answer: Drop}, fails: true, made: true},
		{name: "refused", fault: Fault{Answer: Refuse}, fails: true},
		{name: "delayed", fault: Fault{Answer: Late, Delay: time.Millisecond}, made: true},
		{name: "doubled", fault: Fault{Answer: Twice}, fails: true, made: true}, // the second is a conflict
		{name: "error", fault: Fault{Answer: Error}, fails: true},
		{name: "conflict", fault: Fault{Answer: Conflict}, fails: true},
		{name: "lie", fault: Fault{Answer: Lie}, fails: true, made: true},
		{name: "truncated", fault: Fault{Answer: Truncated}, fails: true, made: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			killed := false
			b.proxy.Begin(func(c Call) Fault {
				if c.Number == 1 {
					return tt.fault
				}
				return Fault{}
			}, func() { killed = true })
			b := b
			b.T = t
			name, err := b.create("wait")
			if (err != nil) != tt.fails {
				t.Errorf("the client got %v", err)
			}
			if made := b.exists(name); made != tt.made {
				t.Errorf("the container was made: %v", made)
			}
			if killed != tt.kills {
				t.Errorf("the program was ended: %v", killed)
			}
			calls := b.proxy.Calls()
			if last := calls[len(calls)-1]; last.String() != "call 1 (POST containers/create)" || !last.Mutates() || last.Archive() {
				t.Errorf("the call is %v", last)
			}
		})
	}
}

// TestKilledWhileItRuns ends the program when the engine has the call. What the engine does then is its own affair.
func TestKilledWhileItRuns(t *testing.T) {
	b := newBench(t)
	killed := make(chan struct{})
	b.proxy.Begin(func(c Call) Fault {
		if c.Number == 1 {
			return Fault{Kill: During}
		}
		return Fault{}
	}, func() { close(killed) })
	if _, err := b.create("wait"); err == nil {
		t.Error("the program that was ended has an answer")
	}
	<-killed
}

// TestArchiveIsSeen holds that the calls of the archive API are known.
func TestArchiveIsSeen(t *testing.T) {
	b := newBench(t)
	name, err := b.create("wait")
	if err != nil {
		t.Fatal(err)
	}
	b.proxy.Begin(nil, nil)
	r, _, err := b.cli.CopyFromContainer(t.Context(), name, "/etc")
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	if calls := b.proxy.Calls(); len(calls) != 1 || !calls[0].Archive() {
		t.Errorf("the calls are %v", calls)
	}
}

// TestStreams holds that connections that are taken over, logs and events pass, and that events can be doubled.
func TestStreams(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	b.proxy.Begin(func(c Call) Fault {
		if strings.HasSuffix(c.Kind, " events") {
			return Fault{Answer: Twice}
		}
		return Fault{}
	}, nil)
	name, err := b.create("print", "one", "--", "wait")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var seen []string
	messages, errs := b.cli.Events(ctx, events.ListOptions{Filters: filters.NewArgs(filters.Arg("container", name), filters.Arg("event", "start"), filters.Arg("event", "die"))})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for len(seen) < 4 {
			select {
			case m := <-messages:
				mu.Lock()
				seen = append(seen, string(m.Action))
				mu.Unlock()
			case <-errs:
				return
			}
		}
	}()
	if err := b.cli.ContainerStart(ctx, name, container.StartOptions{}); err != nil {
		t.Fatal(err)
	}
	exec, err := b.cli.ContainerExecCreate(ctx, name, container.ExecOptions{Cmd: runtimetest.Program("copy", "--", "print", "end"), AttachStdin: true, AttachStdout: true})
	if err != nil {
		t.Fatal(err)
	}
	session, err := b.cli.ContainerExecAttach(ctx, exec.ID, container.ExecAttachOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	if _, err := io.WriteString(session.Conn, "through\n"); err != nil {
		t.Fatal(err)
	}
	if err := session.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if _, err := stdcopy.StdCopy(&out, io.Discard, session.Reader); err != nil || out.String() != "through\nend\n" {
		t.Errorf("exec: %q, %v", &out, err)
	}
	logs, err := b.cli.ContainerLogs(ctx, name, container.LogsOptions{ShowStdout: true})
	if err != nil {
		t.Fatal(err)
	}
	defer logs.Close()
	out.Reset()
	if _, err := stdcopy.StdCopy(&out, io.Discard, logs); err != nil || out.String() != "one\n" {
		t.Errorf("logs: %q, %v", &out, err)
	}
	if err := b.cli.ContainerKill(ctx, name, "KILL"); err != nil {
		t.Fatal(err)
	}
	<-done
	if got := strings.Join(seen, " "); got != "start start die die" {
		t.Errorf("events: %s", got)
	}
}
